//! The platform as its owner sees it: waiting, stopping, statements that take long.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::client::{Client, SqlRequest};

async fn start(folder: &std::path::Path, query_timeout_ms: u64) -> (Platform, Client) {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = Config { data_dir: folder.to_owned(), listen, ..Config::default() };
    config.limits.query_timeout_ms = query_timeout_ms;
    let platform = Platform::start(config).await.unwrap();
    let client = Client::new(platform.url(), Some(platform.token().to_owned())).unwrap();
    (platform, client)
}

const SCRIPT: &str = "CREATE STREAM s (id TEXT NOT NULL, k TEXT, PRIMARY KEY (id));
    CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM s GROUP BY k;";

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_waiting_does_not_lose_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (platform, _) = start(folder.path(), 60_000).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), platform.wait()).await.is_err());
    assert!(platform.work.lock().await.is_some());
    platform.stop().await.unwrap();
    assert!(platform.work.lock().await.is_none());
    assert!(tokio::net::TcpStream::connect(platform.address()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_answers_before_a_long_run_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (platform, client) = start(folder.path(), 1).await;
    client.query(SCRIPT).await.unwrap();
    client.ingest("s", "{\"id\":\"1\",\"k\":\"a\"}\n".into()).await.unwrap();
    let answer = client.query("REFRESH MATERIALIZED VIEW v").await.unwrap();
    assert!(answer.messages[0].ends_with("watch it with GET /v1/runs/1 or bifold run show 1"), "{:?}", answer.messages);
    let run = client.run(1, Duration::from_mins(1)).await.unwrap();
    assert_eq!(run.state, "succeeded");
    platform.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_takes_a_script_that_creates_its_own_stream() {
    let folder = tempfile::tempdir().unwrap();
    let (platform, client) = start(folder.path(), 60_000).await;
    let dry = |sql: &str| SqlRequest { dry_run: true, ..SqlRequest::new(sql) };
    let checked = client.sql(&dry(SCRIPT)).await.unwrap();
    assert_eq!(
        checked.messages,
        ["would create stream s", "would create view v (its stream is not there yet: not checked)"]
    );
    assert!(client.query("CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM s GROUP BY k").await.is_err());
    client.query(SCRIPT).await.unwrap();
    let wrong = client.sql(&dry("CREATE MATERIALIZED VIEW w AS SELECT nope, count(*) AS c FROM s GROUP BY nope")).await;
    assert!(wrong.unwrap_err().to_string().contains("nope"));
    platform.stop().await.unwrap();
}
