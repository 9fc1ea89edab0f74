//! `FREEZE`: values are looked up when a record comes in and stored with it. Whatever becomes of the table, both layers and
//! every recomputation read what was stored; the oracle asks the version that is stored beside it. (DESIGN §14, R-062, R-063)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rstest::rstest;
use serde_json::{Value, json};

use super::{SKUS, category};
use crate::harness::{Client, Server, config, one, rows};

const TABLE: &str = "CREATE TABLE products (sku TEXT NOT NULL, category TEXT) FROM FILE 'products.csv'";
const REST: &str = "CREATE STREAM sales (id TEXT NOT NULL, sku TEXT, cents BIGINT NOT NULL, \
                    category TEXT FREEZE FROM products (category) ON sku, event_time TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
                    WATERMARK FOR event_time AS event_time - INTERVAL '1 minute');
                    CREATE MATERIALIZED VIEW by_category AS SELECT category, count(*) AS sales, sum(cents) AS cents \
                    FROM sales GROUP BY category;
                    CREATE MATERIALIZED VIEW each_sale AS SELECT id, sku, category, _frozen_version AS version FROM sales;";

fn csv(version: u32) -> String {
    let line = |sku| Some(format!("p{sku},{}\n", category(sku, version)?));
    std::iter::once("sku,category\n".to_owned()).chain((0..SKUS).filter_map(line)).collect()
}

fn sale(number: u32) -> Value {
    let (sku, event_time) = (format!("p{}", number * 7 % (SKUS + 3)), format!("2024-01-01T10:{:02}:00Z", number % 60));
    // what a client says of a column that is looked up means nothing
    json!({ "id": format!("s{number}"), "sku": sku, "cents": number, "category": "mine", "event_time": event_time })
}

fn sales(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| sale(number).to_string() + "\n").collect()
}

async fn load(client: &Client, sql: &str, version: u32) -> Result<Value, (u16, Value)> {
    client.try_sql(json!({ "sql": sql, "files": { "products.csv": csv(version) } })).await
}

async fn replace(client: &Client, version: u32) {
    load(client, &TABLE.replace("CREATE", "CREATE OR REPLACE"), version).await.unwrap();
}

/// What each sale should have in its category, by the version that is stored with it; how often each version is.
async fn checked(client: &Client, sent: u32) -> (BTreeMap<Option<String>, (i64, i64)>, BTreeMap<u32, u32>) {
    let answer = client.sql("SELECT id, sku, category, version FROM each_sale").await;
    assert_eq!(rows(&answer).len(), sent as usize);
    let (mut cells, mut versions) = (BTreeMap::<_, (i64, i64)>::new(), BTreeMap::<u32, u32>::new());
    for row in rows(&answer) {
        let number: u32 = row[0].as_str().unwrap()[1..].parse().unwrap();
        let sku: u32 = row[1].as_str().unwrap()[1..].parse().unwrap();
        let version = row[3].as_u64().unwrap() as u32;
        let expected = if sku < SKUS { category(sku, version) } else { None };
        assert_eq!(row[2].as_str().map(str::to_owned), expected, "{row}");
        let cell = cells.entry(expected).or_default();
        *cell = (cell.0 + 1, cell.1 + i64::from(number));
        *versions.entry(version).or_default() += 1;
    }
    (cells, versions)
}

async fn by_category(client: &Client, view: &str) -> BTreeMap<Option<String>, (i64, i64)> {
    let answer = client.sql(&format!("SELECT category, sales, cents FROM {view}")).await;
    let cell = |row: &Value| (row[0].as_str().map(str::to_owned), (row[1].as_i64().unwrap(), row[2].as_i64().unwrap()));
    rows(&answer).iter().map(cell).collect()
}

