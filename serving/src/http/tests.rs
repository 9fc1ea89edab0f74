use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use rstest::rstest;
use schemas::documents::certificate::{CellCheck, Certificate, Digest, InputCheck, LedgerCheck, OracleCheck};
use schemas::documents::run::RunState;
use schemas::{LedgerCounts, PositionToken, Verdict};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::{HttpState, router};
use crate::testing::{Event, NOW_US, Recorder, World, by_country, run_document};

struct Door {
    router: axum::Router,
    recorder: Arc<Recorder>,
}

impl Door {
    fn of(world: World) -> Self {
        let recorder = Arc::new(Recorder::default());
        let state = HttpState { engine: world.engine(), statements: Arc::clone(&recorder) as Arc<_> };
        Self { router: router(state), recorder }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        parsed(self.send(Method::GET, path, Body::empty(), &[]).await).await
    }

    async fn sql(&self, body: Value) -> (StatusCode, Value) {
        parsed(self.send(Method::POST, "/v1/sql", body.to_string(), &[]).await).await
    }
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
}

async fn parsed(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = text(response).await;
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

#[tokio::test]
async fn post_sql_answers_a_query() {
    let door = Door::of(by_country().await);
    let sql = "SELECT country, n FROM by_country WHERE n > $1 ORDER BY country";
    let (status, answer) = door.sql(json!({"sql": sql, "params": [1], "row_limit": 10})).await;
    assert_eq!(status, 200);
    assert_eq!(answer["rows"], json!([["KR", 4], [null, 2]]));
    assert_eq!(answer["columns"][1], json!({"name": "n", "type": "BIGINT"}));
    assert_eq!(answer["freshness"]["views"][0]["batch"]["run"], 7);
}

#[tokio::test]
async fn get_sql_reads_and_writes_nothing() {
    let door = Door::of(by_country().await);
    let (status, answer) = door.get("/v1/sql?q=SELECT+sum(n)+FROM+by_country&timeout=5s").await;
    assert_eq!((status, &answer["rows"]), (StatusCode::OK, &json!([[10]])));
    let (status, problem) = door.get("/v1/sql?q=DROP+STREAM+clicks").await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_IMPLEMENTED, &json!("unsupported")));
    let (status, problem) = door.get("/v1/sql?q=SELECT+1%3B+DROP+STREAM+clicks").await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_IMPLEMENTED, &json!("unsupported")));
    assert!(door.recorder.0.lock().is_empty());
    assert_eq!(door.get("/v1/sql").await.0, 400);
    assert_eq!(door.get("/v1/sql?q=SELECT+1&nope=1").await.0, 400);
}

#[tokio::test]
async fn script_runs_in_order_and_answers_with_the_last() {
    let door = Door::of(by_country().await);
    let sql = "DROP STREAM a;\nDROP STREAM b; SELECT n FROM by_country WHERE country = 'KR'";
    let (status, answer) = door.sql(json!({"sql": sql, "files": {"x.csv": "a"}})).await;
    assert_eq!((status, &answer["rows"]), (StatusCode::OK, &json!([[4]])));
    assert_eq!(answer["results"], json!(["done", "done", "1 rows"]));
    let done = door.recorder.0.lock().clone();
    assert_eq!(done, ["DROP STREAM a files=1 dry_run=false", "DROP STREAM b files=1 dry_run=false"]);
}

#[tokio::test]
async fn dry_run_checks_and_reads_nothing() {
    let door = Door::of(by_country().await);
    let (status, answer) = door.sql(json!({"sql": "DROP STREAM a; SELECT * FROM made_above", "dry_run": true})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(door.recorder.0.lock().clone(), ["DROP STREAM a files=0 dry_run=true"]);
}

#[rstest]
#[case("SELECT 1;\n  SELECT countri FROM by_country", "not_found", 2, 10)]
#[case("SELECT 1;\nSELECT *\n  FROM nope", "not_found", 3, 8)]
#[case("SELECT 1;\n\n DROP STREAM forbidden", "invalid_sql", 3, 7)]
#[case("SELECT 1;\nSELECT 1 +", "syntax_error", 2, 0)]
#[tokio::test]
async fn errors_have_their_place_in_the_script(
    #[case] sql: &str,
    #[case] code: &str,
    #[case] line: u64,
    #[case] column: u64,
) {
    let door = Door::of(by_country().await);
    let response = door.send(Method::POST, "/v1/sql", json!({"sql": sql}).to_string(), &[]).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let (_, problem) = parsed(response).await;
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["position"]["line"], line, "{problem}");
    if column > 0 {
        assert_eq!(problem["position"]["column"], column, "{problem}");
    }
    assert!(problem["detail"].as_str().unwrap().ends_with('^'), "{problem}");
    assert_eq!(problem["detail"].as_str().unwrap().matches("(line").count(), 1, "{problem}");
}

