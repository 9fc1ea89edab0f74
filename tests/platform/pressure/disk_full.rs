//! A disk that takes nothing more, and then does again.
//!
//! No test may fill a disk, or make a small one without being root: the operating system is told that no file of the
//! child may grow past a few kilobytes (`RLIMIT_FSIZE`), which fails every write that a full disk would fail, with
//! another number of the error.

use std::time::{Duration, Instant};

use schemas::Limits;
use serde_json::{Value, json};

use super::child::Running;
use crate::harness::{Client, PATIENCE, one};

fn limits() -> Limits {
    Limits {
        checkpoint_interval_ms: 50,
        landing_interval_ms: 100,
        dedup_ids_in_memory_max: 12_000,
        log_segment_bytes: 300_000,
        ..Limits::default()
    }
}

fn body(range: std::ops::Range<u64>) -> String {
    let line = |n: u64| {
        let id = json!({ "id": n.to_string(), "k": n % 7, "n": n, "at": "2024-01-01T00:00:00Z" });
        id.to_string() + "\n"
    };
    range.map(line).collect()
}

async fn counted(client: &Client) -> Value {
    one(&client.sql("SELECT CAST(coalesce(sum(c), 0) AS BIGINT) FROM v").await).clone()
}

/// Sends until it is taken; panics if that does not happen.
async fn send_until_taken(client: &Client, body: &str) {
    let begun = Instant::now();
    while let Err((status, problem)) = client.try_ingest("s", body.to_owned()).await {
        assert!(matches!(status, 429 | 503), "{status}: {problem}");
        assert!(begun.elapsed() < PATIENCE, "not taken again: {problem}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_refuses_events_answers_queries_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &limits()).await;
    let client = &running.client;
    client
        .sql(
            "CREATE STREAM s (id TEXT NOT NULL, k INT, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id),
             WATERMARK FOR at AS at) WITH (partitions = 2);
             CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s FROM s GROUP BY k",
        )
        .await;
    let mut sent = 0;
    for round in 0..3_u64 {
        send_until_taken(client, &body(sent..sent + 4_000)).await;
        sent += 4_000;
        running.limit_files(Some(4_096));
        let begun = Instant::now();
        let (mut refusals, mut no_room) = (0, 0);
        // long enough for checkpoints, landings and tables of ids to fail, too
        while begun.elapsed() < Duration::from_millis(1_500) {
            let request = client.request("POST", "/v1/streams/s/events").header("content-type", "application/x-ndjson");
            let answer = request.body(body(sent..sent + 2_000)).send().await.unwrap();
            // 429: ids that do not get to disk fill the memory for them
            assert!(matches!(answer.status().as_u16(), 429 | 503), "round {round}: {}", answer.status());
            let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            assert!(retry_after.is_some_and(|seconds| seconds.parse::<u64>().unwrap() >= 1));
            let problem: Value = answer.json().await.unwrap();
            refusals += 1;
            no_room += u32::from(problem["detail"].as_str().unwrap().contains("no room is left"));
            assert_eq!(counted(client).await, sent, "a refused event is counted, or an acknowledged one is not");
        }
        assert!(refusals > 3, "{refusals}");
        assert!(no_room > 0 || round > 0, "nothing says that the disk is full");
        running.limit_files(None);
        send_until_taken(client, &body(sent..sent + 2_000)).await;
        sent += 2_000;
        assert_eq!(counted(client).await, sent, "round {round}");
    }
    let run = client.run("v").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&json!("exact"), &json!(sent)), "{run}");
    running.kill();
    let again = Running::start(folder.path(), &limits()).await;
    assert_eq!(counted(&again.client).await, sent, "after a kill");
    again.kill();
}
