//! A broker that does not answer, under a log of ours.

use std::time::{Duration, Instant};

use super::broker::{Broker, until_counted};
use super::log::{body, create};
use crate::harness::{Client, PATIENCE, Server, config};

/// A thousand events from `first` on; on a busy machine a broker may be slow without being stopped.
async fn send_until_taken(client: &Client, first: u64) {
    let begun = Instant::now();
    while let Err((status, problem)) = client.try_ingest("s", body(first..first + 1_000)).await {
        assert!(matches!(status, 429 | 503), "{status}: {problem}");
        assert!(begun.elapsed() < PATIENCE, "not taken: {problem}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// a request whose end is not known says so and holds its memory; what comes behind is refused at once,
/// with how long to wait; when the broker answers again, everything goes on by itself and is there once.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_broker_ends_in_refusal_and_is_survived() {
    let broker = Broker::start_new("");
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.ingest_timeout_ms = 1_000;
    config.limits.ingest_bytes_in_flight_max = 4 << 20;
    let server = Server::start_with(config).await;
    let client = &server.client;
    create(client, &broker).await;
    send_until_taken(client, 0).await;
    let mut sent = 1_000;
    for _ in 0..2 {
        broker.signal("STOP");
        let (status, problem) = client.try_ingest("s", body(sent..sent + 500)).await.unwrap_err();
        assert_eq!((status, &problem["retryable"]), (503, &true.into()), "{problem}");
        assert!(problem["hint"].as_str().unwrap().contains("send them again"), "{problem}");
        let begun = Instant::now();
        let mut at_once = 0;
        while at_once < 20 {
            let asked = Instant::now();
            let request = client.request("POST", "/v1/streams/s/events").header("content-type", "application/x-ndjson");
            let answer = request.body(body(sent + 500..sent + 1_000)).send().await.unwrap();
            let answer_status = answer.status().as_u16();
            assert!(matches!(answer_status, 429 | 503), "{answer_status}");
            assert!(answer_status == 503 || at_once == 0, "a stream whose log does not answer is not merely busy");
            let retry_after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=60).contains(&retry_after));
            let problem = answer.text().await.unwrap();
            // by the broker's silence; for the first seconds those that wait for it may take all the bytes there are
            let is_told_why = answer_status == 503 && problem.contains("has not answered for");
            at_once += u32::from(is_told_why && asked.elapsed() < Duration::from_millis(500));
            assert!(begun.elapsed() < PATIENCE, "requests wait behind a broker that does not answer: {problem}");
        }
        until_counted(client, sent).await;
        broker.signal("CONT");
        send_until_taken(client, sent).await;
        sent += 1_000;
        until_counted(client, sent).await;
    }
    let run = client.run("v").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&"exact".into(), &sent.into()), "{run}");
    server.stop().await;
    broker.script("wipe", "");
}
