//! Several nodes on one store, and what they keep of it.

use std::path::Path;
use std::time::{Duration, Instant};

use bifold::config::{Config, Role};
use serde_json::{Value, json};

use super::cases::{SCRIPT, TOTAL, orders, total};
use super::{on_s3, server_in_background};
use crate::harness::{Client, PATIENCE, Server, one};

/// A node that only answers queries, beside an owner or alone.
async fn reader(folder: &Path, owner: Option<&Server>) -> Server {
    let mut settings = Config { roles: vec![Role::Serving], ..on_s3(folder) };
    settings.owner_url = owner.map(|owner| owner.platform.url().to_owned());
    settings.auth.owner_token = owner.map(|owner| owner.platform.token().to_owned());
    settings.limits.store_refresh_ms = 50;
    Server::start_with(settings).await
}

async fn metric(client: &Client, name: &str) -> f64 {
    let text = client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Asks until the answer is there: a new view reaches the other nodes within their refresh interval.
async fn wait_for(client: &Client, sql: &str, rows: &Value) -> Value {
    let begun = Instant::now();
    loop {
        let told = client.try_sql(json!({ "sql": sql })).await;
        match told {
            Ok(answer) if answer["rows"] == *rows => return answer,
            told => assert!(begun.elapsed() < PATIENCE, "{sql}: {told:?}, not {rows}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn every_node_answers_the_same() {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut settings = on_s3(folders[0].path());
    settings.roles = vec![Role::Ingest, Role::Speed, Role::Batch];
    settings.limits.checkpoint_interval_ms = 60;
    let owner = Server::start_with(settings).await;
    owner.client.sql(SCRIPT).await;
    let nodes = [reader(folders[1].path(), Some(&owner)).await, reader(folders[2].path(), Some(&owner)).await];
    let refused = owner.client.refused(TOTAL).await;
    assert_eq!(refused["code"], "unsupported", "{refused}");
    let mut sent = 0;
    for round in 0..12_u64 {
        let told = owner.client.ingest("orders", orders(sent, sent + 200)).await;
        sent += 200;
        if round % 3 == 2 {
            assert_eq!(owner.client.run("per_country").await["verdict"], "exact");
        }
        for node in &nodes {
            let asked = json!({ "sql": TOTAL, "at_least": told["position"] });
            let answer = node.client.try_sql(asked).await.unwrap();
            assert_eq!(answer["rows"], total(sent), "round {round}: {}", answer["freshness"]);
            assert_eq!(answer["freshness"]["complete"], true, "{answer}");
        }
    }
    let all = "SELECT * FROM per_country ORDER BY country";
    let answers = [nodes[0].client.sql(all).await, nodes[1].client.sql(all).await];
    assert_eq!(answers[0]["rows"], answers[1]["rows"]);
    assert_eq!(answers[0]["freshness"]["views"][0]["speed"]["to"], answers[1]["freshness"]["views"][0]["speed"]["to"]);
    looks_like_the_owner(&owner, &nodes[0]).await;
    changes_nothing(&nodes[0].client).await;
    follows_the_catalogue(&owner, &nodes[1], sent).await;
    for node in nodes {
        node.stop().await;
    }
    owner.stop().await;
}

async fn looks_like_the_owner(owner: &Server, node: &Server) {
    for sql in ["SHOW MATERIALIZED VIEWS", "SHOW CREATE STREAM orders"] {
        assert_eq!(node.client.sql(sql).await["rows"], owner.client.sql(sql).await["rows"], "{sql}");
    }
    let runs = "SELECT id, state, verdict, rows FROM system.runs ORDER BY id";
    assert_eq!(node.client.sql(runs).await["rows"], owner.client.sql(runs).await["rows"]);
    let path = "/v1/views/per_country/certificates/1";
    let certificate = |client: Client| async move {
        client.request("GET", path).send().await.unwrap().json::<Value>().await.unwrap()
    };
    assert_eq!(certificate(node.client.clone()).await, certificate(owner.client.clone()).await);
    let looked_up: Value =
        node.client.request("GET", "/v1/views/per_country?country=eq.KR").send().await.unwrap().json().await.unwrap();
    assert_eq!(looked_up["rows"].as_array().unwrap().len(), 1, "{looked_up}");
}

async fn changes_nothing(client: &Client) {
    for sql in ["DROP STREAM orders", "CREATE STREAM x (id TEXT)", "REFRESH MATERIALIZED VIEW per_country"] {
        let refused = client.refused(sql).await;
        assert_eq!(refused["code"], "unsupported", "{sql}: {refused}");
        assert!(refused["hint"].as_str().unwrap().contains("http://"), "{refused}");
    }
    let (status, problem) = client.try_ingest("orders", orders(0, 1)).await.unwrap_err();
    assert_eq!((status, &problem["code"]), (501, &json!("unsupported")), "{problem}");
    assert_eq!(client.refused("SELECT * FROM dlq.orders").await["code"], "unsupported");
    let answer = client.request("POST", "/v1/views/per_country/runs").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 501);
}

async fn follows_the_catalogue(owner: &Server, node: &Server, sent: u64) {
    owner.client.sql("CREATE MATERIALIZED VIEW everything AS SELECT count(*) AS n FROM orders").await;
    wait_for(&node.client, "SELECT n FROM everything", &json!([[sent]])).await;
    owner.client.sql("DROP MATERIALIZED VIEW everything").await;
    let begun = Instant::now();
    while node.client.try_sql(json!({ "sql": "SELECT n FROM everything" })).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "a dropped view is still answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Never a silent under-count: what is not in the store is missing, and the answer says so.
pub(super) async fn node_without_its_owner_says_so() {
    let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut settings = on_s3(folders[0].path());
    settings.limits.checkpoint_interval_ms = 3_600_000;
    let owner = Server::start_with(settings).await;
    owner.client.sql(SCRIPT).await;
    owner.client.ingest("orders", orders(0, 300)).await;
    owner.client.run("per_country").await;
    let node = reader(folders[1].path(), Some(&owner)).await;
    let told = owner.client.ingest("orders", orders(300, 400)).await;
    let whole = node.client.sql(TOTAL).await;
    assert_eq!((&whole["rows"], &whole["freshness"]["complete"]), (&total(400), &json!(true)), "{whole}");
    let lonely_folder = tempfile::tempdir().unwrap();
    let lonely = reader(lonely_folder.path(), None).await;
    let part = lonely.client.sql(TOTAL).await;
    assert_eq!((&part["rows"], &part["freshness"]["complete"]), (&total(300), &json!(false)), "{part}");
    assert!(part["freshness"]["as_of"].as_str() < whole["freshness"]["as_of"].as_str(), "{part}");
    let batch = lonely.client.sql("SELECT sum(orders) FROM batch.per_country").await;
    assert_eq!((one(&batch), &batch["freshness"]["complete"]), (&json!(300), &json!(true)), "{batch}");
    let unmet = json!({ "sql": TOTAL, "at_least": told["position"], "timeout": "400ms" });
    let (status, problem) = lonely.client.try_sql(unmet.clone()).await.unwrap_err();
    assert_eq!((status, &problem["code"]), (503, &json!("stale")), "{problem}");
    let unmet_age = json!({ "sql": TOTAL, "max_staleness": "0s" });
    assert_eq!(lonely.client.try_sql(unmet_age).await.unwrap_err().1["code"], "stale");
    // an orderly stop writes a last checkpoint: then the store has everything, and still nobody can know that
    owner.stop().await;
    let alone = wait_for(&node.client, TOTAL, &total(400)).await;
    assert_eq!(alone["freshness"]["complete"], false, "{alone}");
    let reached = lonely.client.try_sql(json!({ "sql": TOTAL, "at_least": told["position"] })).await.unwrap();
    assert_eq!(reached["rows"], total(400), "{reached}");
    node.stop().await;
    lonely.stop().await;
}

pub(super) async fn cache_spares_reads() {
    let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let owner = Server::start_with(on_s3(folders[0].path())).await;
    owner.client.sql(SCRIPT).await;
    owner.client.ingest("orders", orders(0, 3_000)).await;
    owner.client.run("per_country").await;
    let node = reader(folders[1].path(), Some(&owner)).await;
    assert_eq!(node.client.sql(TOTAL).await["rows"], total(3_000));
    let misses = metric(&node.client, "bifold_store_cache_misses_total").await;
    assert!(misses > 0.0);
    for _ in 0..5 {
        assert_eq!(node.client.sql(TOTAL).await["rows"], total(3_000));
    }
    assert!((metric(&node.client, "bifold_store_cache_misses_total").await - misses).abs() < 0.5, "all were hits");
    assert!(metric(&node.client, "bifold_store_cache_hits_total").await > 0.0);
    node.stop().await;
    let cache = folders[1].path().join("cache");
    for file in std::fs::read_dir(&cache).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let node = reader(folders[1].path(), Some(&owner)).await;
    assert_eq!(node.client.sql(TOTAL).await["rows"], total(3_000), "torn files are read again");
    assert!(metric(&node.client, "bifold_store_cache_damaged_total").await > 0.0);
    // what is here is answered without the store
    server_in_background("kill").await;
    assert_eq!(node.client.sql(TOTAL).await["rows"], total(3_000));
    server_in_background("start").await;
    node.stop().await;
    owner.stop().await;
}
