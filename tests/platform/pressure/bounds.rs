//! The bounds over all streams, and those that only a run makes room under, as users meet them.

use std::time::{Duration, Instant};

use serde_json::json;

use super::number;
use crate::harness::{Client, PATIENCE, Server, config, one};

fn body(range: std::ops::Range<u64>) -> String {
    let line = |n: u64| json!({ "id": n.to_string(), "n": n, "at": "2024-01-01T00:00:00Z" }).to_string() + "\n";
    range.map(line).collect()
}

fn create(stream: &str) -> String {
    format!(
        "CREATE STREAM {stream} (id TEXT NOT NULL, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id),
         WATERMARK FOR at AS at) WITH (partitions = 2);
         CREATE MATERIALIZED VIEW {stream}_sum REFRESH MANUAL AS SELECT count(*) AS c, sum(n) AS s FROM {stream};"
    )
}

async fn counted(client: &Client, sql: &str) -> u64 {
    number(one(&client.sql(sql).await))
}

/// States that are in no batch view fill the memory for them: events are refused with what helps, and nothing else is;
/// a run of one of two views is not enough, a run of both makes room.
#[tokio::test(flavor = "multi_thread")]
async fn states_without_a_run_are_bounded() {
    const SECOND: &str = "CREATE MATERIALIZED VIEW by_id REFRESH MANUAL AS SELECT id, sum(n) AS s FROM s GROUP BY id";
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.checkpoint_interval_ms = 20;
    config.limits.speed_chain_bytes_max = 256 << 10;
    let server = Server::start_with(config).await;
    let client = &server.client;
    client.sql(&create("s")).await;
    client.sql(SECOND).await;
    let mut sent = 0;
    for round in 0..2 {
        let begun = Instant::now();
        let refused = loop {
            match client.try_ingest("s", body(sent..sent + 200)).await {
                Ok(_) => sent += 200,
                Err(refused) => break refused,
            }
            assert!(begun.elapsed() < PATIENCE, "round {round}: {sent} events, and never too much");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (status, problem) = refused;
        assert_eq!((status, &problem["code"], &problem["retryable"]), (429, &json!("overloaded"), &json!(true)));
        assert!(problem["hint"].as_str().unwrap().contains("REFRESH MATERIALIZED VIEW"), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("262144 at most"), "{problem}");
        assert_eq!(counted(client, "SELECT count(*) FROM by_id").await, sent, "what was taken is answered");
        assert_eq!(client.run("s_sum").await["verdict"], "exact");
        assert_eq!(client.try_ingest("s", body(sent..sent + 200)).await.unwrap_err().0, 429, "by_id had no run");
        assert_eq!(client.run("by_id").await["verdict"], "exact");
        let begun = Instant::now();
        while client.try_ingest("s", body(sent..sent + 200)).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "round {round}: the runs made no room");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sent += 200;
    }
    assert_eq!(counted(client, "SELECT c FROM s_sum").await, sent);
    assert_eq!(counted(client, "SELECT s FROM s_sum").await, sent * (sent - 1) / 2);
    server.stop().await;
}

/// With next to no memory for recent records, and one landing at a time, six streams are read from their files, and each
/// gets its turn: every event is counted and landed once.
#[tokio::test(flavor = "multi_thread")]
async fn many_streams_share_tails_and_landings() {
    const STREAMS: usize = 6;
    const EVENTS: u64 = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.log_tails_bytes_max = 1_000;
    config.limits.landings_at_once = 1;
    config.limits.landing_bytes = 20_000;
    let server = Server::start_with(config).await;
    let client = &server.client;
    let streams: Vec<String> = (0..STREAMS).map(|number| format!("s{number}")).collect();
    for stream in &streams {
        client.sql(&create(stream)).await;
    }
    let sending = streams.iter().map(|stream| async move {
        for from in (0..EVENTS).step_by(500) {
            client.ingest(stream, body(from..from + 500)).await;
        }
    });
    futures::future::join_all(sending).await;
    for stream in &streams {
        assert_eq!(counted(client, &format!("SELECT c FROM {stream}_sum")).await, EVENTS, "{stream}");
        let run = client.run(&format!("{stream}_sum")).await;
        assert_eq!((&run["verdict"], &run["rows"]), (&json!("exact"), &json!(EVENTS)), "{stream}: {run}");
        assert_eq!(counted(client, &format!("SELECT s FROM batch.{stream}_sum")).await, EVENTS * (EVENTS - 1) / 2);
    }
    server.stop().await;
}
