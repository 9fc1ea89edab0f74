//! Windows of whole views: what they say, and what is refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use rstest::rstest;
use schemas::problem::SqlPosition;
use schemas::statement::plain_windows;
use schemas::{Code, ColumnDef, LatePolicy, LedgerCounts, OnBadData, Problem, SqlType, StreamDef};
use uuid::Uuid;

use super::WindowPlanner;
use crate::cells::CellTable;
use crate::{Folder, RowFinish, View, ViewSource, session, states};

mod counted;

const SECOND: i64 = 1_000_000;

fn stream() -> StreamDef {
    let column = |name: &str, sql_type| ColumnDef { name: name.into(), sql_type, nullable: true };
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "s".into(),
        columns: vec![
            column("k", SqlType::Text),
            column("n", SqlType::BigInt),
            column("at", SqlType::TimestampTz),
            column("other", SqlType::Text),
        ],
        primary_key: vec![],
        time_column: Some("at".into()),
        watermark_delay_us: 5 * SECOND,
        partitions: 2,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: 0,
    }
}

fn compile(sql: &str, late: LatePolicy) -> Result<Arc<View>, Problem> {
    let position = SqlPosition { line: 1, column: 1 };
    View::compile(&ViewSource { sql, position, stream: &stream(), tables: &[], late })
}

fn view(sql: &str) -> Arc<View> {
    compile(sql, LatePolicy::Include).unwrap_or_else(|problem| panic!("{sql}: {}", problem.text()))
}

fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let values = values.into_iter().map(|seconds: Option<i64>| seconds.map(|seconds| seconds * SECOND));
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// Records with a key and a time in seconds; `n` is the time.
fn rows(events: &[(&str, Option<i64>)]) -> RecordBatch {
    let largest = |index: usize| events[..index].iter().filter_map(|(_, at)| *at).max();
    let keys = || Arc::new(events.iter().map(|(key, _)| Some(*key)).collect::<StringViewArray>()) as ArrayRef;
    let columns = vec![
        keys(),
        Arc::new(events.iter().map(|(_, at)| *at).collect::<Int64Array>()) as ArrayRef,
        times(events.iter().map(|(_, at)| *at)),
        keys(),
        times(events.iter().map(|_| Some(0))),
        times((0..events.len()).map(largest)),
    ];
    RecordBatch::try_new(stream().log_schema(), columns).unwrap()
}

fn fold(view: &Arc<View>, base: u64, events: &[(&str, Option<i64>)]) -> (Option<RecordBatch>, LedgerCounts) {
    let mut folder = Folder::new(view).unwrap();
    let counts = folder.fold(0, base, &rows(events)).unwrap();
    (folder.take().unwrap(), counts)
}

/// Answers as text, sorted: times in seconds.
fn answer(view: &Arc<View>, parts: &[RecordBatch]) -> Vec<String> {
    let mut cells = CellTable::new(view).unwrap();
    for part in parts {
        cells.merge(part).unwrap();
    }
    text(&RowFinish::of(view).unwrap().apply(cells.answer().unwrap()).unwrap())
}

fn text(rows: &RecordBatch) -> Vec<String> {
    let value = |column: &ArrayRef, row: usize| {
        if column.is_null(row) {
            return "null".to_owned();
        }
        match column.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) => (times.value(row) / SECOND).to_string(),
            None => arrow::util::display::array_value_to_string(column, row).unwrap(),
        }
    };
    let line = |row: usize| rows.columns().iter().map(|column| value(column, row)).collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

const SESSIONS: &str = "SELECT k, window_start, window_end, count(*) AS c, sum(n) AS n \
    FROM SESSION(s, k, at, INTERVAL '5 seconds') GROUP BY k, window_start, window_end";

/// a gap of 5 s; events at 0…10 s and 17 s are the sessions [0, 10] and [17, 17].
#[test]
fn events_at_most_the_gap_apart_are_one_session() {
    let events: Vec<_> = [0, 3, 7, 10, 17].map(|at| ("a", Some(at))).into();
    let view = view(SESSIONS);
    let (states, _) = fold(&view, 0, &events);
    assert_eq!(answer(&view, &[states.unwrap()]), ["a 0 10 4 20", "a 17 17 1 17"]);
}

