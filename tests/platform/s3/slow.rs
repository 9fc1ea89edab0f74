//! A store that does not answer.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::cases::{SCRIPT, TOTAL, orders, total};
use super::on_s3;
use crate::harness::{Client, PATIENCE, Server};

/// Bytes of records that may wait for the store.
const BACKLOG_BYTES: usize = 3_000_000;

fn signal(name: &str) {
    let pid = std::fs::read_to_string(Path::new(&std::env::var("S3_DIR").unwrap()).join("pid")).unwrap();
    assert!(Command::new("kill").args([format!("-{name}"), pid.trim().to_owned()]).status().unwrap().success());
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let of = |entry: std::fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            bytes_below(&entry.path())
        } else {
            // it may just have been removed
            entry.metadata().map_or(0, |metadata| metadata.len())
        }
    };
    entries.map(of).sum()
}

/// Sends orders until they are refused; returns how many are acknowledged.
async fn send_until_refused(client: &Client, mut sent: u64) -> u64 {
    let begun = Instant::now();
    loop {
        let request =
            client.request("POST", "/v1/streams/orders/events").header("content-type", "application/x-ndjson");
        let answer = request.body(orders(sent, sent + 1_000)).send().await.unwrap();
        if answer.status() == 200 {
            sent += 1_000;
            assert!(begun.elapsed() < PATIENCE, "{sent} orders are taken while the store does not answer");
            continue;
        }
        assert_eq!(answer.status(), 503);
        let retry_after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&retry_after));
        let problem = answer.text().await.unwrap();
        assert!(problem.contains("wait for the store"), "{problem}");
        return sent;
    }
}

/// landing and checkpoints stand still, so the log may not be truncated: it grows to its bound, and
/// what comes then is refused. When the store answers again, everything goes on by itself.
pub(super) async fn stopped_server_ends_in_refusal_and_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = on_s3(folder.path());
    settings.limits.checkpoint_interval_ms = 50;
    settings.limits.landing_interval_ms = 100;
    settings.limits.log_backlog_bytes_max = BACKLOG_BYTES;
    let server = Server::start_with(settings).await;
    let client = &server.client;
    client.sql(SCRIPT).await;
    client.ingest("orders", orders(0, 1_000)).await;
    let mut sent = 1_000;
    for _ in 0..2 {
        signal("STOP");
        // answers that were on their way arrive
        tokio::time::sleep(Duration::from_millis(500)).await;
        sent = send_until_refused(client, sent).await;
        let refused = Instant::now();
        while refused.elapsed() < Duration::from_secs(2) {
            assert_eq!(send_until_refused(client, sent).await, sent, "refused, and then taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(client.sql(TOTAL).await["rows"], total(sent), "queries are answered from memory");
        let log_bytes = bytes_below(&folder.path().join("log"));
        signal("CONT");
        assert!(log_bytes < 4 * BACKLOG_BYTES as u64 + 2_000 * sent, "{log_bytes} bytes of log for {sent} orders");
        let begun = Instant::now();
        while let Err((status, problem)) = client.try_ingest("orders", orders(sent, sent + 1_000)).await {
            assert_eq!(status, 503, "{problem}");
            assert!(begun.elapsed() < PATIENCE, "not taken again: {problem}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        sent += 1_000;
        assert_eq!(client.sql(TOTAL).await["rows"], total(sent));
    }
    let run = client.run("per_country").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&"exact".into(), &sent.into()), "{run}");
    assert_eq!(client.sql(TOTAL).await["rows"], total(sent));
    server.stop().await;
}
