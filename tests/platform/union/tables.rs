//! Union views of which a branch knows a table: by a join as of the record's time, or by a value that came in with the
//! record. (R-043, R-062: as-of)

use serde_json::{Value, json};

use super::cases::table;
use crate::harness::{Client, Server};

const SALES: &str =
    "CREATE TABLE rates (currency TEXT, rate BIGINT, since TIMESTAMPTZ, PRIMARY KEY (currency, since)) \
    FROM FILE 'rates.csv' WITH (valid_from = 'since', join = 'pinned');
CREATE STREAM web (id TEXT NOT NULL, currency TEXT, cents BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR at AS at);
CREATE STREAM shop (number BIGINT NOT NULL, cents BIGINT, sold TIMESTAMPTZ NOT NULL, PRIMARY KEY (number), \
    WATERMARK FOR sold AS sold);
CREATE MATERIALIZED VIEW turnover AS
SELECT source, count(*) AS n, sum(worth) AS worth
FROM (SELECT 'web' AS source, w.cents * r.rate AS worth
      FROM web AS w LEFT JOIN rates FOR SYSTEM_TIME AS OF w.at AS r ON w.currency = r.currency
      UNION ALL
      SELECT 'shop', cents FROM shop) AS sold
GROUP BY source;
CREATE MATERIALIZED VIEW receipts AS
SELECT CAST(number AS TEXT) AS id, cents AS worth FROM shop
UNION ALL
SELECT * FROM (SELECT w.id, w.cents * r.rate AS worth
               FROM web AS w JOIN rates FOR SYSTEM_TIME AS OF w.at AS r ON w.currency = r.currency) AS rated;";

const RATES: &str = "currency,rate,since\neur,2,2024-01-01T00:00:00Z\neur,3,2024-01-02T00:00:00Z\n\
    usd,5,2024-01-01T12:00:00Z\n";

const MOVED: &str = "CREATE STREAM sales (id TEXT NOT NULL, sku TEXT, cents BIGINT NOT NULL, \
    category TEXT FREEZE FROM products (category) ON sku, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), WATERMARK FOR at AS at);
CREATE STREAM refunds (number BIGINT NOT NULL, category TEXT, cents BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, \
    PRIMARY KEY (number), WATERMARK FOR at AS at);
CREATE MATERIALIZED VIEW moved AS
SELECT category, version, count(*) AS n, sum(cents) AS cents
FROM (SELECT category, _frozen_version AS version, cents FROM sales
      UNION ALL
      SELECT category, CAST(0 AS INT), 0 - cents FROM refunds) AS all_of_them
GROUP BY category, version;
CREATE MATERIALIZED VIEW each_one AS
SELECT * FROM sales
UNION ALL
SELECT 'r' || CAST(number AS TEXT), CAST(NULL AS TEXT), 0 - cents, category, at FROM refunds;";

const PRODUCTS: &str = "TABLE products (sku TEXT NOT NULL, category TEXT) FROM FILE 'products.csv'";

async fn with_file(client: &Client, sql: &str, (name, text): (&str, &str)) -> Value {
    let body = json!({ "sql": sql, "files": { name: text } });
    client.try_sql(body).await.unwrap_or_else(|(status, problem)| panic!("{status}: {problem}"))
}

async fn asked(client: &Client, sql: &str) -> Vec<String> {
    table(&client.sql(sql).await)
}

fn web(id: &str, currency: &str, cents: i64, time: &str) -> String {
    json!({ "id": id, "currency": currency, "cents": cents, "at": format!("2024-01-{time}:00Z") }).to_string() + "\n"
}

fn shop(number: i64, cents: i64) -> String {
    json!({ "number": number, "cents": cents, "sold": "2024-01-01T10:00:00Z" }).to_string() + "\n"
}

fn sale(id: &str, sku: &str, cents: i64) -> String {
    json!({ "id": id, "sku": sku, "cents": cents, "at": "2024-01-01T10:00:00Z" }).to_string() + "\n"
}

fn refund(number: i64, category: &str, cents: i64) -> String {
    json!({ "number": number, "category": category, "cents": cents, "at": "2024-01-01T10:00:00Z" }).to_string() + "\n"
}