/// a late event that bridges two sessions merges them, wherever the two are.
#[test]
fn a_late_event_bridges_two_sessions() {
    let view = view(SESSIONS);
    let (batch, _) = fold(&view, 0, &[("a", Some(0)), ("b", Some(6)), ("a", Some(3)), ("a", Some(13))]);
    let (tail, _) = fold(&view, 4, &[("a", Some(20)), ("a", Some(8))]);
    let (batch, tail) = (batch.unwrap(), tail.unwrap());
    assert_eq!(answer(&view, std::slice::from_ref(&batch)), ["a 0 3 2 3", "a 13 13 1 13", "b 6 6 1 6"]);
    assert_eq!(answer(&view, &[batch.clone(), tail.clone()]), ["a 0 13 4 24", "a 20 20 1 20", "b 6 6 1 6"]);
    let all = [("a", 0), ("b", 6), ("a", 3), ("a", 13), ("a", 20), ("a", 8)].map(|(key, at)| (key, Some(at)));
    let (whole, _) = fold(&view, 0, &all);
    let merged = states::merge(&view, &[tail, batch]).unwrap();
    assert_eq!(merged.columns(), states::merge(&view, &[whole.unwrap()]).unwrap().columns());
    assert_eq!(merged.num_rows(), 3, "sessions are stored merged");
}

/// the mean of the last minute every ten seconds: each event in six windows, stored once.
#[test]
fn a_hopping_view_stores_panes_and_answers_windows() {
    let sql = "SELECT window_start, window_end, count(*) AS c, avg(n) AS mean \
        FROM HOP(s, at, INTERVAL '10 seconds', INTERVAL '1 minute') GROUP BY window_start, window_end \
        HAVING count(*) > 1";
    let view = view(sql);
    assert_eq!(view.key_columns(), 1);
    let (states, _) = fold(&view, 0, &[("a", Some(61)), ("a", Some(69)), ("a", Some(85))]);
    let states = states.unwrap();
    assert_eq!(states.num_rows(), 2, "panes 60 and 80");
    assert_eq!(
        answer(&view, &[states]),
        [
            "10 70 2 65.0",
            "20 80 2 65.0",
            "30 90 3 71.66666666666667",
            "40 100 3 71.66666666666667",
            "50 110 3 71.66666666666667",
            "60 120 3 71.66666666666667"
        ]
    );
}

#[test]
fn windows_that_cumulate_grow_by_steps() {
    let view = view(
        "SELECT window_start, window_end, sum(n) AS n \
         FROM CUMULATE(s, at, INTERVAL '20 seconds', INTERVAL '1 minute') GROUP BY window_end, window_start",
    );
    let (states, _) = fold(&view, 0, &[("a", Some(5)), ("a", Some(25)), ("a", Some(65))]);
    let found = answer(&view, &[states.unwrap()]);
    assert_eq!(found, ["0 20 5", "0 40 30", "0 60 30", "60 100 65", "60 120 65", "60 80 65"]);
}

/// Events without a time are in a window without bounds.
#[rstest]
#[case("HOP(s, at, INTERVAL '10 seconds', INTERVAL '20 seconds')", &["a 0 20 1", "a 10 30 1", "a null null 2"])]
#[case("CUMULATE(s, at, INTERVAL '10 seconds', INTERVAL '20 seconds')", &["a 0 20 1", "a null null 2"])]
#[case("SESSION(s, k, at, INTERVAL '10 seconds')", &["a 11 11 1", "a null null 2"])]
fn no_time_is_a_window_of_its_own(#[case] relation: &str, #[case] wanted: &[&str]) {
    let view = view(&format!(
        "SELECT k, window_start, window_end, count(*) AS c FROM {relation} GROUP BY k, window_start, window_end"
    ));
    let (states, _) = fold(&view, 0, &[("a", None), ("a", Some(11)), ("a", None)]);
    assert_eq!(answer(&view, &[states.unwrap()]), wanted);
}

