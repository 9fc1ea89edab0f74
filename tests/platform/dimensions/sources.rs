//! Tables that the server loads by itself: from a real PostgreSQL, from an address; again when it is said, or at intervals.
//! (R-062, R-063: refresh without restart)

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use parking_lot::Mutex;
use rstest::rstest;
use serde_json::{Value, json};

use super::{COLUMNS, SALES, SKUS, category, csv, expected, found, sale};
use crate::harness::{Client, PATIENCE, Server, config, one, rows};
use crate::sinks::postgres::Database;

const FILE: &str = "FROM FILE 'products.csv';";

/// The table of a version, as its owner writes it.
fn fill(database: &Database, version: u32) {
    let rows = (0..SKUS).filter_map(|sku| Some(format!("('p{sku}', '{}')", category(sku, version)?)));
    let rows: Vec<String> = rows.chain([format!("('p0', 'also v{version}')")]).collect();
    database.sql(&format!(
        "BEGIN; CREATE TABLE IF NOT EXISTS products (sku TEXT, category TEXT, secret INT); TRUNCATE products; \
         INSERT INTO products VALUES {}; COMMIT",
        rows.join(", ")
    ));
}

async fn refresh(client: &Client) -> String {
    client.sql("REFRESH TABLE products").await["message"].as_str().unwrap().to_owned()
}

/// R-062, R-063: a table of a database that changes under load leaves every certificate exact.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_postgres_that_changes_under_load_leaves_every_certificate_exact() {
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let server = Server::start(folder.path()).await;
    let client = server.client.clone();
    fill(&database, 1);
    client.sql(&SALES.replace(FILE, &format!("FROM POSTGRES '{}' TABLE 'public.products';", database.url))).await;
    let (refreshing, changed) = (client.clone(), database.clone());
    let versions = tokio::spawn(async move {
        for version in 2..=12 {
            let database = changed.clone();
            tokio::task::spawn_blocking(move || fill(&database, version)).await.unwrap();
            let said = refresh(&refreshing).await;
            assert!(said.contains(&format!("version {version} ")), "{said}");
        }
        12
    });
    let mut sent = 0;
    while !versions.is_finished() || sent < 600 {
        client.ingest("sales", (sent..sent + 100).map(sale).collect::<String>()).await;
        sent += 100;
        let run = client.run("sales_by_category").await;
        assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"exact".into()), "{run}");
        assert!(found(&client, "sales_by_category").await.len() >= 3);
    }
    let version = versions.await.unwrap();
    assert_eq!(found(&client, "sales_by_category").await, expected(sent, version));
    assert!(refresh(&client).await.contains("is unchanged: version 12"), "the same rows are no new version");
    let created = client.sql("SHOW CREATE TABLE products").await;
    let created = rows(&created)[0][1].as_str().unwrap();
    assert!(created.contains(":***@") && created.contains("TABLE 'public.products'"), "{created}");
    for sql in ["SHOW TABLES", "SHOW CREATE TABLE products"] {
        assert!(!client.sql(sql).await.to_string().contains("bifoldtest"), "{sql} shows the password");
    }
    server.stop().await;
    let server = Server::start(folder.path()).await;
    assert_eq!(found(&server.client, "sales_by_category").await, expected(sent, version), "after a restart");
    fill(&database, 20);
    assert!(refresh(&server.client).await.contains("version 13"));
    assert_eq!(found(&server.client, "sales_by_category").await, expected(sent, 20));
    assert_eq!(server.client.run("sales_by_category").await["verdict"], "exact");
    server.stop().await;
}

