//! Tables that change, joined when a view is read: under load, over restarts, and what is refused.

mod as_of;
mod freeze;
mod sources;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bifold::config::{Config, Role};
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Client, PATIENCE, Server, config, one, rows};

const SALES: &str = include_str!("../../schemas/examples/dimension.sql");
const SKUS: u32 = 40;
const COLUMNS: &str = "(sku TEXT NOT NULL, category TEXT)";

/// The category of a product in a version of the table; some products are in none, one is in two.
fn category(sku: u32, version: u32) -> Option<String> {
    (sku % 9 != version % 9).then(|| format!("c{}", (sku + version) % 5))
}

fn csv(version: u32) -> String {
    let line = |sku| Some(format!("p{sku},{}\n", category(sku, version)?));
    std::iter::once("sku,category\n".to_owned()).chain((0..SKUS).filter_map(line)).collect::<String>()
        + &format!("p0,also v{version}\n")
}

async fn replace(client: &Client, version: u32) -> Value {
    let sql = format!("CREATE OR REPLACE TABLE products {COLUMNS} FROM FILE 'products.csv'");
    let body = json!({ "sql": sql, "files": { "products.csv": csv(version) } });
    client.try_sql(body).await.unwrap_or_else(|(status, problem)| panic!("{status}: {problem}"))
}

fn sale(number: u32) -> String {
    let (sku, minute) = (format!("p{}", number * 7 % SKUS), number % 60);
    let event_time = format!("2024-01-0{}T10:{minute:02}:00Z", 1 + number % 3);
    json!({ "id": format!("s{number}"), "sku": sku, "cents": number, "event_time": event_time }).to_string() + "\n"
}

/// Category and day → number of sales and their sum, of the first so many sales by a version of the table.
fn expected(sales: u32, version: u32) -> BTreeMap<(String, String), (i64, i64)> {
    let mut cells: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
    for number in 0..sales {
        let sku = number * 7 % SKUS;
        let also = (sku == 0).then(|| format!("also v{version}"));
        for category in category(sku, version).into_iter().chain(also) {
            let cell = cells.entry((category, format!("2024-01-0{}", 1 + number % 3))).or_default();
            *cell = (cell.0 + 1, cell.1 + i64::from(number));
        }
    }
    cells
}

async fn found(client: &Client, view: &str) -> BTreeMap<(String, String), (i64, i64)> {
    let answer = client.sql(&format!("SELECT category, window_start, sales, cents FROM {view}")).await;
    let cell = |row: &Value| {
        let day = row[1].as_str().unwrap()[..10].to_owned();
        ((row[0].as_str().unwrap().to_owned(), day), (row[2].as_i64().unwrap(), row[3].as_i64().unwrap()))
    };
    rows(&answer).iter().map(cell).collect()
}