/// a record is late when the last window that it lies in had ended by the watermark, 5 s behind.
#[rstest]
#[case::hop("HOP(s, at, INTERVAL '10 seconds', INTERVAL '30 seconds')", 44, 45)]
#[case::cumulate("CUMULATE(s, at, INTERVAL '10 seconds', INTERVAL '30 seconds')", 34, 35)]
#[case::tumble_with_offset("TUMBLE(s, at, INTERVAL '10 seconds', INTERVAL '3 seconds')", 27, 28)]
#[case::session("SESSION(s, at, INTERVAL '10 seconds')", 30, 31)]
fn late_is_what_comes_after_its_last_window(#[case] relation: &str, #[case] in_time: i64, #[case] too_late: i64) {
    let sql = format!("SELECT window_end, count(*) AS c FROM {relation} GROUP BY window_end");
    let view = compile(&sql, LatePolicy::Drop).unwrap();
    let late = |largest: i64| fold(&view, 0, &[("a", Some(largest)), ("a", Some(15))]).1.late;
    assert_eq!((late(in_time), late(too_late)), (0, 1));
}

#[test]
fn a_look_up_reads_the_panes_of_its_window() {
    let view = view(
        "SELECT k, window_start, count(*) AS c FROM HOP(s, at, INTERVAL '10 seconds', INTERVAL '30 seconds') \
         GROUP BY k, window_start",
    );
    let time = |seconds: i64| ScalarValue::TimestampMicrosecond(Some(seconds * SECOND), Some("UTC".into()));
    let key = |seconds: i64| vec![ScalarValue::Utf8View(Some("a".into())), time(seconds)];
    assert_eq!(view.stored_keys(&key(10)).unwrap(), [key(10), key(20), key(30)]);
    assert_eq!(view.stored_keys(&key(10)[..1]).unwrap(), [&key(10)[..1]]);
    let sessions = self::view(SESSIONS);
    assert_eq!(sessions.stored_keys(&key(10)).unwrap(), [&key(10)[..1]], "where a session begins is not stored");
}

/// Both spellings make the same view.
#[rstest]
#[case(
    "HOP(s, at, INTERVAL '10 seconds', INTERVAL '1 minute')",
    "TABLE(HOP(TABLE s, DESCRIPTOR(at), INTERVAL '10' SECOND, INTERVAL '1' MINUTE))"
)]
#[case(
    "CUMULATE(s, at, INTERVAL '10 minutes', INTERVAL '1 hour', INTERVAL '5 minutes')",
    "TABLE(CUMULATE(TABLE s, DESCRIPTOR(at), INTERVAL '10' MINUTES, INTERVAL '1' HOURS, INTERVAL '5' MINUTES))"
)]
#[case("TUMBLE(s, at, INTERVAL '1 day')", "TABLE(TUMBLE(TABLE s, DESCRIPTOR(at), INTERVAL '1' DAY))")]
#[case(
    "SESSION(s, k, at, INTERVAL '5 seconds')",
    "TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(at), INTERVAL '5' SECOND))"
)]
fn flinks_spelling_is_the_same_view(#[case] ours: &str, #[case] flinks: &str) {
    let sql = |relation: &str| {
        format!(
            "SELECT k, window_start, window_end, count(*) AS c FROM {relation} GROUP BY k, window_start, window_end"
        )
    };
    assert_eq!(view(&sql(ours)).semantic_hash(), view(&sql(flinks)).semantic_hash());
}