/// Each type as `psql` says it; nothing and an empty text are told apart.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_postgres_are_what_psql_says() {
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    let columns = [
        ("b", "BOOLEAN", "true"),
        ("s", "SMALLINT", "-32768"),
        ("i", "INT", "2147483647"),
        ("l", "BIGINT", "-9223372036854775808"),
        ("r", "REAL", "1.5"),
        ("d", "DOUBLE PRECISION", "0.1"),
        ("n", "NUMERIC(38, 3)", "'12345678901234567890.125'"),
        ("t", "TEXT", "''"),
        ("a", "DATE", "'2024-02-29'"),
        ("z", "TIMESTAMPTZ", "'2024-02-29 23:59:59.123456+02'"),
        ("j", "JSONB", "'{\"k\": [1, null]}'"),
    ];
    let declared: Vec<String> = columns.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    let values: Vec<&str> = columns.iter().map(|(_, _, value)| *value).collect();
    database.sql(&format!("CREATE TABLE \"every Type\" ({}, \"New\nline\" INT)", declared.join(", ")));
    database.sql(&format!(
        "INSERT INTO \"every Type\" VALUES ({}, 1), ({})",
        values.join(", "),
        ["NULL"; 12].join(", ")
    ));
    // the last line of the query is a comment
    let query = "SELECT * FROM \"every Type\" -- all";
    client
        .sql(&format!(
            "CREATE TABLE kinds ({}) FROM POSTGRES '{}' QUERY $${query}$$",
            declared.join(", "),
            database.url
        ))
        .await;
    let answer = client.sql("SELECT * FROM kinds ORDER BY b NULLS LAST").await;
    let exact = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let found: Vec<String> = rows(&answer)[0].as_array().unwrap().iter().map(exact).collect();
    let expected = [
        "true",
        "-32768",
        "2147483647",
        "-9223372036854775808",
        "1.5",
        "0.1",
        "12345678901234567890.125",
        "",
        "2024-02-29",
        "2024-02-29T21:59:59.123456Z",
    ];
    assert_eq!(found[..expected.len()], expected, "{answer}");
    assert!(found[expected.len()].contains("\"k\""), "{answer}");
    assert!(rows(&answer)[1].as_array().unwrap().iter().all(Value::is_null), "{answer}");
    server.stop().await;
}

/// What cannot be loaded leaves everything as it was, and says why.
#[rstest]
#[case::no_table("TABLE 'nowhere'", "42P01")]
#[case::no_column("QUERY 'SELECT sku FROM products'", "category")]
#[case::writes("QUERY 'SELECT sku, category FROM products FOR UPDATE'", "read-only")]
#[case::two(
    "QUERY 'SELECT sku, category FROM products) AS x; DROP TABLE products; SELECT * FROM (SELECT 1 AS sku'",
    "multiple commands"
)]
#[case::kind("QUERY 'SELECT NULL AS sku, category FROM products'", "null")]
#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_does_not_have_is_refused(#[case] read: &str, #[case] words: &str) {
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    fill(&database, 1);
    client.sql(&format!("CREATE TABLE products {COLUMNS} FROM POSTGRES '{}' TABLE 'products'", database.url)).await;
    let sql = format!("CREATE OR REPLACE TABLE products {COLUMNS} FROM POSTGRES '{}' {read}", database.url);
    let problem = client.refused(&sql).await;
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    assert!(!problem.to_string().contains("bifoldtest"), "{problem}");
    let count = client.sql("SELECT count(*) FROM products").await;
    assert_eq!(one(&count).as_u64(), database.sql("SELECT count(*) FROM products").parse().ok());
    server.stop().await;
}

/// What a server at an address says, and how.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<(String, u16)>>);

impl Place {
    fn says(&self, text: &str) {
        *self.0.lock() = (text.to_owned(), 200);
    }

    fn fails(&self) {
        self.0.lock().1 = 500;
    }

