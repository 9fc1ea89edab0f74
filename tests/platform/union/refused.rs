//! What a view over `UNION ALL` cannot be is refused, with the place and the spelling that works.

use rstest::rstest;
use serde_json::json;

use crate::harness::{Client, Server};

const STREAMS: &str = "CREATE STREAM a (id TEXT NOT NULL, k TEXT, n BIGINT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
    WATERMARK FOR at AS at); \
    CREATE STREAM b (id BIGINT NOT NULL, k TEXT, n INT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), WATERMARK FOR at AS at); \
    CREATE TABLE d (k TEXT, name TEXT) FROM FILE 'd.csv'; CREATE TABLE p (k TEXT, name TEXT) FROM FILE 'd.csv' WITH (join = 'pinned')";

async fn platform(folder: &std::path::Path) -> Server {
    let server = Server::start(folder).await;
    let body = json!({ "sql": STREAMS, "files": { "d.csv": "k,name\nx,X\n" } });
    server.client.try_sql(body).await.unwrap();
    server
}

async fn views(client: &Client) -> u64 {
    client.sql("SHOW MATERIALIZED VIEWS").await["row_count"].as_u64().unwrap()
}

#[rstest]
#[case::types(
    "SELECT k, sum(n) AS n\nFROM (SELECT k, n FROM a UNION ALL SELECT k, n FROM b) AS u GROUP BY k",
    "column n: INT in branch 2 of UNION ALL, BIGINT in the first",
    "write CAST(n AS BIGINT)",
    (2, 36)
)]
#[case::arity(
    "SELECT k FROM a\nUNION ALL\n  SELECT k, id FROM b",
    "branch 2 of UNION ALL has 2 columns, the first has 1",
    "select the same columns",
    (3, 3)
)]
#[case::distinct(
    "SELECT k FROM a\n UNION SELECT k FROM b",
    "UNION without ALL keeps one of equal rows",
    "SELECT DISTINCT k FROM (… UNION ALL …) AS u",
    (2, 2)
)]
#[case::aggregates_in_branches(
    "SELECT k, count(*) AS c FROM a GROUP BY k UNION ALL\nSELECT k, count(*) AS c FROM b GROUP BY k",
    "an aggregate in a branch",
    "make a view of each branch and UNION ALL them in the query",
    (1, 62)
)]
#[case::limit_in_a_branch(
    "SELECT k FROM a UNION ALL\n(SELECT k FROM b ORDER BY k LIMIT 3)",
    "LIMIT in a branch",
    "sort and limit around the UNION ALL",
    (2, 29)
)]
#[case::column_of_a_branch(
    "SELECT k FROM a UNION ALL\nSELECT kk FROM b",
    "there is no column kk",
    "did you mean k?",
    (2, 8)
)]
#[case::column_around(
    "SELECT kk, count(*) AS c\nFROM (SELECT k FROM a UNION ALL SELECT k FROM b) AS u GROUP BY kk",
    "there is no column kk",
    "did you mean k?",
    (1, 38)
)]
#[case::name_of_the_second(
    "SELECT j, count(*) AS c FROM (SELECT k FROM a UNION ALL SELECT k AS j FROM b) AS u GROUP BY j",
    "there is no column j",
    "",
    (1, 38)
)]
#[case::behind_a_renamed_branch(
    "SELECT k, count(*) AS c FROM (SELECT k FROM a UNION ALL SELECT CAST(id AS TEXT) FROM b) AS u WHERE k > now() GROUP BY k",
    "now()",
    "use the event's own columns",
    (1, 134)
)]
#[case::windows(
    "SELECT w, count(*) AS c FROM (SELECT window_end AS w FROM HOP(a, at, INTERVAL '1 minute', INTERVAL '1 hour') UNION ALL\n\
     SELECT window_end FROM HOP(b, at, INTERVAL '2 minutes', INTERVAL '1 hour')) AS u GROUP BY w",
    "branch 2 of UNION ALL makes other states than the first",
    "the same windows",
    (2, 1)
)]
#[case::sessions(
    "SELECT k, count(*) AS c FROM (SELECT k, window_start AS w, window_end AS e FROM SESSION(a, k, at, INTERVAL '1 minute') \
     UNION ALL SELECT k, window_start, window_end FROM SESSION(b, k, at, INTERVAL '1 minute')) AS u GROUP BY k, w, e",
    "SESSION in a view over UNION ALL",
    "make a view of each branch",
    (1, 111)
)]
#[case::table_that_changes(
    "SELECT name, count(*) AS c FROM (SELECT k FROM a UNION ALL SELECT k FROM b) AS u JOIN d ON u.k = d.k GROUP BY name",
    "table d is joined when the view is read",
    "join = 'pinned'",
    (1, 112)
)]
#[case::no_stream(
    "SELECT k FROM a UNION ALL SELECT 'x'",
    "reads no stream",
    "",
    (1, 57)
)]
#[case::table_alone(
    "SELECT k FROM a UNION ALL SELECT k FROM p",
    "reads no stream",
    "",
    (1, 66)
)]
#[case::second_union(
    "SELECT k FROM (SELECT k FROM a UNION ALL SELECT k FROM b) AS u UNION ALL SELECT k FROM a",
    "a second UNION",
    "one behind the other",
    (1, 94)
)]
#[case::except("SELECT k FROM a UNION ALL SELECT k FROM b EXCEPT SELECT k FROM a", "", "", (0, 0))]
#[case::subquery("SELECT count(*) AS c FROM a WHERE k IN (SELECT k FROM a UNION ALL SELECT k FROM b)", "", "", (0, 0))]
#[case::join_of_streams(
    "SELECT count(*) AS c FROM a JOIN (SELECT k FROM b UNION ALL SELECT k FROM b) AS u ON a.k = u.k",
    "a join of the streams",
    "make a view of each stream",
    (1, 59)
)]
#[case::platforms_columns(
    "SELECT count(*) AS c FROM (SELECT * FROM a UNION ALL SELECT CAST(id AS TEXT), k, CAST(n AS BIGINT), at FROM b) AS u WHERE _offset > 1",
    "there is no column _offset",
    "",
    (1, 153)
)]
#[tokio::test(flavor = "multi_thread")]
async fn no_union_of_branches(
    #[case] select: &str,
    #[case] what: &str,
    #[case] hint: &str,
    #[case] (line, column): (u64, u64),
) {
    let folder = tempfile::tempdir().unwrap();
    let server = platform(folder.path()).await;
    let statement = format!("CREATE MATERIALIZED VIEW v AS {select}");
    let problem = server.client.refused(&statement).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(what), "{problem}");
    assert!(problem["hint"].as_str().unwrap_or_default().contains(hint), "{problem}");
    assert_ne!(problem["code"], "internal", "{problem}");
    if line > 0 {
        let expected = statement.lines().nth(line as usize - 1).unwrap();
        assert_eq!(problem["position"], json!({ "line": line, "column": column }), "{detail}");
        // the user's own text, and one caret below it
        assert!(detail.contains(&expected[..expected.len().min(40)]) || expected.len() > 100, "{detail}");
        assert_eq!(detail.matches('^').count(), 1, "{detail}");
    }
    assert_eq!(views(&server.client).await, 0, "nothing was created");
    server.stop().await;
}