/// States of other windows, or of other time-zone data, are never merged.
#[test]
fn the_semantic_hash_covers_the_windows() {
    let hash = |relation: &str| {
        let sql = format!("SELECT window_end, count(*) AS c FROM {relation} GROUP BY window_end");
        view(&sql).semantic_hash().to_owned()
    };
    let relations = [
        "TUMBLE(s, at, INTERVAL '1 day')",
        "TUMBLE(s, at, INTERVAL '1 day', INTERVAL '1 hour')",
        "TUMBLE(s, at, INTERVAL '1 day', 'Europe/Berlin')",
        "TUMBLE(s, at, INTERVAL '1 day', 'Europe/Paris')",
        "HOP(s, at, INTERVAL '1 hour', INTERVAL '1 day')",
        "HOP(s, at, INTERVAL '1 hour', INTERVAL '2 days')",
        "CUMULATE(s, at, INTERVAL '1 hour', INTERVAL '1 day')",
        "SESSION(s, at, INTERVAL '1 hour')",
        "SESSION(s, at, INTERVAL '2 hours')",
    ];
    let hashes: std::collections::BTreeSet<String> = relations.iter().map(|relation| hash(relation)).collect();
    assert_eq!(hashes.len(), relations.len());
    let calendar = super::Calendar::new(super::Unit::Months(1), super::zone("Europe/Berlin").unwrap());
    assert!(calendar.name().contains(super::TIME_ZONE_DATA), "{}", calendar.name());
}

/// A day in Berlin has 23 hours when the clock is put forward.
#[test]
fn days_of_a_time_zone_follow_its_clock() {
    let view = view(
        "SELECT window_start, window_end, count(*) AS c FROM TUMBLE(s, at, INTERVAL '1 day', 'Europe/Berlin') \
         GROUP BY window_start, window_end",
    );
    // 2024-03-30T22:59:59Z, 23:00:00Z and 2024-03-31T21:59:59Z, 22:00:00Z
    let (states, _) =
        fold(&view, 0, &[1_711_839_599, 1_711_839_600, 1_711_922_399, 1_711_922_400].map(|at| ("a", Some(at))));
    let found = answer(&view, &[states.unwrap()]);
    assert_eq!(found, ["1711753200 1711839600 1", "1711839600 1711922400 2", "1711922400 1712008800 1"],);
}

#[rstest]
#[case::no_window("SELECT count(*) AS c FROM HOP(s, at, INTERVAL '1 second', INTERVAL '2 seconds')", "GROUP BY")]
#[case::computed(
    "SELECT date_trunc('hour', window_start) AS h, count(*) AS c \
     FROM HOP(s, at, INTERVAL '1 second', INTERVAL '2 seconds') GROUP BY 1",
    "after the merge"
)]
#[case::filtered(
    "SELECT window_start, count(*) AS c FROM HOP(s, at, INTERVAL '1 second', INTERVAL '2 seconds') \
     WHERE window_start > TIMESTAMPTZ '2024-01-01T00:00:00Z' GROUP BY window_start",
    "HAVING"
)]
#[case::aggregated(
    "SELECT k, max(window_end) AS c FROM HOP(s, at, INTERVAL '1 second', INTERVAL '2 seconds') \
     GROUP BY k, window_start",
    "after the merge"
)]
#[case::gaps(
    "SELECT window_start, count(*) AS c FROM HOP(s, at, INTERVAL '3 seconds', INTERVAL '2 seconds') \
     GROUP BY window_start",
    "slide is longer"
)]
#[case::fine(
    "SELECT window_start, count(*) AS c FROM HOP(s, at, INTERVAL '0.001 seconds', INTERVAL '1 hour') \
     GROUP BY window_start",
    "at most"
)]
#[case::by_its_start(
    "SELECT window_start, count(*) AS c FROM CUMULATE(s, at, INTERVAL '1 second', INTERVAL '2 seconds') \
     GROUP BY window_start",
    "window_end"
)]
#[case::no_multiple(
    "SELECT window_end, count(*) AS c FROM CUMULATE(s, at, INTERVAL '2 seconds', INTERVAL '5 seconds') \
     GROUP BY window_end",
    "multiple"
)]
#[case::without_its_key(
    "SELECT window_start, count(*) AS c FROM SESSION(s, k, at, INTERVAL '5 seconds') GROUP BY window_start",
    "exactly the columns"
)]
#[case::with_another_key(
    "SELECT k, other, window_start, count(*) AS c FROM SESSION(s, k, at, INTERVAL '5 seconds') \
     GROUP BY k, other, window_start",
    "exactly the columns"
)]
#[case::filtered_behind(
    "SELECT k, window_start, count(*) AS c FROM SESSION(s, k, at, INTERVAL '5 seconds') WHERE n > 3 \
     GROUP BY k, window_start",
    "filter before"
)]
#[case::zone(
    "SELECT window_start, count(*) AS c FROM TUMBLE(s, at, INTERVAL '1 day', 'Atlantis') GROUP BY 1",
    "no time zone"
)]
#[case::hours(
    "SELECT window_start, count(*) AS c FROM TUMBLE(s, at, INTERVAL '1 hour', 'Europe/Berlin') GROUP BY 1",
    "whole days"
)]
#[case::arguments("SELECT window_start, count(*) AS c FROM HOP(s, at, INTERVAL '1 day') GROUP BY 1", "HOP takes")]
fn windows_that_cannot_be_are_refused(#[case] sql: &str, #[case] words: &str) {
    let problem = compile(sql, LatePolicy::Include).expect_err(sql);
    assert!(problem.text().contains(words), "{words}: {}", problem.text());
    assert_ne!(problem.code, Code::Internal, "{}", problem.text());
}