/// Both layers, and what came after the run: the rate is that of the time of the sale.
#[tokio::test(flavor = "multi_thread")]
async fn a_branch_joins_the_row_that_was_valid_then() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    with_file(client, SALES, ("rates.csv", RATES)).await;
    // the second at the first moment of a rate, the third before there is one
    let events = [
        web("a", "eur", 10, "01T10:00"),
        web("b", "eur", 10, "02T00:00"),
        web("c", "usd", 10, "01T11:59"),
        web("d", "usd", 10, "01T12:00"),
    ];
    client.ingest("web", events.concat()).await;
    client.ingest("shop", shop(1, 7) + &shop(2, 8)).await;
    let turnover = |view: &str| format!("SELECT source, n, worth FROM {view} ORDER BY source");
    let receipts = |view: &str| format!("SELECT id, worth FROM {view} ORDER BY id");
    let (sums, each) = (["shop 2 15", "web 4 100"], ["1 7", "2 8", "a 20", "b 30", "d 50"]);
    assert_eq!(asked(client, &turnover("turnover")).await, sums);
    assert_eq!(asked(client, &receipts("receipts")).await, each);
    for part in ["turnover_part1", "turnover_part2", "receipts_part1", "receipts_part2"] {
        client.exact_run(part).await;
    }
    assert_eq!(asked(client, &turnover("batch.turnover")).await, sums);
    assert_eq!(asked(client, &receipts("batch.receipts")).await, each);
    client.ingest("web", web("e", "eur", 1, "01T23:59") + &web("f", "eur", 1, "03T00:00")).await;
    client.ingest("shop", shop(3, 9)).await;
    let (sums, each) = (["shop 3 24", "web 6 105"], ["1 7", "2 8", "3 9", "a 20", "b 30", "d 50", "e 2", "f 3"]);
    assert_eq!(asked(client, &turnover("turnover")).await, sums);
    assert_eq!(asked(client, &receipts("receipts")).await, each);
    server.stop().await;
    let server = Server::start(folder.path()).await;
    assert_eq!(asked(&server.client, &turnover("turnover")).await, sums, "after a restart");
    assert_eq!(asked(&server.client, &receipts("receipts")).await, each, "after a restart");
    server.stop().await;
}

/// What was looked up when the record came in, beside records that nothing was looked up for.
#[tokio::test(flavor = "multi_thread")]
async fn a_branch_has_what_was_frozen_in_its_stream() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    let first = ("products.csv", "sku,category\np1,toys\np2,books\n");
    with_file(client, &format!("CREATE {PRODUCTS}; {MOVED}"), first).await;
    client.ingest("sales", sale("s1", "p1", 100) + &sale("s2", "p2", 50) + &sale("s3", "p9", 7)).await;
    client.ingest("refunds", refund(1, "toys", 30)).await;
    let moved = |view: &str| format!("SELECT category, version, n, cents FROM {view} ORDER BY category, version");
    let each = |view: &str| format!("SELECT id, sku, cents, category FROM {view} ORDER BY id");
    let sums = ["books 1 1 50", "toys 0 1 -30", "toys 1 1 100", "null 1 1 7"];
    let lines = ["r1 null -30 toys", "s1 p1 100 toys", "s2 p2 50 books", "s3 p9 7 null"];
    assert_eq!(asked(client, &moved("moved")).await, sums);
    assert_eq!(asked(client, &each("each_one")).await, lines);
    for part in ["moved_part1", "moved_part2", "each_one_part1", "each_one_part2"] {
        client.exact_run(part).await;
    }
    assert_eq!(asked(client, &moved("batch.moved")).await, sums);
    assert_eq!(asked(client, &each("batch.each_one")).await, lines);
    let second = ("products.csv", "sku,category\np1,games\np2,books\n");
    with_file(client, &format!("CREATE OR REPLACE {PRODUCTS}"), second).await;
    client.ingest("sales", sale("s4", "p1", 5)).await;
    let sums = ["books 1 1 50", "games 2 1 5", "toys 0 1 -30", "toys 1 1 100", "null 1 1 7"];
    assert_eq!(asked(client, &moved("moved")).await, sums);
    client.exact_run("moved_part1").await;
    assert_eq!(asked(client, &moved("batch.moved")).await, sums);
    let view = "CREATE MATERIALIZED VIEW v AS SELECT category, ";
    let other = "UNION ALL SELECT category, CAST(0 AS INT) FROM refunds";
    let problem = client.refused(&format!("{view}_frozen_version FROM sales {other}")).await;
    assert!(problem["detail"].as_str().unwrap().contains("column _frozen_version in a branch"), "{problem}");
    assert_eq!(problem["hint"], "give it another name with AS: _frozen_version AS record_frozen_version", "{problem}");
    assert_eq!(problem["position"], json!({ "line": 1, "column": view.len() + 1 }), "{problem}");
    server.stop().await;
}
