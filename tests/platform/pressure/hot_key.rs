//! One key with half of all events, and they are in one partition: every core folds as long as the others, and events
//! of the other partitions do not wait.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{PATIENCE, Server, config, rows};

const STREAM: &str = "hot_partition";
/// The cores' times may differ by so much: the longest over the mean.
const MAX_OVER_MEAN: f64 = 1.5;

fn body(key: &str, events: u64) -> String {
    let line = |n: u64| {
        json!({ "k": format!("{key}{}", n % 50 * u64::from(key != "hot")), "n": n, "x": 0.5 }).to_string() + "\n"
    };
    (0..events).map(line).collect()
}

/// Microseconds that each shard of the stream has folded.
async fn busy_us(server: &Server) -> Vec<f64> {
    let text = server.client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let mine = |line: &&str| {
        line.starts_with("bifold_speed_shard_busy_microseconds_total{") && line.contains(&format!("\"{STREAM}\""))
    };
    text.lines().filter(mine).map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_key_keeps_every_core_busy_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.checkpoint_interval_ms = 600_000;
    let server = Server::start_with(config).await;
    // without a key, requests go to one partition after the other: what partition a key is in is up to the test
    let script = format!(
        "CREATE STREAM {STREAM} (k TEXT, n BIGINT, x DOUBLE PRECISION) WITH (partitions = 4);
         CREATE MATERIALIZED VIEW {STREAM}_by_key AS
           SELECT k, count(*) AS c, sum(n) AS s, avg(x) AS x FROM {STREAM} GROUP BY k"
    );
    server.client.sql(&script).await;
    let mut sent = 0;
    let mut longest = Duration::ZERO;
    // large requests, which are cut into pieces, and small ones, which are not
    for (hot, rounds) in [(45_000, 4), (1_500, 40)] {
        for _ in 0..rounds {
            server.client.ingest(STREAM, body("hot", hot)).await;
            for other in ["a", "b", "c"] {
                let begun = Instant::now();
                let path = format!("/v1/streams/{STREAM}/events?wait=visible");
                let answer = server.client.request("POST", &path).body(body(other, hot / 3)).send().await.unwrap();
                assert_eq!(answer.status(), 200);
                longest = longest.max(begun.elapsed());
            }
            sent += 2 * hot;
        }
    }
    let begun = Instant::now();
    let count = format!("SELECT sum(c), sum(c) FILTER (WHERE k = 'hot0') FROM {STREAM}_by_key");
    loop {
        let answer = server.client.sql(&count).await;
        let number = |column: usize| super::number(&rows(&answer)[0][column]);
        if number(0) == sent {
            assert_eq!(number(1), sent / 2, "half of all events have one key");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let busy = busy_us(&server).await;
    assert_eq!(busy.len(), cores, "{busy:?}");
    let mean = busy.iter().sum::<f64>() / busy.len() as f64;
    let largest = busy.iter().copied().fold(0.0, f64::max);
    assert!(largest / mean <= MAX_OVER_MEAN, "{busy:?}: {:.2}", largest / mean);
    assert!(longest < Duration::from_secs(20), "an event of another key was visible after {longest:?}");
    server.stop().await;
}
