//! One process on a store: first use, ownership, a server that dies or fails.

use std::time::{Duration, Instant};

use bifold::platform::Platform;
use serde_json::{Value, json};
use storage::store::{Store, conformance};

use super::{on_s3, server_in_background, url};
use crate::harness::{Client, PATIENCE, Server, config, one};

pub(super) const SCRIPT: &str = "
  CREATE STREAM orders (id TEXT NOT NULL, country TEXT, cents BIGINT, at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (id), WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (partitions = 2);
  CREATE MATERIALIZED VIEW per_country AS
    SELECT country, count(*) AS orders, sum(cents) AS cents FROM orders GROUP BY country;";

/// Orders numbered `from .. to`, worth their number.
pub(super) fn orders(from: u64, to: u64) -> String {
    let line = |n: u64| {
        let country = ["KR", "DE", "JP"][(n % 3) as usize];
        format!("{{\"id\":\"{n}\",\"country\":\"{country}\",\"cents\":{n},\"at\":\"2024-05-01T10:00:00Z\"}}\n")
    };
    (from..to).map(line).collect()
}

pub(super) const TOTAL: &str = "SELECT CAST(sum(orders) AS BIGINT), CAST(sum(cents) AS BIGINT) FROM per_country";

/// What [`TOTAL`] must say of the orders below `to`.
pub(super) fn total(to: u64) -> Value {
    json!([[to, to * (to - 1) / 2]])
}

pub(super) async fn store_conforms() {
    let root = format!("{}/conformance", url());
    let (first, second) = (Store::open(&root).unwrap(), Store::open(&root).unwrap());
    conformance::check(&first, &second).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cached = first.with_cache(folder.path(), 50_000_000).unwrap();
    conformance::check(&cached, &second).await.unwrap();
}

pub(super) async fn first_use_and_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(on_s3(folder.path())).await;
    server.client.sql(SCRIPT).await;
    let files = json!({ "countries.csv": "code,continent\nKR,Asia\nJP,Asia\nDE,Europe\n" });
    let script = "CREATE TABLE countries (code TEXT NOT NULL, continent TEXT) FROM FILE 'countries.csv';
        CREATE MATERIALIZED VIEW per_continent AS SELECT continent, sum(cents) AS cents
        FROM orders JOIN countries ON orders.country = countries.code GROUP BY continent;";
    server.client.try_sql(json!({ "sql": script, "files": files })).await.unwrap();
    server.client.ingest("orders", orders(0, 3_000)).await;
    for view in ["per_country", "per_continent"] {
        assert_eq!(server.client.run(view).await["verdict"], "exact");
    }
    server.client.ingest("orders", orders(3_000, 4_000)).await;
    assert_eq!(server.client.sql(TOTAL).await["rows"], total(4_000));
    assert_eq!(*one(&server.client.sql("SELECT sum(orders) FROM batch.per_country").await), 3_000);
    assert_eq!(*one(&server.client.sql("SELECT sum(orders) FROM speed.per_country").await), 1_000);
    server.stop().await;
    for folder in ["catalog", "deltas", "views", "master", "runs", "tables", "owners"] {
        assert!(!Store::open(&url()).unwrap().list(folder).await.unwrap().is_empty(), "{folder} is in the store");
    }
    let here: Vec<String> =
        std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    for name in &here {
        assert!(
            ["log", "lock", "cache", "spill", "upload", "admin-token", "node-id"].contains(&name.as_str()),
            "{name} is local"
        );
    }
    let server = Server::start_with(on_s3(folder.path())).await;
    assert_eq!(server.client.sql(TOTAL).await["rows"], total(4_000));
    assert_eq!(server.client.ingest("orders", orders(3_999, 4_001)).await["duplicates"], 1);
    let run = server.client.run("per_country").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&json!("exact"), &json!(4_001)), "{run}");
    assert_eq!(server.client.sql(TOTAL).await["rows"], total(4_001));
    let back = server.client.sql("ROLLBACK MATERIALIZED VIEW per_country TO RUN 1").await;
    assert_eq!(server.client.sql(TOTAL).await["rows"], total(4_001), "{back}");
    server.stop().await;
}

