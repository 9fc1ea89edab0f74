//! What a new user does first: start, create, ingest, query, run, stop, start again.

use bifold::platform::Starting;
use serde_json::{Value, json};

use crate::harness::{Client, Server, config, one, rows};

const SCRIPT: &str = "
  CREATE STREAM orders (id TEXT NOT NULL, country TEXT, cents BIGINT, at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (id), WATERMARK FOR at AS at - INTERVAL '1 minute') WITH (partitions = 2);
  CREATE MATERIALIZED VIEW per_country REFRESH EVERY INTERVAL '1 day' AS
    SELECT country, count(*) AS orders, sum(cents) AS cents FROM orders GROUP BY country;";

fn order(id: &str, country: &str, cents: i64) -> String {
    format!("{{\"id\":\"{id}\",\"country\":\"{country}\",\"cents\":{cents},\"at\":\"2024-05-01T10:00:00Z\"}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    let shown = server.client.sql("SHOW CREATE MATERIALIZED VIEW per_country").await;
    server.client.ingest("orders", order("1", "KR", 100) + &order("2", "DE", 50)).await;
    assert_eq!(server.client.run("per_country").await["verdict"], "exact");
    server.client.ingest("orders", order("3", "KR", 7)).await;
    server.stop().await;
    let server = Server::start(folder.path()).await;
    assert_eq!(server.client.sql("SHOW CREATE MATERIALIZED VIEW per_country").await["rows"], shown["rows"]);
    let answer = server.client.sql("SELECT * FROM per_country ORDER BY country").await;
    assert_eq!(answer["rows"], json!([["DE", 1, 50], ["KR", 2, 107]]));
    let duplicate = server.client.ingest("orders", order("3", "KR", 7)).await;
    assert_eq!(duplicate["duplicates"], 1);
    let batch = server.client.sql("SELECT sum(cents) FROM batch.per_country").await;
    assert_eq!(*one(&batch), 150);
    let speed = server.client.sql("SELECT sum(cents) FROM speed.per_country").await;
    assert_eq!(*one(&speed), 7);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let refused = bifold::platform::Platform::start(config(folder.path())).await.unwrap_err().to_string();
    assert!(refused.contains("another bifold is running on it (http://127.0.0.1:"), "{refused}");
    server.stop().await;
    Server::start(folder.path()).await.stop().await;
}

/// While it recovers a platform says so: alive, not ready, everything else later.
#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_recovers_listens_and_says_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    server.client.ingest("orders", order("1", "KR", 100)).await;
    server.stop().await;
    std::fs::write(folder.path().join("endpoint"), "http://left-behind").unwrap();
    let starting = Starting::listen(config(folder.path())).await.unwrap();
    let token = std::fs::read_to_string(folder.path().join("admin-token")).unwrap();
    let client = Client::new(&starting.url(), token.trim());
    assert_eq!(client.request("GET", "/healthz").send().await.unwrap().status(), 200);
    let readiness = client.request("GET", "/readyz").send().await.unwrap();
    assert_eq!(readiness.status(), 503);
    let readiness: Value = readiness.json().await.unwrap();
    assert!(readiness["reasons"][0].as_str().unwrap().starts_with("recovering"), "{readiness}");
    for (method, path) in [("POST", "/v1/sql"), ("GET", "/v1/streams"), ("POST", "/v1/streams/orders/events")] {
        let later = client.request(method, path).send().await.unwrap();
        assert_eq!(
            (later.status().as_u16(), &later.headers()["content-type"]),
            (503, &"application/problem+json".parse().unwrap())
        );
        assert!(later.headers().contains_key("retry-after"));
        let problem: Value = later.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["retryable"]), (&json!("not_ready"), &json!(true)), "{problem}");
    }
    assert!(!folder.path().join("endpoint").exists(), "clients wait for it until all is ready");
    let platform = starting.recover().await.unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("endpoint")).unwrap(), platform.url());
    assert_eq!(client.request("GET", "/readyz").send().await.unwrap().status(), 200);
    assert_eq!(*one(&client.sql("SELECT cents FROM per_country").await), 100);
    platform.stop().await.unwrap();
}

