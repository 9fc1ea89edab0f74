//! A broker that does not answer, under a log of ours.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::broker::{Broker, until_counted};
use super::log::{body, create};
use crate::harness::{Client, PATIENCE, Server, config};

/// Sends events until they are taken; on a busy machine a broker may be slow without being stopped.
async fn send_until_taken(client: &Client, ids: Range<u64>) {
    let begun = Instant::now();
    while let Err((status, problem)) = client.try_ingest("s", body(ids.clone())).await {
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
    send_until_taken(client, 0..1_000).await;
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
        send_until_taken(client, sent..sent + 1_000).await;
        sent += 1_000;
        until_counted(client, sent).await;
    }
    let run = client.run("v").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&"exact".into(), &sent.into()), "{run}");
    server.stop().await;
    broker.script("wipe", "");
}

/// What a broker that was killed costs beyond the time that it is away. (It was 25 s: a transaction was waited for whose
/// broker was gone.)
const RECOVERY_MAX: Duration = Duration::from_secs(12);

/// a broker is killed in the middle of a transaction of the log. What was under way is refused or found to be
/// there; soon after the broker is back events are taken again, and each is there once.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "how long it took")]
async fn killed_broker_costs_little_more_than_its_absence() {
    let broker = Broker::start_new("");
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.ingest_timeout_ms = 1_000;
    let server = Server::start_with(config).await;
    let client = &server.client;
    create(client, &broker).await;
    let mut sent = 0;
    for _ in 0..2 {
        let killing = broker.clone();
        // one request after the other: whenever the kill comes, a transaction is under way
        let back = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(300));
            killing.kill_and_start();
            Instant::now()
        });
        let begun = Instant::now();
        while !back.is_finished() {
            send_until_taken(client, sent..sent + 100).await;
            sent += 100;
            assert!(begun.elapsed() < PATIENCE);
        }
        let back = back.await.unwrap();
        send_until_taken(client, sent..sent + 100).await;
        sent += 100;
        let cost = back.elapsed();
        println!("events are taken {:.1} s after the broker is back", cost.as_secs_f64());
        assert!(cost < RECOVERY_MAX, "{cost:?}");
        until_counted(client, sent).await;
    }
    let run = client.run("v").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&"exact".into(), &sent.into()), "{run}");
    server.stop().await;
    broker.script("wipe", "");
}