#[rstest]
#[case("{", "bad_request", 400)]
#[case("{\"sql\": 1}", "bad_request", 400)]
#[case("{\"sql\": \"SELECT 1\", \"nope\": 1}", "bad_request", 400)]
#[case("{\"sql\": \" -- nothing\"}", "bad_request", 400)]
#[case("{\"sql\": \"SELECT 1\", \"at_least\": \"noise\"}", "bad_request", 400)]
#[case("{\"sql\": \"SELECT 1\", \"max_staleness\": \"soon\"}", "bad_request", 400)]
#[case("{\"sql\": \"SELECT $1\", \"params\": [{}]}", "bad_request", 400)]
#[tokio::test]
async fn unreadable_request_is_refused(#[case] body: &'static str, #[case] code: &str, #[case] status: u16) {
    let door = Door::of(by_country().await);
    let (found, problem) = parsed(door.send(Method::POST, "/v1/sql", body, &[]).await).await;
    assert_eq!((found.as_u16(), &problem["code"]), (status, &json!(code)), "{problem}");
}

#[tokio::test]
async fn content_type_that_is_no_json_is_refused() {
    let door = Door::of(by_country().await);
    let headers = [("content-type", "text/xml")];
    assert_eq!(door.send(Method::POST, "/v1/sql", "<sql/>", &headers).await.status(), 415);
}

#[tokio::test]
async fn body_beyond_the_limit_and_wrong_method_are_problems() {
    let mut world = by_country().await;
    world.limits.body_bytes_max = 1_000;
    let door = Door::of(world);
    let (status, problem) = parsed(door.send(Method::POST, "/v1/sql", " ".repeat(1_001), &[]).await).await;
    assert_eq!((status.as_u16(), &problem["code"]), (413, &json!("payload_too_large")));
    let refused = door.send(Method::PATCH, "/v1/sql", "", &[]).await;
    assert_eq!(refused.headers()["allow"], "POST,GET,HEAD");
    let (status, problem) = parsed(refused).await;
    assert_eq!((status.as_u16(), &problem["code"]), (405, &json!("method_not_allowed")));
    let garbled = door.send(Method::DELETE, "/v1/streams/%FF", "", &[]).await;
    assert_eq!(garbled.headers()["content-type"], "application/problem+json");
    assert_eq!(parsed(garbled).await.1["code"], "bad_request");
}

#[tokio::test]
async fn at_least_is_one_token_or_several() {
    let door = Door::of(by_country().await);
    let token = |offset| PositionToken { incarnation: Uuid::from_u128(2), cut: schemas::Cut(vec![offset]) }.to_string();
    let sql = "SELECT * FROM by_country";
    assert_eq!(door.sql(json!({"sql": sql, "at_least": token(10)})).await.0, 200);
    let (status, problem) = door.sql(json!({"sql": sql, "at_least": [token(1), token(11)]})).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("stale")));
    assert_eq!(problem["retryable"], true);
}