/// A process on another data folder would give out positions a second time.
pub(super) async fn second_owner_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start_with(on_s3(folder.path())).await;
    server.client.sql(SCRIPT).await;
    let refused = Platform::start(on_s3(other.path())).await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("belongs to") && refused.contains(folder.path().to_str().unwrap()), "{refused}");
    assert!(refused.contains("--role serving"), "{refused}");
    server.client.ingest("orders", orders(0, 10)).await;
    assert_eq!(server.client.sql(TOTAL).await["rows"], total(10), "the owner goes on");
    server.stop().await;
}

pub(super) async fn of_two_starts_at_once_one_owns() {
    let folders: Vec<_> = (0..6).map(|_| tempfile::tempdir().unwrap()).collect();
    let starts = folders.iter().map(|folder| Platform::start(on_s3(folder.path())));
    let mut owners = vec![];
    for started in futures_of(starts).await {
        match started {
            Ok(platform) => owners.push(platform),
            Err(error) => assert!(format!("{error:#}").contains("belongs to"), "{error:#}"),
        }
    }
    assert_eq!(owners.len(), 1);
    owners[0].stop().await.unwrap();
}

/// Futures that run at the same time.
async fn futures_of<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in running.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// The log is gone and the identity of the folder is not: the store has records that the log does not.
pub(super) async fn lost_data_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(on_s3(folder.path())).await;
    server.client.sql(SCRIPT).await;
    server.client.ingest("orders", orders(0, 100)).await;
    server.client.run("per_country").await;
    server.stop().await;
    std::fs::remove_dir_all(folder.path().join("log")).unwrap();
    let refused = format!("{:#}", Platform::start(on_s3(folder.path())).await.unwrap_err());
    assert!(refused.contains("opening stream orders"), "{refused}");
    assert!(refused.contains("not the log that the store was made from"), "{refused}");
}

/// Two processes on copies of one data folder: the newer one has the store, the older one stops and says why.
pub(super) async fn overtaken_owner_stops() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Server::start_with(on_s3(folder.path())).await;
    first.client.sql(SCRIPT).await;
    first.client.ingest("orders", orders(0, 10)).await;
    first.platform.checkpoint("orders").await.unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(folder.path().join(".")).arg(copy.path()).status();
    assert!(copied.unwrap().success());
    let second = Server::start_with(on_s3(copy.path())).await;
    let ended = tokio::time::timeout(PATIENCE, first.platform.wait()).await.expect("the older one stops");
    let why = format!("{:#}", ended.unwrap_err());
    assert!(why.contains("belongs to") || why.contains("another process writes its deltas"), "{why}");
    assert_eq!(second.client.sql(TOTAL).await["rows"], total(10));
    second.stop().await;
}

/// `kill -9` of the S3 server again and again under ingest, checkpoints, landings and runs: the platform is not
/// restarted, and every acknowledged event is counted once.
pub(super) async fn killed_server_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = on_s3(folder.path());
    settings.limits.checkpoint_interval_ms = 30;
    settings.limits.landing_interval_ms = 60;
    let server = Server::start_with(settings).await;
    server.client.sql(SCRIPT).await;
    let runs = tokio::spawn(run_again_and_again(server.client.clone()));
    let mut sent = 0;
    for kill in 0..8_u64 {
        let until = Instant::now() + Duration::from_millis(150 + 97 * kill);
        while Instant::now() < until {
            server.client.ingest("orders", orders(sent, sent + 50)).await;
            sent += 50;
        }
        server_in_background("kill").await;
        // the log is local: events are taken in and answered while the store is away
        server.client.ingest("orders", orders(sent, sent + 50)).await;
        sent += 50;
        server_in_background("start").await;
        assert_eq!(server.client.sql(TOTAL).await["rows"], total(sent), "after kill {kill}");
    }
    runs.abort();
    wait_until_runs_end(&server.client).await;
    let run = server.client.run("per_country").await;
    assert_eq!((&run["verdict"], &run["rows"]), (&json!("exact"), &json!(sent)), "{run}");
    assert_eq!(server.client.sql(TOTAL).await["rows"], total(sent));
    all_certificates_are_exact(&server.client).await;
    server.stop().await;
    let server = Server::start_with(on_s3(folder.path())).await;
    assert_eq!(server.client.sql(TOTAL).await["rows"], total(sent), "after a restart");
    assert_eq!(server.client.ingest("orders", orders(0, sent)).await["duplicates"], json!(sent));
    server.stop().await;
}

