//! One union view through the whole platform: queries, look-ups, freshness, runs, certificates, restarts, `DROP`.

use serde_json::{Value, json};

use crate::harness::{Client, Server, one, rows};

const STREAMS: &str = "CREATE STREAM web (id TEXT NOT NULL, customer TEXT, cents BIGINT, at TIMESTAMPTZ NOT NULL, \
    PRIMARY KEY (id), WATERMARK FOR at AS at) WITH (partitions = 2); \
    CREATE STREAM shop (number BIGINT NOT NULL, buyer TEXT, total BIGINT, sold TIMESTAMPTZ NOT NULL, \
    PRIMARY KEY (number), WATERMARK FOR sold AS sold) WITH (partitions = 3);";

const SALES: &str = "CREATE MATERIALIZED VIEW sales AS
SELECT who, hour, count(*) AS n, sum(cents) AS cents, count(DISTINCT source) AS sources
FROM (SELECT 'web' AS source, lower(customer) AS who, cents, window_start AS hour
      FROM TUMBLE(web, at, INTERVAL '1 hour') WHERE cents > 0
      UNION ALL
      SELECT 'shop', buyer, total, window_start FROM TUMBLE(shop, sold, INTERVAL '1 hour')) AS t
GROUP BY who, hour";

const ALL: &str = "SELECT who, n, cents, sources FROM sales ORDER BY who, hour";

fn web(id: &str, customer: &str, cents: i64, time: &str) -> String {
    json!({ "id": id, "customer": customer, "cents": cents, "at": format!("2024-01-01T{time}Z") }).to_string() + "\n"
}

fn shop(number: i64, buyer: &str, total: i64, time: &str) -> String {
    json!({ "number": number, "buyer": buyer, "total": total, "sold": format!("2024-01-01T{time}Z") }).to_string()
        + "\n"
}

/// The rows of an answer, cells with spaces between them.
pub(super) fn table(answer: &Value) -> Vec<String> {
    let cell = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    rows(answer).iter().map(|row| row.as_array().unwrap().iter().map(cell).collect::<Vec<_>>().join(" ")).collect()
}

async fn asked(client: &Client, sql: &str) -> Vec<String> {
    table(&client.sql(sql).await)
}

pub(super) async fn got(client: &Client, path: &str) -> Value {
    let answer = client.request("GET", path).send().await.unwrap();
    let status = answer.status().as_u16();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Of two streams with other columns: the speed layer alone, a run of each part, both layers, a restart.
#[tokio::test(flavor = "multi_thread")]
async fn sales_of_two_streams_are_one_view() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAMS).await;
    let created = client.sql(SALES).await;
    let said = "created view sales; created view sales_part1; created view sales_part2";
    assert!(created.to_string().contains(said), "{created}");
    assert!(asked(client, ALL).await.is_empty());
    client.ingest("web", web("a", "Ann", 5, "10:00:00") + &web("b", "Bob", -1, "10:00:00")).await;
    assert_eq!(asked(client, ALL).await, ["ann 1 5 1"]);
    client.ingest("shop", shop(1, "ann", 7, "10:59:59") + &shop(2, "ann", 9, "11:00:00")).await;
    let expected = ["ann 2 12 2", "ann 1 9 1"];
    assert_eq!(asked(client, ALL).await, expected);
    assert_eq!(asked(client, &ALL.replace("FROM ", "FROM speed.")).await, expected);
    // no side of it has a batch view yet
    assert!(asked(client, &ALL.replace("FROM ", "FROM batch.")).await.is_empty());
    let refreshed = client.sql("REFRESH MATERIALIZED VIEW sales").await.to_string();
    for part in ["sales_part1 succeeded: exact", "sales_part2 succeeded: exact"] {
        assert!(refreshed.contains(part), "{refreshed}");
    }
    assert_eq!(asked(client, &ALL.replace("FROM ", "FROM batch.")).await, expected);
    assert!(asked(client, &ALL.replace("FROM ", "FROM speed.")).await.is_empty());
    client.ingest("web", web("c", "ANN", 1, "10:30:00") + &web("a", "Ann", 5, "10:00:00")).await;
    let expected = ["ann 3 13 2", "ann 1 9 1"];
    assert_eq!(asked(client, ALL).await, expected);
    let found = got(client, "/v1/views/sales?who=eq.ann&hour=eq.2024-01-01T10:00:00Z&select=n,cents").await;
    assert_eq!(table(&found), ["3 13"]);
    // by key, without a plan: the batch views' cells and the tail's
    assert!(matches!(found["statistics"]["cells_read"].as_u64(), Some(3..6)), "{found}");
    let page = got(client, "/v1/views/sales?n=gte.1&order=cents.desc&limit=1&select=cents").await;
    assert_eq!((table(&page), &page["next"]), (vec!["13".to_owned()], &json!("1")));
    server.stop().await;
    let server = Server::start(folder.path()).await;
    assert_eq!(asked(&server.client, ALL).await, expected);
    server.stop().await;
}

