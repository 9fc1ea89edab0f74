//! Damage to what is stored: whatever bit flips, whichever file is cut, lost or has grown, an answer is the truth or
//! an error that says what is wrong; never another number, and never a panic. (R-012, R-020; DESIGN §16)

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bifold::platform::Platform;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::harness::{Client, Server, config};

/// Damaged copies that are tried.
const CASES: u64 = 250;
/// A start or a query that takes longer hangs.
const BOUND: Duration = Duration::from_mins(1);
const QUERIES: [&str; 2] = ["SELECT * FROM hourly ORDER BY k, window_start", "SELECT * FROM total"];

/// Panics of the product, on whatever thread; those of the tests themselves are not counted.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|place| !place.file().starts_with("tests/")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

fn events(from: u32, to: u32) -> String {
    let event = |n: u32| {
        let (hour, minute) = (n / 40 % 24, n * 7 % 60);
        let at = format!("2026-03-01T{hour:02}:{minute:02}:00Z");
        json!({ "id": format!("e{n}"), "k": format!("key-{}", n % 7), "x": f64::from(n) * 0.1, "at": at }).to_string()
            + "\n"
    };
    (from..to).map(event).collect()
}

/// A folder with a run, deltas that follow it, and records that are only in the log.
async fn history(folder: &Path) -> Vec<Value> {
    let server = Server::start(folder).await;
    let client = &server.client;
    client
        .sql(
            "CREATE STREAM s (id TEXT NOT NULL, k TEXT, x DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
             WATERMARK FOR at AS at) WITH (partitions = 2)",
        )
        .await;
    let views = [
        (
            "hourly",
            "SELECT k, window_start, count(*) AS n, sum(x) AS x, max(x) AS most, approx_distinct(id) AS ids \
            FROM TUMBLE(s, at, INTERVAL '1 hour') GROUP BY k, window_start",
        ),
        ("total", "SELECT count(*) AS n, sum(x) AS x FROM s"),
    ];
    for (name, select) in views {
        client.sql(&format!("CREATE MATERIALIZED VIEW {name} REFRESH MANUAL AS {select}")).await;
    }
    for part in 0..6 {
        client.ingest("s", events(part * 300, part * 300 + 300)).await;
        if part == 1 || part == 3 {
            assert_eq!(client.run("hourly").await["verdict"], "exact");
        } else {
            server.platform.checkpoint("s").await.unwrap();
        }
    }
    let truth = answers(client).await.unwrap().into_iter().map(|answer| answer.unwrap()).collect();
    server.stop().await;
    truth
}

/// Rows or a problem for each query; nothing from a platform that has stopped itself.
async fn answers(client: &Client) -> Option<Vec<Result<Value, Value>>> {
    let mut found = vec![];
    for sql in QUERIES {
        let asked = client.request("POST", "/v1/sql").json(&json!({ "sql": sql })).send();
        let answer = tokio::time::timeout(BOUND, asked).await.unwrap_or_else(|_| panic!("{sql}: no answer")).ok()?;
        let is_ok = answer.status().is_success();
        let body: Value = answer.json().await.ok()?;
        found.push(if is_ok { Ok(body["rows"].clone()) } else { Err(body) });
    }
    Some(found)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
}

/// Damages one file; says how.
fn damage(folder: &Path, rng: &mut ChaCha8Rng) -> String {
    let stored = files(folder);
    // another token is no damage: it is another token
    let is_stored = |file: &PathBuf| file.metadata().unwrap().len() > 0 && !file.ends_with("admin-token");
    let mut stored = stored.into_iter().filter(is_stored).collect::<Vec<_>>();
    let file = stored.swap_remove(rng.random_range(0..stored.len()));
    let mut bytes = std::fs::read(&file).unwrap();
    let at = rng.random_range(0..bytes.len());
    let name = file.strip_prefix(folder).unwrap().display().to_string();
    let how = match rng.random_range(0..10) {
        0 => {
            std::fs::remove_file(&file).unwrap();
            return format!("{name}: lost");
        }
        1 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        2 => {
            bytes.extend_from_slice(&[0xA5; 9]);
            "grown by 9 bytes".to_owned()
        }
        3 => {
            let to = (at + 64).min(bytes.len());
            bytes[at..to].fill(0);
            format!("zeros from {at} to {to}")
        }
        _ => {
            bytes[at] ^= 1 << rng.random_range(0..8);
            format!("a bit of byte {at} of {}", bytes.len())
        }
    };
    std::fs::write(&file, bytes).unwrap();
    format!("{name}: {how}")
}

/// What a user finds who starts on this folder: nothing if it does not start.
async fn look(folder: &Path, how: &str) -> Option<Vec<Result<Value, Value>>> {
    let started = tokio::time::timeout(BOUND, Platform::start(config(folder))).await.expect("a start that ends");
    let platform = match started {
        Ok(platform) => platform,
        Err(error) => {
            assert!(!format!("{error:#}").is_empty());
            return None;
        }
    };
    let found = answers(&Client::new(platform.url(), platform.token())).await;
    let stopped = tokio::time::timeout(BOUND, platform.stop()).await.expect("a stop that ends");
    assert!(found.is_some() || stopped.is_err(), "{how}: it has stopped without a reason");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_any_stored_file_is_an_error_or_changes_no_answer() {
    count_panics();
    let whole = tempfile::tempdir().unwrap();
    let truth = history(whole.path()).await;
    let seed = std::env::var("BIFOLD_DAMAGE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2_000_u64);
    let (mut refused, mut same) = (0, 0);
    for case in seed..seed + CASES {
        let mut rng = ChaCha8Rng::seed_from_u64(case);
        let folder = tempfile::tempdir().unwrap();
        copy(whole.path(), folder.path());
        let how = format!("case {case}, {}", damage(folder.path(), &mut rng));
        let before = PANICS.load(Ordering::Relaxed);
        match look(folder.path(), &how).await {
            None => refused += 1,
            Some(found) => {
                for ((sql, found), truth) in QUERIES.iter().zip(found).zip(&truth) {
                    match found {
                        Ok(rows) => assert_eq!(&rows, truth, "{how}: {sql} gives another answer"),
                        Err(problem) => assert!(problem["detail"].is_string(), "{how}: {problem}"),
                    }
                }
                same += 1;
            }
        }
        assert_eq!(PANICS.load(Ordering::Relaxed), before, "{how}: a panic");
    }
    assert!(
        refused > 0 && same > 0,
        "refused {refused}, started {same}: the damage is too mild or too strong to say much"
    );
}