/// Changing a dimension under load leaves every certificate exact: events, runs and new versions at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_under_load_leaves_every_certificate_exact() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = server.client.clone();
    client.try_sql(json!({ "sql": SALES, "files": { "products.csv": csv(1) } })).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (replacing, stop) = (client.clone(), Arc::clone(&done));
    let versions = tokio::spawn(async move {
        let mut version = 1;
        while !stop.load(Ordering::Relaxed) {
            version += 1;
            let answer = replace(&replacing, version).await;
            assert!(answer["message"].as_str().unwrap().contains(&format!("version {version}")), "{answer}");
        }
        version
    });
    let mut sent = 0;
    for round in 0..8 {
        let until = sent + 150;
        client.ingest("sales", (sent..until).map(sale).collect::<String>()).await;
        sent = until;
        if round % 2 == 1 {
            let run = client.run("sales_by_category").await;
            assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"exact".into()), "{run}");
            let certificate = client.certificate("sales_by_category", &run).await;
            assert!(certificate["oracle"]["sampled"].as_u64() > Some(0), "{certificate}");
            assert_eq!(certificate["cells"]["differing"], 0, "{certificate}");
        }
        // whatever version it was: some sale of each day is in some category
        assert!(found(&client, "sales_by_category").await.len() >= 3);
    }
    done.store(true, Ordering::Relaxed);
    let version = versions.await.unwrap();
    assert!(version > 3, "the table changed only {version} times");
    client.ingest("sales", (sent..sent + 10).map(sale).collect::<String>()).await;
    sent += 10;
    assert_eq!(found(&client, "sales_by_category").await, expected(sent, version));
    let total = client.sql("SELECT sum(sales) FROM batch.sales_by_category").await;
    let in_batch: i64 = expected(1_200, version).values().map(|cell| cell.0).sum();
    assert_eq!(one(&total).as_i64(), Some(in_batch), "the batch view alone has the newest categories too");
    server.stop().await;
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    assert_eq!(found(client, "sales_by_category").await, expected(sent, version), "after a restart");
    replace(client, version + 1).await;
    assert_eq!(found(client, "sales_by_category").await, expected(sent, version + 1));
    assert_eq!(client.run("sales_by_category").await["verdict"], "exact");
    let statistics = client.sql("SELECT category, mean, products FROM sales_by_category WHERE category = 'c1'").await;
    assert_eq!(rows(&statistics).len(), 3, "one for each day: {statistics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_table_is_not_replaced_under_a_view() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    let pinned =
        SALES.replace("FROM FILE 'products.csv';\n\n--", "FROM FILE 'products.csv' WITH (join = 'pinned');\n\n--");
    client.try_sql(json!({ "sql": pinned, "files": { "products.csv": csv(1) } })).await.unwrap();
    client.ingest("sales", (0..90).map(sale).collect::<String>()).await;
    assert_eq!(found(client, "sales_by_category").await, expected(90, 1));
    let sql = |options: &str| format!("CREATE OR REPLACE TABLE products {COLUMNS} FROM FILE 'products.csv' {options}");
    let files = json!({ "products.csv": csv(2) });
    for (options, words) in
        [("WITH (join = 'pinned')", "in the states of sales_by_category"), ("", "the columns and the options")]
    {
        let refused = client.try_sql(json!({ "sql": sql(options), "files": files })).await.unwrap_err().1;
        assert!(refused["detail"].as_str().unwrap().contains(words), "{refused}");
    }
    client.sql("DROP MATERIALIZED VIEW sales_by_category").await;
    client.try_sql(json!({ "sql": sql("WITH (join = 'pinned')"), "files": files })).await.unwrap();
    let created = client.sql("SHOW CREATE TABLE products").await;
    assert!(rows(&created)[0][1].as_str().unwrap().ends_with("WITH (join = 'pinned')"), "{created}");
    let moved = client.sql("SELECT category FROM products WHERE sku = 'p1'").await;
    assert_eq!(one(&moved).as_str().map(str::to_owned), category(1, 2));
    server.stop().await;
}

