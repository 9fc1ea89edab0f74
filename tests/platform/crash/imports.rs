//! An import is killed again and again: server and client by `kill -9`. Every event is in, once.
//! `BIFOLD_KILLS` says how often; `infra/kills.sh import` says more than the suite. (R-020, R-094)

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Running, setting};
use crate::commits::{EVENTS, commits};
use crate::harness::{Client, PATIENCE, one, rows};

/// Kills in the suite.
const KILLS: u64 = 6;
const STREAM: &str = "CREATE STREAM commits (id TEXT NOT NULL, repo TEXT, author TEXT, files INT, area TEXT, \
    event_time TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR event_time AS event_time - INTERVAL '1 hour') WITH (partitions = 4)";
const PER_DAY: &str = "CREATE MATERIALIZED VIEW per_day AS SELECT repo, window_start, count(*) AS commits, \
    sum(files) AS files FROM TUMBLE(commits, event_time, INTERVAL '1 day') GROUP BY repo, window_start";
const PER_ID: &str = "CREATE MATERIALIZED VIEW per_id AS SELECT id, count(*) AS times FROM commits GROUP BY id";

/// A file of events and what must come out of it, counted from its text.
struct Data {
    file: PathBuf,
    events: u64,
    files: u64,
    days: u64,
}

impl Data {
    /// The real commits where they are, else as many that are made.
    fn of(folder: &Path) -> Self {
        let file = commits(folder).unwrap_or_else(|| made(folder));
        let (mut events, mut files, mut days) = (0, 0, BTreeSet::new());
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let time = event["event_time"].as_str().unwrap();
            let day = day_of(time);
            (events, files) = (events + 1, files + event["files"].as_u64().unwrap());
            days.insert((event["repo"].as_str().unwrap().to_owned(), day));
        }
        assert_eq!(events, EVENTS);
        Self { file, events, files, days: days.len() as u64 }
    }
}

/// Days since an epoch of an RFC 3339 time, whatever its offset from UTC.
fn day_of(time: &str) -> i64 {
    let number = |from: usize, to: usize| time[from..to].parse::<i64>().unwrap();
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // days from civil (Howard Hinnant)
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day;
    let seconds = number(11, 13) * 3_600 + number(14, 16) * 60 + number(17, 19);
    let offset = match time.rfind(['+', '-']).filter(|at| *at > 18) {
        Some(at) => {
            let sign = if time.as_bytes()[at] == b'-' { -1 } else { 1 };
            sign * (number(at + 1, at + 3) * 3_600 + number(at + 4, at + 6) * 60)
        }
        None => 0,
    };
    (days * 86_400 + seconds - offset).div_euclid(86_400)
}

/// Commits of the same shape, up to three weeks late.
fn made(folder: &Path) -> PathBuf {
    let mut text = String::new();
    for number in 0..EVENTS {
        let noise = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let at = number * 97 + noise % 1_814_400;
        let (day, hour, minute, second) = (at / 86_400, at / 3_600 % 24, at / 60 % 60, at % 60);
        let time = format!(
            "20{:02}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
            10 + day / 336,
            1 + day / 28 % 12,
            1 + day % 28
        );
        let (repo, author, files) = (noise % 5, noise % 97, noise % 40);
        writeln!(
            text,
            r#"{{"id":"{number:016x}","repo":"made/{repo}","author":"{author:x}","files":{files},"area":"src","event_time":"{time}"}}"#
        )
        .unwrap();
    }
    let file = folder.join("commits.ndjson");
    std::fs::write(&file, text).unwrap();
    file
}

async fn counted(client: &Client) -> u64 {
    let answer = client.sql("SELECT CAST(coalesce(sum(commits), 0) AS BIGINT) FROM per_day").await;
    one(&answer).as_u64().unwrap()
}