/// The conditions that are refused behind `SESSION` work before it, and in an aggregate.
#[test]
fn sessions_of_some_events_are_made_of_those() {
    let events: Vec<_> = [0, 4, 8].map(|at| ("a", Some(at))).into();
    let of = |sql: &str| {
        let view = view(sql);
        answer(&view, &[fold(&view, 0, &events).0.unwrap()])
    };
    let before = "SELECT k, window_start, count(*) AS c \
        FROM SESSION((SELECT * FROM s WHERE n <> 4), k, at, INTERVAL '5 seconds') GROUP BY k, window_start";
    assert_eq!(of(before), ["a 0 1", "a 8 1"]);
    let inside = "SELECT k, window_start, count(*) FILTER (WHERE n <> 4) AS c \
        FROM SESSION(s, k, at, INTERVAL '5 seconds') GROUP BY k, window_start";
    assert_eq!(of(inside), ["a 0 2"]);
}

/// The auditor's oracle makes windows another way: rows for each window, sessions by window functions.
#[rstest]
fn as_relations_windows_are_the_same(
    #[values(
        "HOP(s, at, INTERVAL '10 seconds', INTERVAL '25 seconds')",
        "CUMULATE(s, at, INTERVAL '5 seconds', INTERVAL '20 seconds', INTERVAL '3 seconds')",
        "TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(at), INTERVAL '5' SECOND))",
        "TUMBLE(s, at, INTERVAL '1 month', 'UTC')"
    )]
    relation: &str,
) {
    let sql = format!(
        "SELECT k, window_start, window_end, count(*) AS c FROM {relation} GROUP BY k, window_start, window_end"
    );
    let mut events: Vec<(&str, Option<i64>)> =
        [3, 8, 8, 13, 14, 21, 40, 41, 90].map(|at| (["a", "b"][at % 2], Some(at as i64))).into();
    events.push(("a", None));
    let view = view(&sql);
    let found = answer(&view, &[fold(&view, 0, &events).0.unwrap()]);
    let records = rows(&events);
    let table = Arc::new(MemTable::try_new(records.schema(), vec![vec![records]]).unwrap());
    let mut state = session::query_state(session::config().with_target_partitions(1), Arc::default());
    state.register_relation_planner(Arc::new(WindowPlanner::over(vec![("s".into(), table)]))).unwrap();
    let context = SessionContext::new_with_state(state);
    let plain = futures::executor::block_on(async { context.sql(&plain_windows(&sql)).await?.collect().await })
        .unwrap_or_else(|error| panic!("{error}"));
    let mut lines: Vec<String> = plain.iter().flat_map(text).collect();
    lines.sort();
    assert_eq!(lines, found);
    assert!(found.len() > 1);
    let counts = |rows: &RecordBatch| rows.column(3).as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
    assert!(plain.iter().map(counts).sum::<i64>() >= events.len() as i64, "no event is lost");
}