/// Changing the table under load leaves every certificate exact, and what was stored as it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_looked_up_stays_whatever_becomes_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = server.client.clone();
    load(&client, &format!("{TABLE};{REST}"), 1).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (replacing, stop) = (client.clone(), Arc::clone(&done));
    let newest = tokio::spawn(async move {
        let mut version = 1;
        while !stop.load(Ordering::Relaxed) {
            version += 1;
            replace(&replacing, version).await;
        }
        version
    });
    let mut sent = 0;
    for round in 0..8 {
        client.ingest("sales", sales(sent..sent + 100)).await;
        sent += 100;
        if round % 2 == 1 {
            for view in ["by_category", "each_sale"] {
                let run = client.run(view).await;
                assert_eq!((&run["state"], &run["verdict"]), (&"succeeded".into(), &"exact".into()), "{run}");
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    let newest = newest.await.unwrap();
    client.ingest("sales", sales(sent..sent + 50)).await;
    sent += 50;
    let (expected, versions) = checked(&client, sent).await;
    assert!(versions.len() > 2, "{versions:?}");
    assert_eq!(versions.get(&newest), Some(&50), "the newest version is the one that is looked up: {versions:?}");
    assert_eq!(by_category(&client, "by_category").await, expected);
    replace(&client, newest + 1).await;
    assert_eq!(by_category(&client, "by_category").await, expected, "a new version changes nothing of the past");
    server.stop().await;
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    assert_eq!(checked(client, sent).await, (expected.clone(), versions), "after a restart");
    // recomputed from what was stored, as a whole
    for view in ["by_category", "each_sale"] {
        assert_eq!(client.run(view).await["verdict"], "exact", "{view}");
    }
    assert_eq!(by_category(client, "batch.by_category").await, expected);
    client.sql("CREATE MATERIALIZED VIEW later AS SELECT category, count(*) AS sales, sum(cents) AS cents FROM sales GROUP BY category").await;
    client.wait_ready("later").await;
    assert_eq!(by_category(client, "later").await, expected, "a view of the history reads the same");
    client.ingest("sales", sales(sent..sent + 10)).await;
    let (_, versions) = checked(client, sent + 10).await;
    assert_eq!(versions.get(&(newest + 1)), Some(&10), "{versions:?}");
    server.stop().await;
}

/// A copy of an event is no conflict because the table has changed; one with other values is.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_compared_by_what_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    load(client, &format!("{TABLE};{REST}"), 1).await.unwrap();
    client.ingest("sales", sales(0..30)).await;
    replace(client, 2).await;
    let again = client.ingest("sales", sales(0..30)).await;
    assert_eq!((&again["duplicates"], &again["conflicts"]), (&json!(30), &json!(0)), "{again}");
    let mut other = sale(3);
    other["cents"] = json!(-1);
    let again = client.ingest("sales", other.to_string()).await;
    assert_eq!((&again["duplicates"], &again["conflicts"]), (&json!(1), &json!(1)), "{again}");
    let (_, versions) = checked(client, 30).await;
    assert_eq!(versions, BTreeMap::from([(1, 30)]), "the first one stands");
    server.stop().await;
}

/// Imports go the same way as requests.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_looks_up_what_is_there_when_it_comes_in() {
    let (folder, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut settings = config(folder.path());
    settings.import_dir = Some(files.path().to_owned());
    let server = Server::start_with(settings).await;
    let client = &server.client;
    load(client, &format!("{TABLE};{REST}"), 1).await.unwrap();
    std::fs::write(files.path().join("first.ndjson"), sales(0..40)).unwrap();
    std::fs::write(files.path().join("second.ndjson"), sales(40..60)).unwrap();
    client.sql("COPY sales FROM 'first.ndjson'").await;
    replace(client, 2).await;
    client.sql("COPY sales FROM 'second.ndjson'").await;
    let (expected, versions) = checked(client, 60).await;
    assert_eq!(versions, BTreeMap::from([(1, 40), (2, 20)]));
    assert_eq!(by_category(client, "by_category").await, expected);
    assert_eq!(client.run("by_category").await["verdict"], "exact");
    server.stop().await;
}

/// The text that `SHOW CREATE` gives makes the same stream again.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_shown_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    load(client, &format!("{TABLE};{REST}"), 1).await.unwrap();
    let shown = client.sql("SHOW CREATE STREAM sales").await;
    let shown = rows(&shown)[0][1].as_str().unwrap().to_owned();
    assert!(shown.contains("category TEXT FREEZE FROM products (category) ON sku = sku"), "{shown}");
    for view in ["each_sale", "by_category"] {
        client.sql(&format!("DROP MATERIALIZED VIEW {view}")).await;
    }
    client.sql("DROP STREAM sales").await;
    client.sql(&shown).await;
    let again = client.sql("SHOW CREATE STREAM sales").await;
    assert_eq!(rows(&again)[0][1], json!(shown));
    server.stop().await;
}