/// A column that is never null in the first branch may be in the second.
#[tokio::test(flavor = "multi_thread")]
async fn nulls_of_one_branch_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAMS).await;
    let names = "SELECT id AS name FROM web UNION ALL SELECT buyer FROM shop";
    client.sql(&format!("CREATE MATERIALIZED VIEW names AS {names}")).await;
    let counted = "SELECT coalesce(name, 'nobody') AS who, count(name) AS named, count(*) AS c";
    client.sql(&format!("CREATE MATERIALIZED VIEW counted AS {counted} FROM ({names}) AS u GROUP BY name")).await;
    client.ingest("web", web("a", "Ann", 5, "10:00:00")).await;
    client
        .ingest("shop", shop(1, "bob", 1, "10:00:00").replace("\"bob\"", "null") + &shop(2, "a", 1, "10:00:00"))
        .await;
    for layer in ["speed.", "batch."] {
        assert_eq!(asked(client, "SELECT count(*) FROM names WHERE name IS NULL").await, ["1"], "{layer}");
        assert_eq!(asked(client, &format!("SELECT count(*), count(name) FROM {layer}names")).await, ["3 2"]);
        let each = asked(client, &format!("SELECT who, named, c FROM {layer}counted ORDER BY who")).await;
        assert_eq!(each, ["a 2 2", "nobody 0 1"], "{layer}");
        client.sql("REFRESH MATERIALIZED VIEW names; REFRESH MATERIALIZED VIEW counted").await;
    }
    server.stop().await;
}

/// A freshness block, a certificate, a run and a line of the ledger for each part; the verdict is the worst.
#[tokio::test(flavor = "multi_thread")]
async fn each_part_says_what_it_was_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAMS).await;
    client.sql(&SALES.replace("sales AS", "sales WITH (late = 'drop') AS")).await;
    client.ingest("web", web("a", "Ann", 5, "10:00:00") + &web("b", "Bob", -1, "10:00:00")).await;
    // in each partition an event of noon, and then a late one
    let noon: String = (10..30).map(|number| shop(number, "eve", 1, "12:00:00")).collect();
    client.ingest("shop", noon + &shop(2, "ann", 9, "10:00:00")).await;
    let runs = client.request("POST", "/v1/views/sales/runs").send().await.unwrap();
    let location = runs.headers()["location"].to_str().unwrap().to_owned();
    let runs: Value = runs.json().await.unwrap();
    let of_runs: Vec<&Value> = runs["runs"].as_array().unwrap().iter().map(|run| &run["view"]).collect();
    assert_eq!((of_runs, &runs["view"]), (vec![&json!("sales_part1"), &json!("sales_part2")], &json!("sales")));
    assert_eq!(location, format!("/v1/runs/{}", runs["id"]));
    client.sql("REFRESH MATERIALIZED VIEW sales").await;
    let certificate = got(client, "/v1/views/sales/certificates/latest").await;
    let verdicts: Vec<&str> =
        certificate["parts"].as_array().unwrap().iter().map(|part| part["verdict"].as_str().unwrap()).collect();
    assert_eq!((verdicts, &certificate["verdict"]), (vec!["exact", "explained"], &json!("explained")), "{certificate}");
    let run = certificate["parts"][1]["run"].as_u64().unwrap();
    let of_run = got(client, &format!("/v1/views/sales/certificates/{run}")).await;
    assert_eq!(of_run["view"], "sales_part2");
    let listed = got(client, "/v1/views/sales/certificates").await;
    assert!(listed["certificates"].as_array().unwrap().len() >= 2, "{listed}");
    let listed = got(client, "/v1/views/sales/runs").await;
    assert!(listed["runs"].as_array().unwrap().len() >= 2, "{listed}");
    let answer = client.sql(ALL).await;
    let blocks = answer["freshness"]["views"].as_array().unwrap();
    let names: Vec<&Value> = blocks.iter().map(|block| &block["view"]).collect();
    assert_eq!(names, [&json!("sales_part1"), &json!("sales_part2")]);
    let partitions = |block: &Value| block["batch"]["cut"].as_object().unwrap().len();
    assert_eq!(blocks.iter().map(partitions).collect::<Vec<_>>(), [2, 3], "{answer}");
    let checks =
        asked(client, "SELECT ok, count(*) FROM recon.sales WHERE check LIKE 'sales_part_: verdict' GROUP BY ok").await;
    assert_eq!(checks, ["true 2"]);
    let views = asked(client, "SELECT name, stream, ready, run IS NULL, verdict FROM system.views ORDER BY name").await;
    assert_eq!(views[0], "sales web, shop true true explained", "{views:?}");
    assert_eq!(views[1], "sales_part1 web true false exact", "{views:?}");
    let ledger = "SELECT view, sum(records), sum(counted), sum(filtered), max(balance) FROM system.ledger \
        WHERE layer IN ('batch', 'speed') GROUP BY view ORDER BY view";
    let ledger = asked(client, ledger).await;
    assert_eq!(ledger[0], "sales_part1 2 1 1 0", "{ledger:?}");
    let layers = asked(client, &format!("EXPLAIN LAYERS {ALL}")).await;
    assert!(layers.iter().any(|row| row.starts_with("sales_part2 batch")), "{layers:?}");
    server.stop().await;
}

