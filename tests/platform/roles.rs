//! Which roles a process may have, and a store that is another folder.

use bifold::config::{Config, Role};
use bifold::platform::Platform;
use rstest::rstest;
use serde_json::json;

use crate::harness::{Server, config, one};

const SCRIPT: &str = "CREATE STREAM s (id TEXT NOT NULL, n BIGINT, PRIMARY KEY (id));
    CREATE MATERIALIZED VIEW v AS SELECT sum(n) AS total FROM s;";

#[rstest]
#[case::no_speed(&[Role::Ingest, Role::Batch, Role::Serving], "work on one log in one data folder")]
#[case::only_ingest(&[Role::Ingest], "work on one log in one data folder")]
#[case::speed_and_serving(&[Role::Speed, Role::Serving], "work on one log in one data folder")]
#[case::serving_of_nothing(&[Role::Serving], "set store_url")]
#[tokio::test]
async fn roles_that_cannot_work_are_refused(#[case] roles: &[Role], #[case] why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let refused = Platform::start(Config { roles: roles.to_vec(), ..config(folder.path()) }).await.unwrap_err();
    assert!(refused.to_string().contains(why), "{refused}");
}

#[tokio::test]
async fn an_owner_asks_no_owner() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Config { owner_url: Some("http://127.0.0.1:1".into()), ..config(folder.path()) };
    let refused = Platform::start(settings).await.unwrap_err().to_string();
    assert!(refused.contains("serving alone"), "{refused}");
}

/// A folder that several machines mount is a store, too.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_a_folder() {
    let (shared, first, second) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let on = |folder: &std::path::Path| Config {
        store_url: Some(format!("file://{}", shared.path().join("store").display())),
        ..config(folder)
    };
    let owner = Server::start_with(on(first.path())).await;
    owner.client.sql(SCRIPT).await;
    owner.client.ingest("s", "{\"id\":\"1\",\"n\":40}\n").await;
    assert_eq!(owner.client.run("v").await["verdict"], "exact");
    owner.client.ingest("s", "{\"id\":\"2\",\"n\":2}\n").await;
    let refused = Platform::start(on(second.path())).await.unwrap_err().to_string();
    assert!(refused.contains("belongs to"), "{refused}");
    let mut settings = Config { roles: vec![Role::Serving], ..on(second.path()) };
    settings.owner_url = Some(owner.platform.url().to_owned());
    let wrong_token = Server::start_with(settings.clone()).await;
    let refused = wrong_token.client.refused("SELECT total FROM v").await;
    assert!(refused["hint"].as_str().unwrap().contains("auth.owner_token"), "{refused}");
    wrong_token.stop().await;
    settings.auth.owner_token = Some(owner.platform.token().to_owned());
    let node = Server::start_with(settings).await;
    let answer = node.client.sql("SELECT total FROM v").await;
    assert_eq!((one(&answer), &answer["freshness"]["complete"]), (&json!(42), &json!(true)), "{answer}");
    node.stop().await;
    owner.stop().await;
}