#[rstest]
#[case::table("category TEXT FREEZE FROM product (category) ON sku", "did you mean products?")]
#[case::column("category TEXT FREEZE FROM products (categori) ON sku", "did you mean category?")]
#[case::key("category TEXT FREEZE FROM products (category) ON skuu = sku", "did you mean sku?")]
#[case::kind("category BIGINT FREEZE FROM products (category) ON sku", "column category is BIGINT")]
#[case::key_kind("category TEXT FREEZE FROM products (category) ON cents = sku", "column cents is BIGINT")]
#[case::not_null("category TEXT NOT NULL FREEZE FROM products (category) ON sku", "may not be there")]
#[case::primary("category TEXT PRIMARY KEY FREEZE FROM products (category) ON sku", "may not be there")]
#[case::two(
    "a TEXT FREEZE FROM products (category) ON sku, b TEXT FREEZE FROM doubled (category) ON sku",
    "one table can be looked up"
)]
#[case::itself(
    "a TEXT FREEZE FROM products (category) ON sku, b TEXT FREEZE FROM products (category) ON a = sku",
    "looked up itself"
)]
#[case::doubled("a TEXT FREEZE FROM doubled (category) ON sku", "stands in two rows")]
#[case::of_times("a TEXT FREEZE FROM timed (category) ON sku", "rows of many times")]
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_up_is_refused(#[case] columns: &str, #[case] words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    load(client, TABLE, 1).await.unwrap();
    let more = "CREATE TABLE doubled (sku TEXT NOT NULL, category TEXT) FROM FILE 'doubled.csv';
                CREATE TABLE timed (sku TEXT, category TEXT, since TIMESTAMPTZ, PRIMARY KEY (sku, since)) FROM FILE 'timed.csv' \
                WITH (valid_from = 'since')";
    let files = json!({ "doubled.csv": "sku,category\np1,a\np1,b\n", "timed.csv": "sku,category,since\np1,a,2024-01-01T00:00:00Z\n" });
    client.try_sql(json!({ "sql": more, "files": files })).await.unwrap();
    let problem = client.refused(&format!("CREATE STREAM refused (sku TEXT, cents BIGINT, {columns})")).await;
    let text = format!("{} {}", problem["detail"].as_str().unwrap(), problem["hint"].as_str().unwrap_or_default());
    assert!(text.contains(words), "{text}");
    assert_ne!(problem["code"], "internal", "{text}");
    server.stop().await;
}

/// A table that a stream needs stays, and stays one in which each value is found once.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_looked_up_stays_fit_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    load(client, &format!("{TABLE};{REST}"), 1).await.unwrap();
    let doubled = json!({ "products.csv": csv(2) + "p1,again\n" });
    let body = json!({ "sql": TABLE.replace("CREATE", "CREATE OR REPLACE"), "files": doubled });
    let (_, problem) = client.try_sql(body).await.unwrap_err();
    assert!(problem["detail"].as_str().unwrap().contains("stands in two rows"), "{problem}");
    client.ingest("sales", sales(0..20)).await;
    assert_eq!(checked(client, 20).await.1, BTreeMap::from([(1, 20)]), "the version before is there");
    for view in ["each_sale", "by_category"] {
        client.sql(&format!("DROP MATERIALIZED VIEW {view}")).await;
    }
    let problem = client.refused("DROP TABLE products").await;
    assert_eq!(problem["code"], "in_use", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("looked up by: sales"), "{problem}");
    client.sql("DROP STREAM sales").await;
    client.sql("DROP TABLE products").await;
    let count = client.sql("SELECT count(*) FROM system.streams").await;
    assert_eq!(one(&count), &json!(0));
    server.stop().await;
}