#[tokio::test]
async fn other_formats_carry_the_freshness_in_headers() {
    let door = Door::of(by_country().await);
    let path = "/v1/sql?q=SELECT+country,n+FROM+by_country+WHERE+n%3E3";
    let response = door.send(Method::GET, path, Body::empty(), &[("accept", "text/csv")]).await;
    let headers = response.headers().clone();
    assert_eq!(text(response).await, "country,n\r\nKR,4\r\n");
    assert_eq!(headers["content-type"], "text/csv; charset=utf-8; header=present");
    assert_eq!(headers["bifold-as-of"], "2026-05-28T20:26:40.000000Z");
    assert_eq!(headers["bifold-run"], "by_country=7");
    assert_eq!(headers["bifold-cut"], "by_country=0:5");
    assert_eq!(headers["bifold-speed-to"], "by_country=0:10");
    assert_eq!(headers["bifold-lag-ms"], "0");
    assert_eq!(headers["bifold-truncated"], "false");
    let lines = text(door.send(Method::GET, &format!("{path}&format=ndjson"), Body::empty(), &[]).await).await;
    let end: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&end["end"], &end["rows"]), (&json!(true), &json!(1)));
    let arrow = door.send(Method::GET, &format!("{path}&format=arrow"), Body::empty(), &[]).await;
    assert_eq!(arrow.headers()["content-type"], "application/vnd.apache.arrow.stream");
    assert_eq!(door.get(&format!("{path}&format=xml")).await.0, 400);
}

#[rstest]
#[case("country=eq.KR", json!([["KR", 4, 90.0, 45.0]]))]
#[case("country=eq.KR&select=n,country", json!([[4, "KR"]]))]
#[case("country=eq.XX", json!([]))]
#[case("country=neq.KR&select=country&order=country", json!([["AT"], ["DE"], ["FR"], ["US"]]))]
#[case("n=gte.2&select=country&order=n.desc", json!([["KR"], [null]]))]
#[case("n=lt.2&total=gt.1&select=country", json!([["US"]]))]
#[case("total=lte.0.25&select=country", json!([["AT"]]))]
#[case("country=in.(KR,\"US\")&select=country&order=country.desc", json!([["US"], ["KR"]]))]
#[case("country=not.in.(KR,US,AT,DE)&select=country", json!([["FR"]]))]
#[case("country=is.null&select=n", json!([[2]]))]
#[case("country=not.is.null&select=country&order=country&limit=2", json!([["AT"], ["DE"]]))]
#[case("country=like.*R&select=country&order=country", json!([["FR"], ["KR"]]))]
#[case("country=ilike.k*&select=country", json!([["KR"]]))]
#[case("select=country&order=country.asc.nullsfirst&limit=2", json!([[null], ["AT"]]))]
#[case("select=country&order=country.asc.nullslast&limit=1&offset=5", json!([[null]]))]
#[case("country=eq.KR';DROP TABLE x--", json!([]))]
#[tokio::test]
async fn filters_select_rows(#[case] query: &str, #[case] rows: Value) {
    let door = Door::of(by_country().await);
    let encoded = query.replace(' ', "%20").replace('"', "%22");
    let (status, answer) = door.get(&format!("/v1/views/by_country?{encoded}")).await;
    assert_eq!((status, &answer["rows"]), (StatusCode::OK, &rows), "{answer}");
    assert_eq!(answer["freshness"]["views"][0]["view"], "by_country");
}

#[rstest]
#[case("by_country?countri=eq.KR", 404, "did you mean country?")]
#[case("by_country?country=KR", 400, "")]
#[case("by_country?n=eq.many", 400, "")]
#[case("by_country?order=n.down", 400, "")]
#[case("by_country?select=nope", 404, "")]
#[case("by_country?limit=-1", 400, "")]
#[case("by_country?limit=0", 400, "")]
#[case("by_country?row_limit=0", 400, "")]
#[case("%FF", 400, "")]
#[case("by_country?country=in.KR", 400, "")]
#[case("by_country?country=is.maybe", 400, "")]
#[case("by_contry", 404, "did you mean by_country?")]
#[tokio::test]
async fn wrong_filters_are_refused(#[case] path: &str, #[case] status: u16, #[case] hint: &str) {
    let door = Door::of(by_country().await);
    let (found, problem) = door.get(&format!("/v1/views/{path}")).await;
    assert_eq!(found.as_u16(), status, "{problem}");
    assert!(problem["hint"].as_str().unwrap_or_default().contains(hint), "{problem}");
}