/// Texts of all kinds are one type; a pinned table is joined; what the hints say works.
#[rstest]
#[case("SELECT k, sum(n) AS n FROM (SELECT k, n FROM a UNION ALL SELECT k, CAST(n AS BIGINT) FROM b) AS u GROUP BY k")]
#[case("SELECT DISTINCT k FROM (SELECT k FROM a UNION ALL SELECT k FROM b) AS u")]
#[case(
    "SELECT s, max(t) AS t FROM (SELECT 'a' AS s, k AS t FROM a UNION ALL SELECT upper(k), 'b' FROM b) AS u GROUP BY s"
)]
#[case(
    "SELECT name, count(*) AS c FROM (SELECT k FROM a UNION ALL SELECT k FROM b) AS u JOIN p ON u.k = p.k GROUP BY name"
)]
#[case(
    "SELECT name, count(*) AS c FROM (SELECT name FROM a JOIN p ON a.k = p.k UNION ALL SELECT k FROM b) AS u GROUP BY name"
)]
#[case(
    "WITH x AS (SELECT k FROM a), y AS (SELECT k FROM b) SELECT k, count(*) AS c FROM (SELECT * FROM x UNION ALL SELECT * FROM y) AS u GROUP BY k"
)]
#[case("WITH u AS (SELECT k FROM a UNION ALL SELECT k FROM b) SELECT k, count(*) AS c FROM u GROUP BY ROLLUP (k)")]
#[case("SELECT * FROM a UNION ALL SELECT CAST(id AS TEXT), k, CAST(n AS BIGINT), at FROM b ORDER BY at DESC LIMIT 10")]
#[tokio::test(flavor = "multi_thread")]
async fn unions_that_are_taken(#[case] select: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = platform(folder.path()).await;
    let client = &server.client;
    client.sql(&format!("CREATE MATERIALIZED VIEW v AS {select}")).await;
    let line = |id: &str| format!("{{\"id\":{id},\"k\":\"x\",\"n\":1,\"at\":\"2024-01-01T00:00:00Z\"}}\n");
    client.ingest("a", line("\"1\"")).await;
    client.ingest("b", line("2")).await;
    // what the query says over the same rows, as one view of each stream
    client
        .sql("CREATE MATERIALIZED VIEW all_a AS SELECT * FROM a; CREATE MATERIALIZED VIEW all_b AS SELECT * FROM b")
        .await;
    for view in ["all_a", "all_b"] {
        client.wait_ready(view).await;
    }
    let plain = select.replace("FROM a", "FROM all_a AS a").replace("FROM b", "FROM all_b AS b");
    let columns = |answer: &serde_json::Value| {
        let mut rows: Vec<String> = answer["rows"].as_array().unwrap().iter().map(ToString::to_string).collect();
        rows.sort();
        rows
    };
    let expected = columns(&client.sql(&plain).await);
    assert!(!expected.is_empty());
    assert_eq!(columns(&client.sql("SELECT * FROM v").await), expected);
    client.sql("REFRESH MATERIALIZED VIEW v").await;
    assert_eq!(columns(&client.sql("SELECT * FROM batch.v").await), expected);
    server.stop().await;
}

#[rstest]
#[case::update("GET", "/v1/views/v/changes?mode=update")]
#[case::complete("GET", "/v1/views/v/changes?mode=complete")]
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_those_of_the_parts(#[case] method: &str, #[case] path: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = platform(folder.path()).await;
    let client = &server.client;
    client.sql("CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM (SELECT k FROM a UNION ALL SELECT k FROM b) AS u GROUP BY k").await;
    let answer = client.request(method, path).send().await.unwrap();
    assert_eq!(answer.status(), 501);
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert!(problem["hint"].as_str().unwrap().contains("v_part1, v_part2"), "{problem}");
    let sink = client.refused("CREATE SINK out FROM v WITH (type = 'stdout')").await;
    assert!(sink["detail"].as_str().unwrap().contains("made of several views"), "{sink}");
    assert_eq!(sink["position"]["column"], 22, "{sink}");
    client.sql("CREATE SINK out FROM v_part2 WITH (type = 'stdout')").await;
    server.stop().await;
}