/// A new version changes rows without a record: only who is handed the whole view can be told, and is.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_of_the_whole_view_has_the_rows_of_a_new_version() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.try_sql(json!({ "sql": SALES, "files": { "products.csv": csv(1) } })).await.unwrap();
    client.ingest("sales", (0..90).map(sale).collect::<String>()).await;
    for mode in ["update", "append"] {
        let sql = format!("CREATE SINK told FROM sales_by_category WITH (type = 'file', mode = '{mode}')");
        let problem = client.refused(&sql).await;
        assert!(
            problem["detail"].as_str().unwrap().contains("table products is joined when the view is read"),
            "{problem}"
        );
    }
    let options = "type = 'file', mode = 'complete', every = '20 ms'";
    client.sql(&format!("CREATE SINK whole FROM sales_by_category WITH ({options})")).await;
    let file = folder.path().join("exports/whole/sales_by_category.ndjson");
    for version in 1..4 {
        if version > 1 {
            replace(client, version).await;
        }
        let begun = Instant::now();
        while delivered(&file) != expected(90, version) {
            assert!(begun.elapsed() < PATIENCE, "version {version}: {:?}", delivered(&file));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    server.stop().await;
}

/// A node that owns nothing joins the version that the owner joins, also of a view that it knows already, and in both
/// layers the same one.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_only_serves_joins_the_newest_version() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let on = |folder: &Path| Config {
        store_url: Some(format!("file://{}", folders[0].path().join("store").display())),
        ..config(folder)
    };
    let owner = Server::start_with(on(folders[1].path())).await;
    owner.client.try_sql(json!({ "sql": SALES, "files": { "products.csv": csv(1) } })).await.unwrap();
    owner.client.ingest("sales", (0..60).map(sale).collect::<String>()).await;
    assert_eq!(owner.client.run("sales_by_category").await["verdict"], "exact");
    owner.client.ingest("sales", (60..90).map(sale).collect::<String>()).await;
    let mut settings = Config { roles: vec![Role::Serving], ..on(folders[2].path()) };
    settings.owner_url = Some(owner.platform.url().to_owned());
    settings.auth.owner_token = Some(owner.platform.token().to_owned());
    let node = Server::start_with(settings).await;
    for version in 1..4 {
        if version > 1 {
            replace(&owner.client, version).await;
        }
        let begun = Instant::now();
        while found(&node.client, "sales_by_category").await != expected(90, version) {
            assert!(begun.elapsed() < PATIENCE, "the node has no version {version}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for client in [&owner.client, &node.client] {
            assert_eq!(found(client, "batch.sales_by_category").await, expected(60, version), "version {version}");
            assert_eq!(found(client, "sales_by_category").await, expected(90, version), "version {version}");
        }
    }
    node.stop().await;
    owner.stop().await;
}

/// The rows of a sink's file; none as long as there is no file.
fn delivered(file: &Path) -> BTreeMap<(String, String), (i64, i64)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cell = |line: Value| {
        let row = line.get("row")?;
        let day = row["window_start"].as_str().unwrap()[..10].to_owned();
        let key = (row["category"].as_str().unwrap().to_owned(), day);
        Some((key, (row["sales"].as_i64().unwrap(), row["cents"].as_i64().unwrap())))
    };
    lines.filter_map(cell).collect()
}

#[rstest]
#[case::argument(
    "SELECT category, max(products.sku) FROM sales JOIN products ON sales.sku = products.sku GROUP BY category",
    "an aggregate reads a column of table products"
)]
#[case::mixed(
    "SELECT category || sales.id, count(*) FROM sales JOIN products ON sales.sku = products.sku GROUP BY 1",
    "a key computes with columns of the stream and of table products"
)]
#[case::global("SELECT count(*) FROM sales JOIN products ON sales.sku = products.sku", "without GROUP BY")]
#[case::rows("SELECT sales.id, category FROM sales JOIN products ON sales.sku = products.sku", "without an aggregate")]
#[case::inside(
    "SELECT category, count(*) FROM (SELECT category FROM sales JOIN products ON sales.sku = products.sku) AS q GROUP BY category",
    "must stand in the FROM of the aggregate"
)]
#[case::twice(
    "SELECT a.category, count(*) FROM sales JOIN products AS a ON sales.sku = a.sku JOIN products AS b ON sales.id = b.sku GROUP BY a.category",
    "one such table"
)]
#[case::windows(
    "SELECT category, window_end, count(*) FROM HOP(sales, event_time, INTERVAL '1 minute', INTERVAL '1 hour') JOIN products ON sales.sku = products.sku GROUP BY category, window_end",
    "not supported together"
)]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_that_changes_cannot_do_is_refused(#[case] select: &str, #[case] words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.try_sql(json!({ "sql": SALES, "files": { "products.csv": csv(1) } })).await.unwrap();
    let problem = client.refused(&format!("CREATE MATERIALIZED VIEW refused AS {select}")).await;
    let text = format!("{} {}", problem["detail"].as_str().unwrap(), problem["hint"].as_str().unwrap_or_default());
    assert!(text.contains(words) && text.contains("pinned"), "{text}");
    assert_ne!(problem["code"], "internal", "{text}");
    server.stop().await;
}