async fn run_again_and_again(client: Client) {
    while client.request("POST", "/v1/views/per_country/runs").send().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

async fn wait_until_runs_end(client: &Client) {
    let begun = Instant::now();
    loop {
        let answer = client.sql("SELECT count(*) FROM system.runs WHERE state IN ('queued', 'running')").await;
        if *one(&answer) == 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "runs do not end: {}", client.sql("SELECT * FROM system.runs").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn all_certificates_are_exact(client: &Client) {
    let answer = client.request("GET", "/v1/views/per_country/certificates").send().await.unwrap();
    let certificates: Value = answer.json().await.unwrap();
    let all = certificates.as_array().or_else(|| certificates["certificates"].as_array()).unwrap();
    assert!(!all.is_empty() && all.iter().all(|certificate| certificate["verdict"] == "exact"), "{certificates}");
}

/// A proxy before the server that answers 503, cuts connections before and after the server has done its work,
/// and lets the rest through.
pub(super) async fn failing_server_is_survived() {
    // the platform of this process finds its server by the environment: the proxy takes the server's place
    let port: u16 = std::env::var("S3_PORT").unwrap().parse().unwrap();
    let behind = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    server_in_background("stop").await;
    let moved = std::process::Command::new(super::script()).arg("start").env("S3_PORT", behind.to_string()).output();
    assert!(moved.unwrap().status.success());
    let proxy = crate::s3_proxy::Proxy::start(port, behind).await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = on_s3(folder.path());
    settings.limits.checkpoint_interval_ms = 20;
    settings.limits.landing_interval_ms = 40;
    let server = Server::start_with(settings).await;
    server.client.sql(SCRIPT).await;
    let mut sent = 0;
    for every in [3, 2, 4] {
        proxy.fail_every(every);
        for _ in 0..15 {
            server.client.ingest("orders", orders(sent, sent + 20)).await;
            sent += 20;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        let run = server.client.run("per_country").await;
        assert_ne!(run["state"], "blocked", "{run}");
        proxy.fail_every(0);
        let run = server.client.run("per_country").await;
        assert_eq!((&run["verdict"], &run["rows"]), (&json!("exact"), &json!(sent)), "{run}");
        assert_eq!(server.client.sql(TOTAL).await["rows"], total(sent));
    }
    assert!(proxy.failures() > 20, "{} failures", proxy.failures());
    all_certificates_are_exact(&server.client).await;
    server.stop().await;
    let server = Server::start_with(on_s3(folder.path())).await;
    assert_eq!(server.client.sql(TOTAL).await["rows"], total(sent), "after a restart");
    server.stop().await;
    let stopped = std::process::Command::new(super::script()).arg("stop").env("S3_PORT", behind.to_string()).status();
    assert!(stopped.unwrap().success());
}

pub(super) async fn missing_bucket_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let settings = bifold::config::Config { store_url: Some("s3://no-such-bucket/x".into()), ..config(folder.path()) };
    let refused = format!("{:#}", Platform::start(settings).await.unwrap_err());
    assert!(refused.contains("no-such-bucket"), "{refused}");
}