/// Reading one's own write waits for a position of either stream; an event says which part has counted it.
#[tokio::test(flavor = "multi_thread")]
async fn positions_of_either_stream_and_events_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAMS).await;
    client.sql(SALES).await;
    for number in 0..20_i64 {
        let (stream, event) = if number % 2 == 0 {
            ("web", web(&number.to_string(), "ann", 1, "10:00:00"))
        } else {
            ("shop", shop(number, "ann", 1, "10:00:00"))
        };
        let position = client.ingest(stream, event).await["position"].clone();
        let body = json!({ "sql": "SELECT sum(n) FROM sales", "at_least": position });
        assert_eq!(*one(&client.try_sql(body).await.unwrap()), number + 1);
    }
    let position = client.ingest("shop", shop(99, "bob", 1, "10:00:00")).await["position"].clone();
    let body = json!({ "sql": "SELECT sum(n) FROM batch.sales", "at_least": position });
    assert_eq!(client.try_sql(body).await.unwrap_err().1["code"], "stale");
    let event = got(client, "/v1/events/shop/99").await;
    let counted = &event["views"][0];
    assert_eq!((&counted["view"], &counted["part_of"]), (&json!("sales_part2"), &json!("sales")), "{event}");
    assert_eq!((&counted["status"], &counted["cells"][0]["who"]), (&json!("counted"), &json!("bob")), "{event}");
    server.stop().await;
}

/// A window is final where no stream can change it any more; a partition without an event closes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn windows_are_final_in_all_streams_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(&STREAMS.replace("partitions = 2", "partitions = 1").replace("partitions = 3", "partitions = 1")).await;
    client.sql(SALES).await;
    let ask = "SELECT n, window_final FROM sales ORDER BY hour";
    client.ingest("web", web("a", "ann", 5, "10:00:00") + &web("b", "ann", 5, "12:00:00")).await;
    assert_eq!(asked(client, ask).await, ["1 false", "1 false"]);
    client.ingest("shop", shop(1, "ann", 7, "10:30:00")).await;
    assert_eq!(asked(client, ask).await, ["2 false", "1 false"]);
    client.ingest("shop", shop(2, "ann", 7, "11:00:00")).await;
    assert_eq!(asked(client, ask).await, ["2 true", "1 false", "1 false"]);
    server.stop().await;
}

/// Each stream's own watermark says which of its events are late.
#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_late_in_their_own_stream() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(&STREAMS.replace("partitions = 2", "partitions = 1").replace("partitions = 3", "partitions = 1")).await;
    client.sql(&SALES.replace("sales AS", "sales WITH (late = 'side') AS")).await;
    client.ingest("web", web("a", "ann", 1, "12:00:00") + &web("late", "ann", 2, "10:00:00")).await;
    client.ingest("shop", shop(1, "ann", 4, "10:00:00")).await;
    assert_eq!(asked(client, "SELECT who, n, cents FROM sales ORDER BY hour").await, ["ann 1 4", "ann 1 1"]);
    assert_eq!(asked(client, "SELECT cents FROM sales_part1_late").await, ["2"]);
    assert!(asked(client, "SELECT cents FROM sales_part2_late").await.is_empty());
    client.sql("DROP MATERIALIZED VIEW sales").await;
    assert_eq!(client.sql("SHOW MATERIALIZED VIEWS").await["row_count"], 0);
    server.stop().await;
}

