use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use datafusion::scalar::ScalarValue;
use rstest::rstest;
use schemas::documents::manifest::Manifest;
use schemas::documents::run::RunState;
use schemas::problem::SqlPosition;
use schemas::{Code, Cut, PositionToken, Problem};
use serde_json::{Value, json};
use storage::snapshot::ViewSnapshot;
use uuid::Uuid;

use super::{QueryAnswer, QueryEngine, QueryRequest, params_from_json};
use crate::format::{Format, body};
use crate::testing::{Event, NOW_US, World, by_country, run_document};

mod memory;

fn rows(answer: &QueryAnswer) -> Value {
    let parsed: Value = serde_json::from_slice(&body(Format::Json, answer).unwrap()).unwrap();
    parsed["rows"].clone()
}

async fn ask(engine: &QueryEngine, sql: &str) -> Value {
    rows(&engine.query(&QueryRequest::new(sql)).await.unwrap())
}

async fn problem(engine: &QueryEngine, sql: &str) -> Problem {
    engine.query(&QueryRequest::new(sql)).await.unwrap_err()
}

#[tokio::test]
async fn layers_add_up() {
    let engine = by_country().await.engine();
    let ordered = "ORDER BY country NULLS FIRST";
    let merged = ask(&engine, &format!("SELECT country, n, total, twice FROM by_country {ordered}")).await;
    let expected = json!([
        [null, 2, 132.0, 132.0],
        ["AT", 1, 0.25, 0.5],
        ["DE", 1, 1.0, 2.0],
        ["FR", 1, 0.5, 1.0],
        ["KR", 4, 90.0, 45.0],
        ["US", 1, 32.0, 64.0]
    ]);
    assert_eq!(merged, expected);
    let batch = ask(&engine, &format!("SELECT country, n FROM batch.by_country {ordered}")).await;
    assert_eq!(batch, json!([[null, 1], ["DE", 1], ["FR", 1], ["KR", 2]]));
    let speed = ask(&engine, &format!("SELECT country, n FROM speed.by_country {ordered}")).await;
    assert_eq!(speed, json!([[null, 1], ["AT", 1], ["KR", 2], ["US", 1]]));
}

#[tokio::test]
async fn merged_view_is_an_ordinary_table() {
    let engine = by_country().await.engine();
    let filtered = ask(&engine, "SELECT n FROM by_country WHERE country = 'KR' AND total > 1").await;
    assert_eq!(filtered, json!([[4]]));
    let joined = "SELECT r.region, v.n FROM by_country v JOIN regions r USING (country) ORDER BY 1";
    assert_eq!(ask(&engine, joined).await, json!([["Asia", 4], ["Europe", 1]]));
    let ranked = "SELECT country, rank() OVER (ORDER BY total DESC) AS r FROM public.by_country ORDER BY r LIMIT 2";
    assert_eq!(ask(&engine, ranked).await, json!([[null, 1], ["KR", 2]]));
    let both = "WITH m AS (SELECT sum(n) AS n FROM by_country), b AS (SELECT sum(n) AS n FROM batch.by_country), \
                s AS (SELECT sum(n) AS n FROM speed.by_country) SELECT m.n, b.n, s.n FROM m, b, s";
    assert_eq!(ask(&engine, both).await, json!([[10, 5, 5]]));
}