/// Waits until so many are counted, or the import has ended.
async fn until(client: &Client, events: u64, import: &JoinHandle<Result<(), String>>) {
    let begun = Instant::now();
    while counted(client).await < events && !import.is_finished() {
        assert!(begun.elapsed() < PATIENCE, "the import does not go on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Kills an import at random moments of each share of it, then lets it come to its end.
async fn kill_again_and_again(
    start: impl Fn(&Client) -> JoinHandle<Result<(), String>>,
    data: &Data,
    folder: &Path,
) -> Running {
    let kills = setting("BIFOLD_KILLS", KILLS);
    let mut rng = ChaCha8Rng::seed_from_u64(setting("BIFOLD_TEST_SEED", 20_260_101));
    let variables = [("BIFOLD__IMPORT_DIR".to_owned(), data.file.parent().unwrap().display().to_string())];
    let mut running = Running::start_with(folder, &variables).await;
    for sql in [STREAM, PER_DAY, PER_ID] {
        running.client.sql(sql).await;
    }
    for kill in 0..kills {
        let import = start(&running.client);
        let share = data.events / (kills + 1);
        until(&running.client, share * kill + rng.random_range(0..=share), &import).await;
        // within the next body
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
        if rng.random_bool(0.75) {
            running.kill();
            let _ = import.await;
            running = Running::start_with(folder, &variables).await;
        } else {
            import.abort();
            let _ = import.await;
        }
    }
    start(&running.client).await.unwrap().unwrap();
    running
}

/// R-094: all of it, each event once.
#[expect(clippy::print_stdout, reason = "what infra/kills.sh is run for")]
async fn check(running: Running, data: &Data, how: &str, begun: Instant) {
    let client = &running.client;
    let total =
        client.sql("SELECT CAST(sum(commits) AS BIGINT), CAST(sum(files) AS BIGINT), count(*) FROM per_day").await;
    assert_eq!(rows(&total)[0], json!([data.events, data.files, data.days]));
    let times = client.sql("SELECT count(*), min(times), max(times) FROM per_id").await;
    assert_eq!(rows(&times)[0], json!([data.events, 1, 1]), "each id once");
    let run = client.run("per_id").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&json!("exact"), &json!(data.events)), "{run}");
    let ledger = "SELECT CAST(sum(accepted) AS BIGINT), CAST(sum(abs(balance)) AS BIGINT) FROM system.ledger \
        WHERE layer = 'ingest'";
    assert_eq!(rows(&client.sql(ledger).await)[0], json!([data.events, 0]));
    running.kill();
    let (kills, minutes) = (setting("BIFOLD_KILLS", KILLS), begun.elapsed().as_secs_f64() / 60.0);
    println!("\n{how}: cut short {kills} times, {} events, once each, run exact, {minutes:.1} minutes", data.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn import_by_the_client_that_is_killed_again_and_again_is_in_once() {
    let begun = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let data = Data::of(folder.path());
    let start = |client: &Client| {
        let file = data.file.to_str().unwrap();
        let mut words = vec!["--url", client.url(), "--token", client.token()];
        words.extend(["ingest", "commits", file, "--batch-rows", "2000", "--in-flight", "2"]);
        let mut command = tokio::process::Command::from(super::bifold(&words));
        // whoever stops waiting for it kills it
        command.kill_on_drop(true);
        tokio::spawn(async move {
            let ended = command.output().await.map_err(|error| error.to_string())?;
            if ended.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ended.stderr).into_owned()) }
        })
    };
    let running = kill_again_and_again(start, &data, &folder.path().join("data")).await;
    check(running, &data, "bifold ingest", begun).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_that_is_killed_again_and_again_is_in_once() {
    let begun = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let data = Data::of(folder.path());
    let start = |client: &Client| {
        let client = client.clone();
        tokio::spawn(async move {
            let sql = json!({ "sql": "COPY commits FROM 'commits.ndjson'" });
            loop {
                let answer =
                    client.request("POST", "/v1/sql").json(&sql).send().await.map_err(|error| error.to_string())?;
                let text = answer.text().await.map_err(|error| error.to_string())?;
                if text.contains("copied") {
                    return Ok(());
                }
                // it took longer than a query may take: the same COPY waits for its end
                if !text.contains("goes on") {
                    return Err(text);
                }
            }
        })
    };
    let running = kill_again_and_again(start, &data, &folder.path().join("data")).await;
    let again = running.client.sql("COPY commits FROM 'commits.ndjson'").await;
    let expected = format!("commits.ndjson is in commits already: {} events, copied as commits.ndjson", data.events);
    assert_eq!(again["results"][0], expected.as_str(), "{again}");
    check(running, &data, "COPY", begun).await;
}