    /// Its address; the places below it: `/products.csv`, `/elsewhere`, `/never`.
    async fn open(&self) -> String {
        let answer = |State(place): State<Self>| async move {
            let (text, status) = place.0.lock().clone();
            (StatusCode::from_u16(status).unwrap(), text).into_response()
        };
        let never = || async {
            tokio::time::sleep(PATIENCE).await;
            StatusCode::OK
        };
        let elsewhere = || async { Redirect::temporary("/products.csv").into_response() };
        let router = Router::new()
            .route("/products.csv", get(answer))
            .route("/elsewhere", get(elsewhere))
            .route("/never", get(never))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

/// R-062: a file behind an address is loaded, loaded again at its interval, and kept while it cannot be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_an_address_is_loaded_again_at_its_interval() {
    let (place, folder) = (Place::default(), tempfile::tempdir().unwrap());
    let url = place.open().await;
    let mut settings = config(folder.path());
    settings.private_urls = true;
    let server = Server::start_with(settings.clone()).await;
    let client = server.client.clone();
    place.says(&csv(1));
    let source = format!("FROM URL '{url}/products.csv?key=secret' REFRESH EVERY INTERVAL '1 second';");
    client.sql(&SALES.replace(FILE, &source)).await;
    client.ingest("sales", (0..90).map(sale).collect::<String>()).await;
    assert_eq!(found(&client, "sales_by_category").await, expected(90, 1));
    place.says(&csv(2));
    until(&client, 2).await;
    assert_eq!(client.run("sales_by_category").await["verdict"], "exact");
    place.fails();
    let problem = client.refused("REFRESH TABLE products").await;
    assert!(problem["detail"].as_str().unwrap().contains("answered 500"), "{problem}");
    assert_eq!(problem["retryable"], true, "{problem}");
    assert_eq!(found(&client, "sales_by_category").await, expected(90, 2), "what was there is there");
    place.says("sku\np1\n");
    let problem = client.refused("REFRESH TABLE products").await;
    assert!(problem["detail"].as_str().unwrap().contains("no column category"), "{problem}");
    let created = client.sql("SHOW CREATE TABLE products").await;
    let created = rows(&created)[0][1].as_str().unwrap().to_owned();
    assert!(created.contains("REFRESH EVERY INTERVAL '1 second'") && !created.contains("secret"), "{created}");
    let problem = client.refused(&created.replace("CREATE", "CREATE OR REPLACE")).await;
    assert!(problem["detail"].as_str().unwrap().contains("stars"), "{problem}");
    server.stop().await;
    place.says(&csv(3));
    let server = Server::start_with(settings).await;
    until(&server.client, 3).await;
    server.stop().await;
}

async fn until(client: &Client, version: u32) {
    let begun = Instant::now();
    while found(client, "sales_by_category").await != expected(90, version) {
        assert!(begun.elapsed() < PATIENCE, "version {version} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Safe by default: no address of this machine, nowhere else than where it was said, not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_asked_within_bounds() {
    let (place, folder) = (Place::default(), tempfile::tempdir().unwrap());
    let url = place.open().await;
    place.says(&csv(1));
    let create = |path: &str| format!("CREATE TABLE products {COLUMNS} FROM URL '{url}{path}'");
    let server = Server::start(folder.path()).await;
    let problem = server.client.refused(&create("/products.csv")).await;
    assert_eq!(problem["code"], "forbidden", "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("private_urls"), "{problem}");
    server.stop().await;
    let mut settings = config(folder.path());
    settings.private_urls = true;
    settings.limits.query_timeout_ms = 2_000;
    let server = Server::start_with(settings).await;
    let client = &server.client;
    let dry = json!({ "sql": create("/never"), "dry_run": true });
    let said = client.try_sql(dry).await.unwrap();
    assert!(said["message"].as_str().unwrap().contains("nothing is read"), "{said}");
    for (path, words) in [("/elsewhere", "another address"), ("/never", "within 2000 ms"), ("/gone", "404")] {
        let problem = client.refused(&create(path)).await;
        assert!(problem["detail"].as_str().unwrap().contains(words), "{path}: {problem}");
    }
    // a load that takes its time holds nobody up
    let (slow, sql) = (client.clone(), create("/never"));
    let loading = tokio::spawn(async move { slow.refused(&sql).await });
    client.sql("CREATE STREAM meanwhile (id TEXT)").await;
    assert!(!loading.is_finished(), "the load was over before anything else was done");
    loading.await.unwrap();
    client.sql(&create("/products.csv")).await;
    assert!(refresh(client).await.contains("unchanged"));
    server.stop().await;
}

/// A table that was sent, a table that is not there, a table that is pinned.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_refreshed_is_refused() {
    let (place, folder) = (Place::default(), tempfile::tempdir().unwrap());
    let url = place.open().await;
    place.says(&csv(1));
    let mut settings = config(folder.path());
    settings.private_urls = true;
    let server = Server::start_with(settings).await;
    let client = &server.client;
    let sent = format!("CREATE TABLE sent {COLUMNS} FROM FILE 'products.csv'");
    client.try_sql(json!({ "sql": sent, "files": { "products.csv": csv(1) } })).await.unwrap();
    let pinned = format!("FROM URL '{url}/products.csv' WITH (join = 'pinned');");
    client.sql(&SALES.replace(FILE, &pinned)).await;
    place.says(&csv(2));
    for (sql, code, words) in [
        ("REFRESH TABLE sent", "unsupported", "CREATE OR REPLACE TABLE sent"),
        ("REFRESH TABLE product", "not_found", "did you mean products?"),
        ("REFRESH TABLE products", "in_use", "the states of sales_by_category"),
    ] {
        let problem = client.refused(sql).await;
        assert_eq!(problem["code"], code, "{problem}");
        let text = format!("{} {}", problem["detail"].as_str().unwrap(), problem["hint"].as_str().unwrap());
        assert!(text.contains(words), "{text}");
    }
    client.sql("DROP MATERIALIZED VIEW sales_by_category").await;
    assert!(refresh(client).await.contains("version 2"));
    server.stop().await;
}