#[tokio::test]
async fn one_snapshot_serves_a_whole_query() {
    // H5: every view and every layer of a query is at the same position
    let world = by_country().await;
    let taken = Arc::clone(&world.taken);
    let engine = world.engine();
    ask(&engine, "SELECT count(*) FROM by_country, batch.by_country b, speed.by_country s").await;
    assert_eq!(taken.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn look_up_answers_as_sql_does() {
    let engine = by_country().await.engine();
    for country in [Some("AT"), Some("DE"), Some("FR"), Some("KR"), Some("US"), Some("XX"), None] {
        let key = [ScalarValue::Utf8View(country.map(str::to_owned))];
        let found = engine.look_up("by_country", &key, &QueryRequest::default()).await.unwrap().unwrap();
        let filter = country.map_or("country IS NULL".to_owned(), |country| format!("country = '{country}'"));
        let asked = ask(&engine, &format!("SELECT * FROM by_country WHERE {filter}")).await;
        assert_eq!(rows(&found), asked, "{country:?}");
        assert_eq!(asked.as_array().unwrap().len(), usize::from(country != Some("XX")));
    }
}

#[tokio::test]
async fn look_up_finds_every_cell_of_a_prefix() {
    let at = |hour: i64| hour * 3_600;
    let batch: Vec<Event> = (0..6).map(|hour| (Some("KR"), 1.0, at(hour))).chain([(Some("DE"), 1.0, at(3))]).collect();
    let speed: [Event; 3] = [(Some("KR"), 1.0, at(3)), (Some("KR"), 1.0, at(9)), (Some("AT"), 1.0, at(3))];
    let sql = "SELECT date_trunc('hour', at) AS hour, country, count(*) AS n FROM clicks GROUP BY country, date_trunc('hour', at) HAVING count(*) < 9";
    let engine = World::new().with_view("by_hour", sql, Some(&batch), &[&speed]).await.engine();
    let key = [ScalarValue::Utf8View(Some("KR".into()))];
    let found = engine.look_up("by_hour", &key, &QueryRequest::default()).await.unwrap().unwrap();
    assert_eq!(found.row_count(), 7);
    let both = [key[0].clone(), ScalarValue::TimestampMicrosecond(Some(at(3) * 1_000_000), Some("UTC".into()))];
    let found = engine.look_up("by_hour", &both, &QueryRequest::default()).await.unwrap().unwrap();
    assert_eq!(rows(&found), json!([["1970-01-01T03:00:00.000000Z", "KR", 2]]));
    assert!(found.statistics.cells_read < 12, "{:?}", found.statistics);
    let wrong_type = [ScalarValue::Int64(Some(1))];
    assert!(engine.look_up("by_hour", &wrong_type, &QueryRequest::default()).await.unwrap().is_none());
}

#[tokio::test]
async fn freshness_is_the_coverage_that_was_read() {
    let mut world = by_country().await;
    world.snapshot.oldest_missing_us = Some(NOW_US - 4_000);
    let engine = world.engine();
    let answer = engine.query(&QueryRequest::new("SELECT * FROM by_country")).await.unwrap();
    let freshness = serde_json::to_value(&answer.freshness).unwrap();
    let expected = json!({
        "as_of": "2026-05-28T20:26:39.996000Z",
        "complete": true,
        "views": [{
            "view": "by_country",
            "version": 1,
            "batch": {"run": 7, "published_at": "2026-05-28T20:26:35.000000Z", "cut": {"0": 5}, "certificate": "exact"},
            "speed": {"from": {"0": 5}, "to": {"0": 10}, "watermark": "1970-01-01T00:00:30.000000Z", "lag_ms": 4,
                      "late_since_cut": 0}
        }]
    });
    assert_eq!(freshness, expected);
    let batch = engine.query(&QueryRequest::new("SELECT * FROM batch.by_country")).await.unwrap();
    assert!(batch.freshness.views[0].batch.is_some() && batch.freshness.views[0].speed.is_none());
    let both = "SELECT count(*) FROM batch.by_country, speed.by_country s";
    let both = engine.query(&QueryRequest::new(both)).await.unwrap();
    assert_eq!(both.freshness.views.len(), 1);
    assert!(both.freshness.views[0].batch.is_some() && both.freshness.views[0].speed.is_some());
}

#[tokio::test]
async fn statistics_count_what_was_read() {
    let engine = by_country().await.engine();
    let all = engine.query(&QueryRequest::new("SELECT * FROM by_country")).await.unwrap().statistics;
    assert_eq!(all.cells_read, 4 + 2 + 3);
    assert!(all.bytes_read > 0 && all.elapsed_ms > 0.0 && !all.query_id.is_empty());
    let speed = engine.query(&QueryRequest::new("SELECT * FROM speed.by_country")).await.unwrap().statistics;
    assert_eq!((speed.cells_read, speed.bytes_read), (5, 0));
}

#[tokio::test]
async fn row_limit_truncates_and_says_so() {
    let engine = by_country().await.engine();
    for (limit, expected) in [(0, true), (5, true), (6, false), (7, false)] {
        let request = QueryRequest { row_limit: Some(limit), ..QueryRequest::new("SELECT * FROM by_country") };
        let answer = engine.query(&request).await.unwrap();
        assert_eq!((answer.truncated, answer.row_count()), (expected, limit.min(6)));
    }
}

#[tokio::test]
async fn positions_are_waited_for_or_refused() {
    let engine = by_country().await.engine();
    let token =
        |incarnation: u128, offset| PositionToken { incarnation: Uuid::from_u128(incarnation), cut: Cut(vec![offset]) };
    let request = |token| QueryRequest { at_least: vec![token], ..QueryRequest::new("SELECT * FROM by_country") };
    assert!(engine.query(&request(token(2, 10))).await.is_ok());
    assert_eq!(engine.query(&request(token(2, 11))).await.unwrap_err().code, Code::Stale);
    assert_eq!(engine.query(&request(token(9, 1))).await.unwrap_err().code, Code::BadRequest);
    let never = QueryRequest { timeout: Some(Duration::from_millis(20)), ..request(token(2, u64::MAX)) };
    assert_eq!(engine.query(&never).await.unwrap_err().code, Code::Timeout);
}

#[tokio::test]
async fn batch_side_alone_ends_at_its_cut() {
    let engine = by_country().await.engine();
    let request = |sql: &str, offset| QueryRequest {
        at_least: vec![PositionToken { incarnation: Uuid::from_u128(2), cut: Cut(vec![offset]) }],
        ..QueryRequest::new(sql)
    };
    assert!(engine.query(&request("SELECT * FROM batch.by_country", 5)).await.is_ok());
    let stale = engine.query(&request("SELECT * FROM batch.by_country", 6)).await.unwrap_err();
    assert_eq!((stale.code, stale.status), (Code::Stale, 503), "{}", stale.detail);
    let both = "SELECT count(*) FROM batch.by_country, speed.by_country s";
    assert!(engine.query(&request(both, 10)).await.is_ok());
    let none = World::new().with_view("v", crate::testing::BY_COUNTRY, None, &[&[(None, 1.0, 1)]]).await.engine();
    assert_eq!(none.query(&request("SELECT * FROM batch.v", 1)).await.unwrap_err().code, Code::Stale);
}

#[tokio::test]
async fn answer_is_as_of_what_it_has_and_not_of_its_snapshot() {
    let mut world = by_country().await;
    // an idle stream's snapshot is kept: it is old, and has everything
    world.snapshot.taken_at_us = NOW_US - 3_600_000_000;
    let as_of =
        async |world: World, sql: &str| world.engine().query(&QueryRequest::new(sql)).await.unwrap().freshness.as_of;
    let now = "2026-05-28T20:26:40.000000Z";
    assert_eq!(as_of(world, "SELECT * FROM by_country").await, now);
    let batch = "SELECT * FROM batch.by_country";
    assert_eq!(as_of(by_country().await, batch).await, "2026-05-28T20:26:35.000000Z");
    let mut world = by_country().await;
    world.runs = vec![run_document(7, RunState::Succeeded)];
    assert_eq!(as_of(world, batch).await, "2026-05-28T20:26:32.000000Z");
}

#[tokio::test]
async fn dead_letters_that_are_not_shown_are_missed() {
    let mut world = by_country().await;
    world.limits.query_memory_bytes = 10;
    let engine = world.engine();
    let answer = engine.query(&QueryRequest::new("SELECT raw FROM dlq.clicks")).await.unwrap();
    assert_eq!((answer.row_count(), answer.truncated, answer.freshness.complete), (0, true, false));
    let engine = by_country().await.engine();
    let answer = engine.query(&QueryRequest::new("SELECT raw FROM dlq.clicks")).await.unwrap();
    assert_eq!((answer.row_count(), answer.truncated, answer.freshness.complete), (2, false, true));
}

#[tokio::test]
async fn queries_see_no_files_of_the_machine() {
    let engine = by_country().await.engine();
    let runtime = engine.base.runtime_env();
    assert!(runtime.object_store_registry.get_store(&url::Url::parse("file:///etc/passwd").unwrap()).is_err());
    assert!(runtime.object_store_registry.get_store(&url::Url::parse(crate::source::STORE_URL).unwrap()).is_ok());
}

#[tokio::test]
async fn endless_series_stops_at_the_limits() {
    let engine = by_country().await.engine();
    let series = "FROM generate_series(1, 9000000000000000000)";
    let limited = QueryRequest { row_limit: Some(3), ..QueryRequest::new(format!("SELECT value {series}")) };
    let answer = engine.query(&limited).await.unwrap();
    assert_eq!((answer.row_count(), answer.truncated), (3, true));
    let timeout = Some(Duration::from_millis(100));
    let counted = QueryRequest { timeout, ..QueryRequest::new(format!("SELECT sum(value % 7) {series}")) };
    assert_eq!(engine.query(&counted).await.unwrap_err().code, Code::Timeout);
}

#[tokio::test]
async fn staleness_is_held_to_its_bound() {
    let mut world = by_country().await;
    world.snapshot.oldest_missing_us = Some(NOW_US - 5_000_000);
    world.runs = vec![run_document(7, RunState::Succeeded)];
    let engine = world.engine();
    let request = |sql: &str, bound_ms| QueryRequest {
        max_staleness: Some(Duration::from_millis(bound_ms)),
        ..QueryRequest::new(sql)
    };
    assert!(engine.query(&request("SELECT * FROM by_country", 5_000)).await.is_ok());
    let stale = engine.query(&request("SELECT * FROM by_country", 4_999)).await.unwrap_err();
    assert_eq!((stale.code, stale.status), (Code::Stale, 503));
    assert!(stale.detail.contains("5000 ms behind"), "{}", stale.detail);
    // the batch view alone lacks everything since its run began
    let batch = engine.query(&request("SELECT * FROM batch.by_country", 7_999)).await.unwrap_err();
    assert!(batch.detail.contains("8000 ms behind"), "{}", batch.detail);
}

#[tokio::test]
async fn view_without_its_history_is_not_ready() {
    let mut world = by_country().await;
    world.change(|one: &mut ViewSnapshot| {
        one.from = one.manifest.take().unwrap().cut.clone();
    });
    world.runs = vec![run_document(7, RunState::Running)];
    let engine = world.engine();
    for sql in ["SELECT * FROM by_country", "SELECT * FROM batch.by_country"] {
        let problem = problem(&engine, sql).await;
        assert_eq!((problem.code, problem.retryable), (Code::NotReady, true));
        assert!(problem.detail.contains("run 7 has read 25 of 100 records (25 %)"), "{}", problem.detail);
    }
    assert_eq!(ask(&engine, "SELECT sum(n) FROM speed.by_country").await, json!([[5]]));
}

/// Deltas are searched by key: of the sorted range (KR, US) one cell is read, of the tail all three.
#[rstest]
#[case::key("country = 'KR'", json!([[2]]), 1 + 3)]
#[case::key_on_the_right("'US' = country", json!([[1]]), 1 + 3)]
#[case::key_and_more("country = 'KR' AND n > 0", json!([[2]]), 1 + 3)]
#[case::key_that_is_not_there("country = 'XX'", json!([[null]]), 3)]
#[case::either_key("country = 'KR' OR country = 'US'", json!([[3]]), 2 + 3)]
#[case::no_key("n > 0", json!([[5]]), 2 + 3)]
#[case::null_is_no_key("country IS NULL", json!([[1]]), 2 + 3)]
#[tokio::test]
async fn filter_on_the_key_reads_only_its_cells_of_a_delta(
    #[case] filter: &str,
    #[case] expected: Value,
    #[case] cells_read: u64,
) {
    let engine = by_country().await.engine();
    let sql = format!("SELECT sum(n) FROM speed.by_country WHERE {filter}");
    let answer = engine.query(&QueryRequest::new(&sql)).await.unwrap();
    assert_eq!((rows(&answer), answer.statistics.cells_read), (expected, cells_read));
}

#[tokio::test]
async fn batch_side_before_the_first_run_is_truly_empty() {
    let events: [Event; 1] = [(Some("KR"), 1.0, 1)];
    let engine = World::new().with_view("v", crate::testing::BY_COUNTRY, None, &[&events]).await.engine();
    assert_eq!(ask(&engine, "SELECT * FROM batch.v").await, json!([]));
    assert_eq!(ask(&engine, "SELECT n FROM v").await, json!([[1]]));
}

/// The batch view ends at 5, the ranges at 7 and 10 (H1, I7).
#[rstest]
#[case::behind_the_cut(|one: &mut ViewSnapshot| drop(one.ranges.remove(0)), "offsets 5 to 6 are missing")]
#[case::at_the_end(|one: &mut ViewSnapshot| drop(one.ranges.pop()), "offsets 7 to 9 are missing")]
#[case::no_range_at_all(|one: &mut ViewSnapshot| one.ranges.clear(), "offsets 5 to 9 are missing")]
#[case::range_twice(|one: &mut ViewSnapshot| one.ranges.insert(1, Arc::clone(&one.ranges[0])), "offsets 5 to 6 are there twice")]
#[case::older_batch_view(|one: &mut ViewSnapshot| replace_cut(one, 3), "offsets 3 to 4 are missing")]
#[case::newer_batch_view(|one: &mut ViewSnapshot| replace_cut(one, 6), "offsets 5 to 5 are there twice")]
#[tokio::test]
async fn hole_in_the_coverage_is_our_fault_and_never_a_number(
    #[case] spoil: fn(&mut ViewSnapshot),
    #[case] place: &str,
) {
    let mut world = by_country().await;
    world.change(spoil);
    let engine = world.engine();
    for layer in ["", "batch.", "speed."] {
        let problem = problem(&engine, &format!("SELECT * FROM {layer}by_country")).await;
        assert_eq!(problem.code, Code::Internal);
        assert_eq!(problem.detail, format!("view by_country: coverage broken: partition 0: {place}"));
    }
    let key = [ScalarValue::Utf8View(Some("KR".into()))];
    assert!(engine.look_up("by_country", &key, &QueryRequest::default()).await.is_err());
}

fn replace_cut(one: &mut ViewSnapshot, end: u64) {
    let manifest = one.manifest.take().unwrap();
    one.manifest = Some(Arc::new(Manifest { cut: Cut(vec![end]), ..Manifest::clone(&manifest) }));
}

#[tokio::test]
async fn states_of_another_meaning_are_not_merged() {
    let mut world = by_country().await;
    world.change(|one: &mut ViewSnapshot| {
        let manifest = one.manifest.take().unwrap();
        one.manifest = Some(Arc::new(Manifest { semantic_hash: "other".into(), ..Manifest::clone(&manifest) }));
    });
    assert_eq!(problem(&world.engine(), "SELECT * FROM by_country").await.code, Code::Internal);
}

#[tokio::test]
async fn too_many_queries_are_not_admitted() {
    let mut world = by_country().await;
    world.limits.queries_at_once = 1;
    let engine = world.engine();
    let waiting = QueryRequest {
        at_least: vec![PositionToken { incarnation: Uuid::from_u128(2), cut: Cut(vec![u64::MAX]) }],
        timeout: Some(Duration::from_millis(200)),
        ..QueryRequest::new("SELECT * FROM by_country")
    };
    let (first, second) = tokio::join!(engine.query(&waiting), async {
        tokio::task::yield_now().await;
        engine.query(&QueryRequest::new("SELECT 1")).await
    });
    assert_eq!(first.unwrap_err().code, Code::Timeout);
    assert_eq!(second.unwrap_err().code, Code::Overloaded);
    assert_eq!(ask(&engine, "SELECT 1").await, json!([[1]]));
}

#[tokio::test]
async fn memory_is_bounded_per_query() {
    let mut world = by_country().await;
    world.limits.query_memory_bytes = 100_000;
    let engine = world.engine();
    let problem =
        problem(&engine, "SELECT array_agg(i) FROM (SELECT value AS i FROM generate_series(1, 1000000))").await;
    assert_eq!(problem.code, Code::MemoryLimit, "{}", problem.detail);
}

#[rstest]
#[case("CREATE TABLE t AS SELECT 1")]
#[case("INSERT INTO by_country VALUES (1)")]
#[case("COPY by_country TO '/tmp/x.csv'")]
#[case("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'")]
#[case("SET datafusion.execution.batch_size = 1")]
#[case("DROP TABLE by_country")]
#[case("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1")]
#[case("SELECT * FROM '/etc/passwd'")]
#[tokio::test]
async fn query_only_reads(#[case] sql: &str) {
    let engine = by_country().await.engine();
    let problem = problem(&engine, sql).await;
    let refused = [Code::Unsupported, Code::InvalidSql, Code::NotFound, Code::SyntaxError];
    assert!(refused.contains(&problem.code), "{:?}: {}", problem.code, problem.detail);
    assert!(problem.status < 500 || problem.status == 501);
}

#[rstest]
#[case("SELECT *\nFROM by_contry", Code::NotFound, (2, 6), "did you mean by_country?")]
#[case("SELECT * FROM batch.by_contry", Code::NotFound, (1, 21), "did you mean by_country?")]
#[case("SELECT * FROM clicks", Code::InvalidSql, (1, 15), "CREATE MATERIALIZED VIEW")]
#[case("SELECT * FROM system.viewz", Code::NotFound, (1, 22), "did you mean views?")]
#[case("SELECT * FROM btch.by_country", Code::NotFound, (1, 15), "did you mean batch?")]
#[case("SELECT countri FROM by_country", Code::NotFound, (1, 8), "did you mean country?")]
#[tokio::test]
async fn unknown_names_have_a_place_and_a_hint(
    #[case] sql: &str,
    #[case] code: Code,
    #[case] (line, column): (u64, u64),
    #[case] hint: &str,
) {
    let engine = by_country().await.engine();
    let problem = problem(&engine, sql).await;
    assert_eq!(problem.code, code);
    assert_eq!(problem.position, Some(SqlPosition { line, column }));
    assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{problem:?}");
}

#[tokio::test]
async fn params_are_values() {
    let engine = by_country().await.engine();
    let request = |sql: &str, params: &[Value]| QueryRequest {
        params: params_from_json(params).unwrap(),
        ..QueryRequest::new(sql)
    };
    let sql = "SELECT country FROM by_country WHERE country = $1 AND n >= $2";
    let answer = engine.query(&request(sql, &[json!("KR"), json!(4)])).await.unwrap();
    assert_eq!(rows(&answer), json!([["KR"]]));
    let missing = engine.query(&request(sql, &[json!("KR")])).await.unwrap_err();
    assert_eq!(missing.code, Code::BadRequest);
    assert_eq!(params_from_json(&[json!([1])]).unwrap_err().code, Code::BadRequest);
}

#[tokio::test]
async fn system_tables_describe_the_platform() {
    let mut world = by_country().await;
    world.runs = vec![run_document(7, RunState::Succeeded)];
    let engine = world.engine();
    assert_eq!(ask(&engine, "SELECT name, records FROM system.streams").await, json!([["clicks", 10]]));
    let views = "SELECT name, ready, run, verdict, batch_cells, speed_cells FROM system.views";
    assert_eq!(ask(&engine, views).await, json!([["by_country", true, 7, "exact", 4, 5]]));
    assert_eq!(ask(&engine, "SELECT id, state FROM system.runs").await, json!([[7, "succeeded"]]));
    let coverage = "SELECT layer, \"from\", \"to\", records, cells FROM system.coverage";
    let expected =
        json!([["batch", "{}", "{0:5}", 5, 4], ["speed", "{0:5}", "{0:7}", 2, 2], ["speed", "{0:7}", "{0:10}", 3, 3]]);
    assert_eq!(ask(&engine, coverage).await, expected);
    let ledger = "SELECT layer, records, counted, balance FROM system.ledger";
    assert_eq!(ask(&engine, ledger).await, json!([["batch", 5, 5, 0], ["speed", 5, 5, 0]]));
    let queries = ask(&engine, "SELECT state, sql FROM system.queries LIMIT 2").await;
    assert_eq!(queries, json!([["running", "SELECT state, sql FROM system.queries LIMIT 2"], ["ok", ledger]]));
    assert_eq!(ask(&engine, "SELECT * FROM system.certificates").await, json!([]));
    assert_eq!(ask(&engine, "SELECT * FROM recon.by_country").await, json!([]));
    let dead = ask(&engine, "SELECT \"offset\", raw, code FROM dlq.clicks").await;
    assert_eq!(dead, json!([[0, "{broken", "bad_json"], [1, "\\xff00", "bad_json"]]));
}

#[tokio::test]
async fn explain_layers_names_what_would_be_read() {
    let engine = by_country().await.engine();
    let answer = engine.explain_layers(&QueryRequest::new("SELECT * FROM speed.by_country")).await.unwrap();
    assert_eq!(answer.row_count(), 2);
    let plan = ask(&engine, "EXPLAIN SELECT * FROM by_country WHERE country = 'KR'").await;
    assert!(plan.to_string().contains("by_country") || plan.to_string().contains("Parquet"), "{plan}");
    let columns = ask(&engine, "DESCRIBE by_country").await;
    assert_eq!(columns.as_array().unwrap().len(), 4);
}
