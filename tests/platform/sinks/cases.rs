//! Each kind of sink, and what SQL says of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};

use super::postgres::Database;
use super::receiver::Receiver;
use super::{key_of, objects, replayed};
use crate::harness::{Client, PATIENCE, Server, one, rows};

/// Keys that are null, values of every type, rows that go when their sum leaves the range.
const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT k, b, window_start, count(*) AS n, sum(x) AS s, avg(x) AS a, \
                    min(p) AS p, max(at) AS last FROM TUMBLE(e, at, INTERVAL '1 minute') GROUP BY k, b, window_start \
                    HAVING sum(x) > -20";
pub(super) const KEY: [&str; 3] = ["k", "b", "window_start"];

pub(super) async fn create(client: &Client) {
    let stream = "CREATE STREAM e (id BIGINT NOT NULL, k TEXT, b BOOLEAN, x BIGINT, p NUMERIC(10, 2), at TIMESTAMPTZ NOT \
                  NULL, PRIMARY KEY (id), WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (partitions = 2)";
    client.sql(&format!("{stream}; {VIEW}")).await;
}

/// Events from `from` on, as a function of their id.
pub(super) fn body(from: u64, count: u64) -> String {
    let mut out = String::new();
    for id in from..from + count {
        let key = match id % 7 {
            0 => Value::Null,
            1 => json!("it's \"quoted\", \\ and\ttabbed"),
            k => json!(format!("k{k}")),
        };
        let flag = [Value::Null, json!(true), json!(false)][(id % 3) as usize].clone();
        let second = id * 37 % 300;
        let at = format!("2024-01-01T00:{:02}:{:02}.5Z", second / 60, second % 60);
        let price = format!("{}.{:02}", id % 50, id % 100);
        let x = (id * 31 % 23) as i64 - 13;
        out.push_str(&json!({ "id": id, "k": key, "b": flag, "x": x, "p": price, "at": at }).to_string());
        out.push('\n');
    }
    out
}