/// What no delta holds is replayed before the first request is answered: no answer lacks it.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_after_a_restart_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    for part in 0..20 {
        let body: String = (part * 500..part * 500 + 500).map(|n| order(&n.to_string(), "KR", 1)).collect();
        server.client.ingest("orders", body).await;
    }
    server.stop().await;
    std::fs::remove_dir_all(folder.path().join("deltas")).unwrap();
    let server = Server::start(folder.path()).await;
    let answer = server.client.try_sql(json!({ "sql": "SELECT orders FROM per_country", "max_staleness": "0s" })).await;
    assert_eq!(*one(&answer.unwrap()), 10_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_and_the_next_one_used() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.listen.set_port(port);
    let server = Server::start_with(settings).await;
    assert_eq!(server.platform.taken_port(), Some(port));
    assert!(server.platform.address().port() > port);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_kept_raw_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    let body = order("1", "KR", 1)
        + "{\"id\":\"2\",\"cents\":\"many\",\"at\":\"2024-05-01T10:00:00Z\"}\nnot json\n"
        + &order("1", "KR", 1);
    let answer = server.client.ingest("orders", body).await;
    let counts = ["received", "accepted", "duplicates", "quarantined"].map(|word| answer[word].as_u64().unwrap());
    assert_eq!(counts, [4, 1, 1, 2], "{answer}");
    assert_eq!(answer["errors"][0]["index"], 1, "{answer}");
    let letters = server.client.sql("SELECT raw, code FROM dlq.orders ORDER BY raw").await;
    assert_eq!(rows(&letters).len(), 2, "{letters}");
    assert_eq!(rows(&letters)[0][0], "not json", "{letters}");
    assert_eq!(*one(&server.client.sql("SELECT sum(orders) FROM per_country").await), Value::from(1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_your_own_write_waits_for_the_position() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    for number in 0..50 {
        let told = server.client.ingest("orders", order(&number.to_string(), "KR", 1)).await;
        let asked = json!({ "sql": "SELECT orders FROM per_country", "at_least": told["position"] });
        let answer = server.client.try_sql(asked).await.unwrap();
        assert_eq!(*one(&answer), number + 1);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_table_is_joined_in_both_layers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    let script = "CREATE TABLE countries (code TEXT NOT NULL, continent TEXT) FROM FILE 'countries.csv';
        CREATE MATERIALIZED VIEW per_continent AS SELECT continent, sum(cents) AS cents, count(*) AS orders
        FROM orders JOIN countries ON orders.country = countries.code GROUP BY continent;
        CREATE MATERIALIZED VIEW with_unknown AS SELECT continent, sum(cents) AS cents
        FROM orders LEFT JOIN countries ON orders.country = countries.code GROUP BY continent;";
    let files = json!({ "countries.csv": "code,continent\nKR,Asia\nJP,Asia\nDE,Europe\nDE,Union\n" });
    server.client.try_sql(json!({ "sql": script, "files": files })).await.unwrap();
    for part in [order("1", "KR", 1) + &order("2", "DE", 10), order("3", "JP", 100) + &order("4", "??", 1_000)] {
        server.client.ingest("orders", part).await;
        for view in ["per_continent", "with_unknown"] {
            let run = server.client.run(view).await;
            assert_eq!(run["verdict"], "exact", "{run}");
        }
    }
    server.client.ingest("orders", order("5", "DE", 10_000)).await;
    let answer = server.client.sql("SELECT * FROM per_continent ORDER BY continent").await;
    let wanted = json!([["Asia", 101, 2], ["Europe", 10_010, 2], ["Union", 10_010, 2]]);
    assert_eq!(answer["rows"], wanted);
    let answer = server.client.sql("SELECT * FROM with_unknown WHERE continent IS NULL").await;
    assert_eq!(answer["rows"], json!([[null, 1_000]]));
    server.stop().await;
}

/// Where the one event of a request is, from the position that ingest answered with.
fn place(answer: &Value) -> String {
    let token = answer["position"].as_str().unwrap();
    let ends = token.rsplit('.').next().unwrap().split('-').map(|end| end.parse::<u64>().unwrap());
    let (partition, end) = ends.enumerate().find(|(_, end)| *end > 0).unwrap();
    format!("partition {partition}, offset {}: ", end - 1)
}

/// A record whose value cannot be computed stops its view alone, also after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_cannot_be_computed_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    server
        .client
        .sql("CREATE MATERIALIZED VIEW odd AS SELECT country, sum(100 / cents) AS x FROM orders GROUP BY country")
        .await;
    server.client.ingest("orders", order("1", "KR", 5)).await;
    assert_eq!(*one(&server.client.sql("SELECT x FROM odd").await), 20);
    let place = place(&server.client.ingest("orders", order("2", "KR", 0)).await);
    server.client.ingest("orders", order("3", "KR", 7)).await;
    let problem = server.client.refused("SELECT x FROM odd").await;
    assert_eq!((&problem["code"], &problem["status"]), (&json!("computation_failed"), &json!(422)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(&place), "{place}: {problem}");
    assert_eq!(*one(&server.client.sql("SELECT cents FROM per_country").await), 12);
    // the end of a platform writes a checkpoint: the record is below it from then on
    server.stop().await;
    let server = Server::start(folder.path()).await;
    server.client.ingest("orders", order("4", "KR", 9)).await;
    assert_eq!(server.client.refused("SELECT x FROM odd").await, problem);
    assert_eq!(*one(&server.client.sql("SELECT cents FROM per_country").await), 21);
    let run = server.client.run("odd").await;
    assert_eq!(run["state"], "failed");
    assert!(run["error"].as_str().unwrap().contains(&place), "{place}: {run}");
    assert_eq!(server.client.run("per_country").await["verdict"], "exact");
    server.client.sql("DROP MATERIALIZED VIEW odd").await;
    server.stop().await;
}

/// A merged view is an ordinary table to the rest of SQL.
#[tokio::test(flavor = "multi_thread")]
async fn any_sql_runs_on_top_of_a_merged_view() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    let orders = [("1", "KR", 1), ("2", "DE", 10), ("3", "JP", 100), ("4", "KR", 1_000)];
    let body: String = orders.iter().map(|(id, country, cents)| order(id, country, *cents)).collect();
    server.client.ingest("orders", body).await;
    let cases = [
        ("SELECT count(DISTINCT orders), sum(cents), median(cents) FROM per_country", json!([[2, 1_111, "100.0"]])),
        (
            "SELECT country, sum(cents) OVER (ORDER BY country ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s \
             FROM per_country ORDER BY country",
            json!([["DE", 10], ["JP", 110], ["KR", 1_101]]),
        ),
        (
            "SELECT a.country FROM per_country AS a JOIN speed.per_country AS b USING (country) \
             WHERE a.cents = b.cents AND a.country LIKE 'K%'",
            json!([["KR"]]),
        ),
        ("WITH q AS (SELECT max(cents) AS m FROM per_country) SELECT m FROM q", json!([[1_001]])),
        ("SELECT country FROM per_country ORDER BY cents DESC LIMIT 1", json!([["KR"]])),
    ];
    for (sql, wanted) in cases {
        assert_eq!(server.client.sql(sql).await["rows"], wanted, "{sql}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_view_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(SCRIPT).await;
    server.client.ingest("orders", order("1", "KR", 1)).await;
    server.client.run("per_country").await;
    let problem = server.client.refused("DROP STREAM orders").await;
    assert_eq!(problem["code"], "in_use", "{problem}");
    server.client.sql("DROP MATERIALIZED VIEW per_country").await;
    assert_eq!(server.client.refused("SELECT * FROM per_country").await["code"], "not_found");
    server.client.sql("DROP STREAM orders").await;
    assert!(server.client.try_ingest("orders", order("1", "KR", 1)).await.is_err());
    server.client.sql(SCRIPT).await;
    let answer = server.client.ingest("orders", order("1", "KR", 1)).await;
    assert_eq!(answer["accepted"], 1, "a new stream knows nothing of the old one: {answer}");
    server.stop().await;
}