/// History before the view is computed by a run of each part; `SHOW CREATE` makes the same view again.
#[tokio::test(flavor = "multi_thread")]
async fn a_union_over_history_is_shown_dropped_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAMS).await;
    client.ingest("web", web("a", "Ann", 5, "10:00:00")).await;
    client.ingest("shop", shop(1, "ann", 7, "10:00:00")).await;
    let dry = client.try_sql(json!({ "sql": SALES, "dry_run": true })).await.unwrap().to_string();
    assert!(dry.contains("would create view sales; would create view sales_part1"), "{dry}");
    client.sql(&SALES.replace("sales AS", "sales REFRESH EVERY INTERVAL '1 hour' WITH (late = 'include') AS")).await;
    client.wait_ready("sales").await;
    assert_eq!(asked(client, ALL).await, ["ann 2 12 2"]);
    let shown = client.sql("SHOW CREATE MATERIALIZED VIEW sales").await;
    let text = rows(&shown)[0][1].as_str().unwrap().to_owned();
    assert!(text.contains("EVERY INTERVAL") && text.contains("UNION ALL"), "{text}");
    let views = asked(client, "SHOW MATERIALIZED VIEWS").await;
    let about = [
        "sales_part1 over web, a part of sales",
        "sales_part2 over shop, a part of sales",
        "sales the union of sales_part1, sales_part2",
    ];
    assert_eq!(views, about);
    let listed = got(client, "/v1/views").await;
    assert_eq!(listed["views"][0]["parts"], json!(["sales_part1", "sales_part2"]), "{listed}");
    assert_eq!(listed["views"][1]["part_of"], "sales", "{listed}");
    let again = client.sql(&text.replacen("CREATE ", "CREATE OR REPLACE ", 1)).await.to_string();
    assert!(again.contains("view sales is unchanged"), "{again}");
    for (statement, what) in [
        ("DROP MATERIALIZED VIEW sales_part1", "is a part of view sales"),
        ("DROP STREAM shop", "is used by: sales"),
        ("CREATE MATERIALIZED VIEW sales AS SELECT count(*) AS n FROM web", "exists already"),
        ("CREATE MATERIALIZED VIEW s AS SELECT count(*) AS n FROM sales", "a view over the view sales"),
    ] {
        let refused = client.refused(statement).await;
        assert!(refused["detail"].as_str().unwrap().contains(what), "{statement}: {refused}");
    }
    client.sql("CREATE SINK out FROM sales_part1 WITH (type = 'stdout', mode = 'complete')").await;
    assert!(client.refused("DROP MATERIALIZED VIEW sales").await["detail"].to_string().contains("has sinks: out"));
    client.sql("DROP SINK out; DROP MATERIALIZED VIEW sales").await;
    assert_eq!(client.refused("SELECT * FROM sales").await["code"], "not_found");
    assert_eq!(client.refused("SELECT * FROM sales_part1").await["code"], "not_found");
    client.sql(&text).await;
    client.wait_ready("sales").await;
    assert_eq!(asked(client, ALL).await, ["ann 2 12 2"]);
    assert_eq!(*rows(&client.sql("SHOW CREATE MATERIALIZED VIEW sales").await)[0][1].as_str().unwrap(), text);
    server.stop().await;
}

/// A rollback is of the part whose run it was, and answers stay what they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_rolled_back_by_the_name_of_its_union() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let client = &server.client;
    client.sql(STREAMS).await;
    client.sql(SALES).await;
    client.sql("CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM web").await;
    client.ingest("web", web("a", "ann", 5, "10:00:00")).await;
    let first = client.run("sales_part1").await["id"].clone();
    client.ingest("web", web("b", "ann", 5, "10:00:00")).await;
    client.sql("REFRESH MATERIALIZED VIEW sales").await;
    let done = client.sql(&format!("ROLLBACK MATERIALIZED VIEW sales TO RUN {first}")).await;
    assert!(done.to_string().contains(&format!("sales_part1 is back at run {first}")), "{done}");
    assert_eq!(asked(client, "SELECT n FROM batch.sales").await, ["1"]);
    assert_eq!(asked(client, "SELECT n FROM sales").await, ["2"]);
    let other = client.run("other").await["id"].clone();
    let refused = client.refused(&format!("ROLLBACK MATERIALIZED VIEW sales TO RUN {other}")).await;
    assert!(refused["detail"].as_str().unwrap().contains("no part of it"), "{refused}");
    server.stop().await;
}
