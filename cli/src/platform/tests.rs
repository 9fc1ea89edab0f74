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
    client.ingest("s", "{\"id\":\"1\",\"k\":\"a\"}\n".into(), crate::commands::ingest::Mode::Quarantine).await.unwrap();
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
    assert_eq!(checked.messages, ["would create stream s", "would create view v"]);
    assert!(client.query("CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM s GROUP BY k").await.is_err());
    // what the script makes is what its later statements are held against
    for (later, words) in [
        ("CREATE MATERIALIZED VIEW w AS SELECT nope, count(*) AS c FROM s GROUP BY nope", "nope"),
        ("CREATE MATERIALIZED VIEW w AS SELECT id, median(k) FROM s GROUP BY id", "median"),
        ("CREATE MATERIALIZED VIEW v AS SELECT id, count(*) AS c FROM s GROUP BY id", "v exists already"),
        ("CREATE STREAM s (id TEXT)", "s exists already"),
        ("DROP STREAM s", "stream s is used by: v"),
        ("DROP MATERIALIZED VIEW v; DROP STREAM s; SHOW CREATE STREAM s", "there is no stream s"),
        (
            "CREATE TABLE names (k TEXT, name TEXT) FROM FILE 'names.csv'; CREATE MATERIALIZED VIEW w AS \
          SELECT nam, count(*) AS c FROM s JOIN names ON s.k = names.k GROUP BY nam",
            "did you mean name",
        ),
        ("REFRESH MATERIALIZED VIEW vv", "did you mean v"),
    ] {
        let files = [("names.csv".to_owned(), "k,name\na,A\n".to_owned())].into();
        let refused = client.sql(&SqlRequest { files, ..dry(&format!("{SCRIPT}\n{later}")) }).await.unwrap_err();
        assert!(format!("{refused:#}").contains(words), "{later}: {refused:#}");
    }
    let elsewhere =
        client.sql(&dry("CREATE MATERIALIZED VIEW w AS SELECT k, count(*) AS c FROM other GROUP BY k")).await;
    assert!(elsewhere.unwrap().messages[0].contains("not there yet"), "another script may create it");
    assert_eq!(client.query("SHOW STREAMS").await.unwrap().table.rows.len(), 0, "nothing was created");
    client.query(SCRIPT).await.unwrap();
    let wrong = client.sql(&dry("CREATE MATERIALIZED VIEW w AS SELECT nope, count(*) AS c FROM s GROUP BY nope")).await;
    assert!(wrong.unwrap_err().to_string().contains("nope"));
    platform.stop().await.unwrap();
}
