//! What could not be merged exactly is refused at `CREATE`, with the reason; errors have line, column,
//! caret and hint.

use rstest::rstest;
use serde_json::Value;

use crate::harness::Server;

const STREAM: &str = "CREATE STREAM s (id TEXT NOT NULL, k TEXT, x DOUBLE PRECISION, n BIGINT, at TIMESTAMPTZ NOT NULL, \
    PRIMARY KEY (id), WATERMARK FOR at AS at)";

#[rstest]
#[case::nested("SELECT avg(c) FROM (SELECT k, count(*) AS c FROM s GROUP BY k) AS q", "aggregate over an aggregate")]
#[case::median("SELECT k, median(x) FROM s GROUP BY k", "approx_percentile_cont")]
#[case::median_exact("SELECT k, median(x) FROM s GROUP BY k", "median_exact(x)")]
#[case::nth_value("SELECT k, nth_value(x, 2) FROM s GROUP BY k", "first_value(x ORDER BY k)")]
#[case::distinct_pairs("SELECT k, corr(DISTINCT x, n) FROM s GROUP BY k", "leave DISTINCT out")]
#[case::distinct_order("SELECT k, array_agg(DISTINCT x ORDER BY n) FROM s GROUP BY k", "ordered by x alone")]
#[case::separator("SELECT k, string_agg(k, id) FROM s GROUP BY k", "separator must be a constant")]
#[case::now("SELECT k, count(*) FROM s WHERE at > now() GROUP BY k", "now()")]
#[case::random("SELECT random() AS r, count(*) FROM s GROUP BY 1", "random()")]
#[case::window(
    "SELECT k, count(*) FROM (SELECT k, row_number() OVER (ORDER BY at) AS r FROM s) AS q GROUP BY k",
    "window function"
)]
#[case::limit("SELECT k, count(*) FROM (SELECT * FROM s LIMIT 3) AS q GROUP BY k", "LIMIT below the aggregate")]
#[case::self_join("SELECT a.k, count(*) FROM s AS a JOIN s AS b ON a.id = b.id GROUP BY a.k", "stream with a stream")]
#[case::other_stream("SELECT s.k, count(*) FROM s JOIN t ON s.id = t.id GROUP BY s.k", "the streams")]
#[case::distinct_on("SELECT DISTINCT ON (k) k, x FROM s", "first_value(x ORDER BY k)")]
#[case::distinct_inside("SELECT count(*) FROM (SELECT DISTINCT k FROM s) AS q", "DISTINCT")]
#[case::subquery("SELECT k, count(*) FROM s WHERE x > (SELECT max(x) FROM s) GROUP BY k", "")]
#[case::month_window(
    "SELECT window_start, count(*) FROM TUMBLE(s, at, INTERVAL '1 month') GROUP BY 1",
    "no fixed length"
)]
#[case::view_over_view("SELECT k, count(*) FROM v GROUP BY k", "view")]
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_cannot_be_merged_is_refused(#[case] select: &str, #[case] words: &str) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(STREAM).await;
    server.client.sql("CREATE STREAM t (id TEXT NOT NULL, PRIMARY KEY (id))").await;
    server.client.sql("CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM s GROUP BY k").await;
    let problem = server.client.refused(&format!("CREATE MATERIALIZED VIEW refused AS {select}")).await;
    let text = format!("{} {}", problem["detail"].as_str().unwrap(), problem["hint"].as_str().unwrap_or_default());
    assert!(text.contains(words), "{text}");
    assert_ne!(problem["code"], "internal", "{text}");
    let views = server.client.sql("SHOW MATERIALIZED VIEWS").await;
    assert_eq!(views["row_count"], 1, "nothing was created: {views}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_point_at_the_place_and_suggest_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.client.sql(STREAM).await;
    let view = "CREATE MATERIALIZED VIEW v AS\n  SELECT k, sum(nn) AS total\n  FROM s GROUP BY k";
    let problem = server.client.refused(view).await;
    assert_eq!(problem["position"], serde_json::json!({ "line": 2, "column": 17 }), "{problem}");
    assert!(problem["detail"].as_str().unwrap().ends_with("                  ^"), "{problem}");
    assert_eq!(problem["hint"], "did you mean n?");
    let problem = server.client.refused("SELECT * FROM ss").await;
    assert_eq!(problem["code"], "not_found", "{problem}");
    let problem = server.client.refused("SELEC 1").await;
    assert_eq!(problem["code"], "syntax_error", "{problem}");
    for write in ["INSERT INTO s VALUES (1)", "DROP TABLE s", "COPY s TO 'x'", "SET a = 1"] {
        let problem = server.client.refused(write).await;
        assert_ne!(problem["code"], "internal", "{write}: {problem}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_the_token_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let http = reqwest::Client::new();
    let url = server.platform.url();
    for (path, token, status) in [
        ("/v1/streams", None, 401),
        ("/v1/streams", Some("wrong"), 401),
        ("/healthz", None, 200),
        ("/readyz", None, 200),
        ("/metrics", None, 200),
        ("/v1/nothing", Some("wrong"), 401),
    ] {
        let mut request = http.get(format!("{url}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        if status == 401 {
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], "unauthorized");
        }
    }
    server.stop().await;
}

/// A known route with another method, and a path that nobody knows, are problems like any other. (RFC 9457)
#[rstest]
#[case::open("POST", "/healthz", 405, "method_not_allowed", Some("GET,HEAD"))]
#[case::readiness("DELETE", "/readyz", 405, "method_not_allowed", Some("GET,HEAD"))]
#[case::metrics("PUT", "/metrics", 405, "method_not_allowed", Some("GET,HEAD"))]
#[case::ingest("GET", "/v1/streams/s/events", 405, "method_not_allowed", Some("POST"))]
#[case::sql("DELETE", "/v1/sql", 405, "method_not_allowed", Some("POST,GET,HEAD"))]
#[case::views("PATCH", "/v1/views", 405, "method_not_allowed", Some("GET,HEAD,POST"))]
#[case::runs("POST", "/v1/runs/1", 405, "method_not_allowed", Some("GET,HEAD,DELETE"))]
#[case::unknown("GET", "/v1/nothing", 404, "unknown_route", None)]
#[case::unknown_root("POST", "/nothing", 404, "unknown_route", None)]
#[case::garbled("POST", "/v1/streams/%FF/events", 400, "bad_request", None)]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_no_route_takes_is_a_problem(
    #[case] method: &str,
    #[case] path: &str,
    #[case] status: u16,
    #[case] code: &str,
    #[case] allow: Option<&str>,
) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let answer = server.client.request(method, path).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.headers().get("allow").map(|value| value.to_str().unwrap()), allow);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{problem}");
    server.stop().await;
}