#[tokio::test]
async fn pages_cover_the_view_once() {
    let door = Door::of(by_country().await);
    let (mut seen, mut cursor) = (vec![], String::from("0"));
    loop {
        let path = format!("/v1/views/by_country?select=country&limit=4&cursor={cursor}");
        let (_, answer) = door.get(&path).await;
        seen.extend(answer["rows"].as_array().unwrap().clone());
        match answer["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6);
    seen.sort_by_key(Value::to_string);
    seen.dedup();
    assert_eq!(seen.len(), 6);
}

#[tokio::test]
async fn runs_are_started_watched_and_cancelled() {
    let mut world = by_country().await;
    world.runs = vec![run_document(8, RunState::Running), run_document(7, RunState::Succeeded)];
    let door = Door::of(world);
    let started = door.send(Method::POST, "/v1/views/by_country/runs", Body::empty(), &[]).await;
    assert_eq!(started.status(), 202);
    assert_eq!(started.headers()["location"], "/v1/runs/8");
    assert_eq!(started.headers()["content-type"], "application/json");
    let (_, body) = parsed(started).await;
    assert_eq!((&body["state"], &body["kind"]), (&json!("queued"), &json!("full")));
    let (_, run) = door.get("/v1/runs/8?wait=1s").await;
    assert_eq!((&run["id"], &run["rows"], &run["rows_total"]), (&json!(8), &json!(25), &json!(100)));
    assert_eq!(run["started_at"], "2026-05-28T20:26:32.000000Z");
    assert_eq!(door.get("/v1/runs").await.1["runs"].as_array().unwrap().len(), 2);
    assert_eq!(door.get("/v1/runs/9").await.0, 404);
    assert_eq!(door.get("/v1/runs/x").await.0, 404);
    assert_eq!(door.get("/v1/runs/8?wait=forever").await.0, 400);
    let cancelled = door.send(Method::DELETE, "/v1/runs/8", Body::empty(), &[]).await;
    assert_eq!(parsed(cancelled).await.1["state"], "cancelled");
    let unknown = door.send(Method::POST, "/v1/views/nope/runs", Body::empty(), &[]).await;
    assert_eq!(unknown.status(), 404);
}

fn certificate() -> Certificate {
    let digest = || Digest { records: 5, hash: "00".into() };
    Certificate {
        format: 1,
        run: 7,
        view: "by_country".into(),
        view_id: Uuid::from_u128(100),
        semantic_hash: "h".into(),
        verdict: Verdict::Violation,
        base_run: None,
        base_cut: [(0, 0)].into(),
        cut: [(0, 5)].into(),
        inputs: vec![InputCheck { partition: 0, from: 0, to: 5, landed: digest(), folded: digest(), equal: true }],
        ledger: LedgerCheck { appended: 5, batch: LedgerCounts::default(), speed: None, balance: 5, intake: None },
        cells: CellCheck { compared: 4, differing: 0, samples: vec![], skipped: None },
        oracle: OracleCheck { sampled: 0, differing: 0, skipped: Some("no raw files".into()), samples: vec![] },
        explanations: vec![],
        violations: vec!["5 records are in <no> class".into()],
        created_at_us: NOW_US,
        audit_ms: 3,
    }
}

#[tokio::test]
async fn certificates_are_json_for_programs_and_a_page_for_people() {
    let mut world = by_country().await;
    world.certificates = vec![certificate()];
    let door = Door::of(world);
    let (status, one) = door.get("/v1/views/by_country/certificates/7").await;
    assert_eq!((status, &one["verdict"], &one["cut"]), (StatusCode::OK, &json!("violation"), &json!({"0": 5})));
    assert_eq!(one["created_at"], "2026-05-28T20:26:40.000000Z");
    let (_, all) = door.get("/v1/views/by_country/certificates").await;
    assert_eq!(all["certificates"][0]["run"], 7);
    let headers = [("accept", "text/html,*/*")];
    let page = door.send(Method::GET, "/v1/views/by_country/certificates/latest", Body::empty(), &headers).await;
    let page = text(page).await;
    assert!(page.contains("5 records are in &lt;no&gt; class"), "{page}");
    assert_eq!(door.get("/v1/views/by_country/certificates/9").await.0, 404);
    assert_eq!(door.get("/v1/views/nope/certificates").await.0, 404);
    let (_, recon) = door.sql(json!({"sql": "SELECT \"check\", ok FROM recon.by_country WHERE NOT ok"})).await;
    assert_eq!(recon["rows"], json!([["ledger", false], ["violation", false], ["verdict", false]]));
}

#[tokio::test]
async fn table_of_only_the_newest_says_so() {
    for (count, cut) in [(1_000, false), (1_001, true)] {
        let mut world = by_country().await;
        world.certificates = vec![certificate(); count];
        world.runs = vec![run_document(7, RunState::Succeeded); count];
        let door = Door::of(world);
        for table in ["runs", "certificates"] {
            let (_, answer) = door.sql(json!({"sql": format!("SELECT count(*) FROM system.{table}")})).await;
            assert_eq!(answer["rows"], json!([[1_000]]));
            assert_eq!(answer["truncated"], json!(cut), "{answer}");
            assert_eq!(answer["freshness"]["complete"], json!(!cut), "{answer}");
        }
    }
}

#[tokio::test]
async fn catalogue_is_listed_and_changed() {
    let door = Door::of(by_country().await);
    let (_, streams) = door.get("/v1/streams").await;
    assert_eq!(streams["streams"][0]["name"], "clicks");
    let (_, stream) = door.get("/v1/streams/clicks").await;
    assert_eq!(stream["columns"][0], json!({"name": "country", "type": "TEXT", "nullable": true}));
    assert_eq!(stream["views"], json!(["by_country"]));
    assert_eq!(door.get("/v1/streams/click").await.1["hint"], "did you mean clicks?");
    let (_, views) = door.get("/v1/views").await;
    assert_eq!((&views["views"][0]["stream"], &views["views"][0]["refresh"]), (&json!("clicks"), &json!("MANUAL")));
    let create = json!({"sql": "CREATE STREAM s (a INT)"}).to_string();
    assert_eq!(door.send(Method::POST, "/v1/streams", create.clone(), &[]).await.status(), 201);
    assert_eq!(door.send(Method::POST, "/v1/views", create, &[]).await.status(), 400);
    let dropped = door.send(Method::DELETE, "/v1/streams/odd%22name", Body::empty(), &[]).await;
    assert_eq!(dropped.status(), 200);
    let dropped = door.send(Method::DELETE, "/v1/views/by_country", Body::empty(), &[]).await;
    assert_eq!(dropped.status(), 200);
    let done = door.recorder.0.lock().clone();
    assert_eq!(done[1], "DROP STREAM \"odd\"\"name\" files=0 dry_run=false");
    assert_eq!(done[2], "DROP MATERIALIZED VIEW \"by_country\" files=0 dry_run=false");
}

#[tokio::test]
async fn status_shows_streams_and_views() {
    let mut world = by_country().await;
    world.runs = vec![run_document(8, RunState::Running)];
    world.snapshot.oldest_missing_us = Some(NOW_US - 7_000);
    let (status, answer) = Door::of(world).get("/v1/status").await;
    assert_eq!(status, 200);
    assert_eq!(answer["runs"], json!({"queued": 0, "running": 1}));
    assert_eq!(answer["streams"][0]["lag_ms"], 7);
    assert_eq!(answer["streams"][0]["views"][0]["run"], 7);
    assert_eq!(answer["streams"][0]["dead_letters"], 2);
}

#[tokio::test]
async fn view_that_sorts_and_limits_is_looked_up_by_sql() {
    let events: [Event; 3] = [(Some("KR"), 1.0, 1), (Some("KR"), 1.0, 2), (Some("DE"), 1.0, 3)];
    let sql = "SELECT country, count(*) AS n FROM clicks GROUP BY country ORDER BY n DESC LIMIT 1";
    let door = Door::of(World::new().with_view("top", sql, None, &[&events]).await);
    assert_eq!(door.get("/v1/views/top?country=eq.KR").await.1["rows"], json!([["KR", 2]]));
    assert_eq!(door.get("/v1/views/top?country=eq.DE").await.1["rows"], json!([]));
}