/// Waits until a sink has delivered everything.
pub(super) async fn until_delivered(client: &Client, sink: &str) -> Value {
    let sql = format!("SELECT lag, state, error, rows FROM system.sinks WHERE name = '{sink}'");
    let begun = Instant::now();
    loop {
        let answer = client.sql(&sql).await;
        let row = rows(&answer)[0].clone();
        if row[0] == 0 && row[1] == "running" {
            return row;
        }
        assert!(begun.elapsed() < PATIENCE, "{row}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Values as PostgreSQL writes them and as we do: numbers by their value, times by the moment.
pub(super) fn alike(rows: &[String]) -> Vec<Vec<(String, String)>> {
    // `serde_json` may read a float wrongly in its last bit
    let rounded = |number: f64| format!("{number:.12e}");
    let text = |value: &Value| match value {
        Value::Number(number) => rounded(number.as_f64().unwrap()),
        Value::String(text) if text.parse::<f64>().is_ok() => rounded(text.parse().unwrap()),
        Value::String(text) => {
            let time = text.trim_end_matches('Z').trim_end_matches("+00:00").trim_end_matches("+00");
            match time.split_once('.') {
                Some((whole, part)) if time.starts_with("2024-") => format!("{whole}.{}", part.trim_end_matches('0')),
                _ => time.to_owned(),
            }
        }
        other => other.to_string(),
    };
    let mut all: Vec<Vec<(String, String)>> = rows
        .iter()
        .map(|row| {
            let row: BTreeMap<String, Value> = serde_json::from_str(row).unwrap();
            row.iter().map(|(name, value)| (name.clone(), text(value).trim_end_matches('.').to_owned())).collect()
        })
        .collect();
    all.sort();
    all
}

pub(super) async fn view(client: &Client) -> Vec<String> {
    objects(&client.sql("SELECT * FROM v").await)
}

/// table, files and parcels are the view, in each mode that replaces rows, over restarts and publications.
#[rstest]
#[case::update("update")]
#[case::complete("complete")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_is_the_view(#[case] mode: &str) {
    let (database, receiver) = (Database::new(), Receiver::start().await);
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).await;
    create(&server.client).await;
    server.client.ingest("e", body(0, 100)).await;
    let script = format!(
        "CREATE SINK pg FROM v WITH (type = 'postgres', url = '{}', table = 'v', mode = '{mode}', every = '20 ms'); \
         CREATE SINK files FROM v WITH (type = 'file', mode = '{mode}', every = '20 ms'); \
         CREATE SINK hook FROM v WITH (type = 'webhook', url = '{}', mode = '{mode}', every = '20 ms'); \
         CREATE SINK out FROM v WITH (type = 'stdout', mode = '{mode}', every = '1 hour')",
        database.url, receiver.url
    );
    server.client.sql(&script).await;
    for round in 0..5 {
        if round == 1 {
            receiver.book.lock().refuse = 3;
        }
        server.client.ingest("e", body(100 + round * 40, 40)).await;
        if round % 2 == 0 {
            assert_eq!(server.client.run("v").await["verdict"], "exact");
        }
        for sink in ["pg", "files", "hook"] {
            until_delivered(&server.client, sink).await;
        }
        let expected = view(&server.client).await;
        assert_eq!(alike(&database.rows("v")), alike(&expected), "round {round}");
        let exports = folder.path().join("exports/files");
        if mode == "update" {
            let found: Vec<String> = replayed(&exports, &KEY).values().map(ToString::to_string).collect();
            assert_eq!(alike(&found), alike(&expected), "round {round}");
        } else {
            let text = std::fs::read_to_string(exports.join("v.ndjson")).unwrap();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let rows: Vec<String> =
                lines.iter().filter(|line| line["op"] == "upsert").map(|l| l["row"].to_string()).collect();
            assert_eq!(alike(&rows), alike(&expected), "round {round}");
        }
        assert_eq!(alike(&received(&receiver)), alike(&expected), "round {round}");
        if round == 2 {
            server.stop().await;
            server = Server::start(folder.path()).await;
        }
    }
    let (again, changed) = {
        let book = receiver.book.lock();
        (book.again, book.changed)
    };
    assert!(again >= 3 && changed == 0, "{again} again, {changed} changed");
    server.stop().await;
}

/// The rows that the parcels leave behind, each parcel taken once.
fn received(receiver: &Receiver) -> Vec<String> {
    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    for (_, parcel) in &receiver.book.lock().parcels {
        if parcel["snapshot"] == true {
            rows.clear();
        }
        for row in parcel["upserts"].as_array().unwrap() {
            rows.insert(key_of(row, &KEY), row.clone());
        }
        for key in parcel["deletes"].as_array().unwrap() {
            rows.remove(&key_of(key, &KEY));
        }
    }
    rows.values().map(ToString::to_string).collect()
}

/// A target that is not there is said to be so, and used when it is.
#[tokio::test(flavor = "multi_thread")]
async fn sink_that_fails_says_why_and_goes_on_by_itself() {
    let database = Database::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    create(client).await;
    client.ingest("e", body(0, 50)).await;
    database.sql("CREATE TABLE v (k BOOLEAN)");
    let url = &database.url;
    client.sql(&format!("CREATE SINK pg FROM v WITH (type = 'postgres', url = '{url}', table = 'v')")).await;
    let begun = Instant::now();
    loop {
        let answer = client.sql("SELECT state, error, retries, lag FROM system.sinks").await;
        let row = rows(&answer)[0].clone();
        if row[0] == "retrying" {
            let error = row[1].as_str().unwrap();
            assert!(error.contains("column") && !error.contains("bifoldtest"), "{error}");
            assert!(row[2].as_u64().unwrap() >= 1 && row[3] == 50, "{row}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{row}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    database.sql("DROP TABLE v");
    until_delivered(client, "pg").await;
    assert_eq!(alike(&database.rows("v")), alike(&view(client).await));
    server.stop().await;
}

/// A table that somebody made, with a key of its own; a column too many does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn table_that_is_there_is_used() {
    let database = Database::new();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    create(client).await;
    client.sql("CREATE MATERIALIZED VIEW w AS SELECT coalesce(k, '-') AS k, count(*) AS n FROM e GROUP BY 1").await;
    database.sql("CREATE SCHEMA s; CREATE TABLE s.w (k TEXT PRIMARY KEY, n BIGINT, note TEXT DEFAULT 'x')");
    client.ingest("e", body(0, 50)).await;
    let url = &database.url;
    client.sql(&format!("CREATE SINK pg FROM w WITH (type = 'postgres', url = '{url}', table = 's.w')")).await;
    until_delivered(client, "pg").await;
    let counted = one(&client.sql("SELECT CAST(sum(n) AS BIGINT) FROM w").await).to_string();
    assert_eq!(database.sql("SELECT sum(n) FROM s.w WHERE note = 'x'"), counted);
    assert_eq!(database.sql("SELECT count(*) FROM pg_indexes WHERE tablename = 'w'"), "1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_are_shown_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    create(client).await;
    let sql = "CREATE SINK s FROM v WITH (type = 'postgres', url = 'postgres://me:hush@127.0.0.1:1/d', table = 't')";
    client.sql(sql).await;
    assert!(client.refused(sql).await["detail"].as_str().unwrap().contains("exists already"));
    client.sql(&sql.replace("SINK s", "SINK IF NOT EXISTS s")).await;
    let other = client.refused(&sql.replace("SINK s", "SINK other")).await;
    assert!(other["detail"].as_str().unwrap().contains("sink s writes to t of"), "{other}");
    let shown = client.sql("SHOW SINKS").await;
    assert_eq!(rows(&shown)[0], json!(["s", "update of v to t of postgres://me:***@127.0.0.1:1/d"]));
    let text = client.sql("SHOW CREATE SINK s").await;
    assert!(text.to_string().contains("CREATE SINK s FROM v WITH (type = 'postgres', mode = 'update'"), "{text}");
    assert!(!text.to_string().contains("hush"), "{text}");
    let refused = client.refused("DROP MATERIALIZED VIEW v").await;
    assert_eq!((&refused["code"], &refused["hint"]), (&json!("in_use"), &json!("DROP SINK these first")));
    client.sql("DROP SINK s; DROP SINK IF EXISTS s").await;
    assert_eq!(rows(&client.sql("SELECT name FROM system.sinks").await).len(), 0);
    client.sql("DROP MATERIALIZED VIEW v").await;
    server.stop().await;
}

#[rstest]
#[case::no_view("CREATE SINK s FROM w WITH (type = 'stdout')", "there is no view w")]
#[case::a_stream("CREATE SINK s FROM e WITH (type = 'stdout')", "e is a stream")]
#[case::without_key("CREATE SINK s FROM u WITH (type = 'stdout')", "a column of GROUP BY is not in its SELECT")]
#[case::with_limit("CREATE SINK s FROM l WITH (type = 'stdout')", "a row depends on other rows")]
#[tokio::test(flavor = "multi_thread")]
async fn sink_that_cannot_be_is_refused(#[case] sql: &str, #[case] says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    create(&server.client).await;
    server.client.sql("CREATE MATERIALIZED VIEW u AS SELECT upper(k) AS u, count(*) AS n FROM e GROUP BY k").await;
    server
        .client
        .sql("CREATE MATERIALIZED VIEW l AS SELECT k, count(*) AS n FROM e GROUP BY k ORDER BY n LIMIT 2")
        .await;
    let problem = server.client.refused(sql).await;
    assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    server
        .client
        .sql(&sql.replace("(type", "(mode = 'complete', type").replace("FROM w", "FROM u").replace("FROM e", "FROM l"))
        .await;
    server.stop().await;
}
