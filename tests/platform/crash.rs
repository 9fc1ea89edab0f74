//! `kill -9` at any moment: every acknowledged event is there once, in the log, the master, the views.
//! The platform runs in a child process (this test binary again) that is killed at random points of
//! ingest, checkpoint, landing, run and publication. (R-020, R-067, R-068)

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::harness::{Client, PATIENCE, config, rows};

/// Kills in the suite.
const KILLS: usize = 200;
/// Tells this binary to be the child: the data folder.
const CHILD: &str = "BIFOLD_TEST_CHILD";

/// Not a test of its own: what the child process runs.
#[test]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = config(Path::new(&folder));
        config.limits.checkpoint_interval_ms = 15;
        config.limits.landing_interval_ms = 40;
        config.limits.log_segment_bytes = 200_000;
        let platform = bifold::platform::Platform::start(config).await.unwrap();
        platform.wait().await.unwrap();
    });
}

pub(crate) struct Running {
    child: Child,
    pub(crate) client: Client,
}

impl Running {
    #[expect(clippy::zombie_processes, reason = "killed and waited for in `kill`; a failing test ends the process")]
    pub(crate) async fn start(folder: &Path) -> Self {
        let _ = std::fs::remove_file(folder.join("endpoint"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(CHILD, folder)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        loop {
            let endpoint = std::fs::read_to_string(folder.join("endpoint")).unwrap_or_default();
            if !endpoint.is_empty() {
                let token = std::fs::read_to_string(folder.join("admin-token")).unwrap();
                let client = Client::new(endpoint.trim(), token.trim());
                if client.request("GET", "/readyz").send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return Self { child, client };
                }
            }
            assert!(begun.elapsed() < PATIENCE, "the child did not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Numbered events; what the cells must say is counted by hand.
#[derive(Default)]
struct Sent {
    next: u64,
    cells: BTreeMap<(u64, u64), (u64, u64)>,
}

impl Sent {
    fn batch(&mut self, rows: u64) -> std::ops::Range<u64> {
        let range = self.next..self.next + rows;
        self.next = range.end;
        range
    }

    fn acknowledged(&mut self, range: std::ops::Range<u64>) {
        for number in range {
            let cell = self.cells.entry((number % 7, number / 600)).or_default();
            cell.0 += 1;
            cell.1 += number;
        }
    }
}

fn body(range: std::ops::Range<u64>) -> String {
    let line = |n: u64| {
        let (minute, second) = (n / 60 % 60, n % 60);
        let (day, hour) = (1 + n / 86_400, n / 3_600 % 24);
        format!(r#"{{"id":"{n}","k":{},"n":{n},"at":"2024-01-{day:02}T{hour:02}:{minute:02}:{second:02}Z"}}"#, n % 7)
    };
    range.map(|n| line(n) + "\n").collect()
}

async fn check(client: &Client, sent: &Sent, context: &str) {
    let answer = client.sql("SELECT k, window_start, c, s FROM v").await;
    let mut found = BTreeMap::new();
    for row in rows(&answer) {
        let time = row[1].as_str().unwrap();
        let number = |from: usize, to: usize| time[from..to].parse::<u64>().unwrap();
        let window = ((number(8, 10) - 1) * 86_400 + number(11, 13) * 3_600 + number(14, 16) * 60) / 600;
        let cell = (row[2].as_u64().unwrap(), row[3].as_u64().unwrap());
        assert!(found.insert((row[0].as_u64().unwrap(), window), cell).is_none(), "{context}: a cell twice");
    }
    assert_eq!(found, sent.cells, "{context}");
}

/// Sends until the child dies; returns what was not acknowledged.
async fn load(client: &Client, sent: &mut Sent, rng: &mut ChaCha8Rng, until: Instant) -> Option<std::ops::Range<u64>> {
    while Instant::now() < until {
        let range = sent.batch(rng.random_range(1..120));
        let request = client.request("POST", "/v1/streams/s/events").body(body(range.clone()));
        match request.header("content-type", "application/x-ndjson").send().await {
            Ok(answer) if answer.status().is_success() => {
                let told: Value = answer.json().await.unwrap();
                assert_eq!(told["accepted"].as_u64(), Some(range.end - range.start), "{told}");
                sent.acknowledged(range);
            }
            _ => return Some(range),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_loses_or_doubles_an_acknowledged_event() {
    let seed = std::env::var("BIFOLD_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_260_101);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut sent = Sent::default();
    let mut unknown: Option<std::ops::Range<u64>> = None;
    for kill in 0..KILLS {
        let running = Running::start(folder.path()).await;
        let client = running.client.clone();
        if kill == 0 {
            client
                .sql(
                    "CREATE STREAM s (id TEXT NOT NULL, k INT, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
                WATERMARK FOR at AS at) WITH (partitions = 3)",
                )
                .await;
            client
                .sql(
                    "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, count(*) AS c, sum(n) AS s \
                FROM TUMBLE(s, at, INTERVAL '10 minutes') GROUP BY k, window_start",
                )
                .await;
        }
        if let Some(range) = unknown.take() {
            // not acknowledged: it may be there or not; sent again it is there once
            client.ingest("s", body(range.clone())).await;
            sent.acknowledged(range);
        }
        check(&client, &sent, &format!("seed {seed}, after kill {kill}")).await;
        let runs = tokio::spawn({
            let client = client.clone();
            async move {
                while client.request("POST", "/v1/views/v/runs").send().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
        });
        let until = Instant::now() + Duration::from_millis(rng.random_range(10..400));
        let killer = tokio::task::spawn_blocking({
            let early = until.checked_sub(Duration::from_millis(rng.random_range(0..10))).unwrap_or(until);
            move || {
                std::thread::sleep(early.saturating_duration_since(Instant::now()));
                running.kill();
            }
        });
        unknown = load(&client, &mut sent, &mut rng, until + Duration::from_millis(20)).await;
        killer.await.unwrap();
        runs.abort();
    }
    finish(folder.path(), &mut sent, unknown).await;
}

/// A last run over everything: exact, and the master has each record once.
async fn finish(folder: &Path, sent: &mut Sent, unknown: Option<std::ops::Range<u64>>) {
    let running = Running::start(folder).await;
    if let Some(range) = unknown {
        running.client.ingest("s", body(range.clone())).await;
        sent.acknowledged(range);
    }
    let run = running.client.run("v").await;
    assert_eq!((&run["state"], &run["verdict"]), (&json!("succeeded"), &json!("exact")), "{run}");
    let total: u64 = sent.cells.values().map(|cell| cell.0).sum();
    assert_eq!(run["rows"], json!(total), "{run}");
    check(&running.client, sent, "at the end").await;
    let certificates = running.client.request("GET", "/v1/views/v/certificates").send().await.unwrap();
    let certificates: Value = certificates.json().await.unwrap();
    let all = certificates.as_array().or_else(|| certificates["certificates"].as_array()).unwrap();
    assert!(all.iter().all(|certificate| certificate["verdict"] == "exact"), "{certificates}");
    running.kill();
}
