//! Which records are late, and which windows are final, whatever a view's subqueries hand on.

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::sum;

use super::*;
use crate::cells::CellTable;

/// Seconds of the records of one partition; the watermark is the largest before. By it 50 and 119 are late.
const TIMES: [i64; 5] = [100, 200, 50, 300, 119];

fn records() -> RecordBatch {
    let all = rows(0, TIMES.len() as i64);
    let seconds = |time: Option<i64>| time.map(|time| time * 1_000_000);
    let times = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let mut columns = all.columns().to_vec();
    columns[3] = times(TIMES.iter().map(|time| seconds(Some(*time))).collect());
    columns[4] = times((0..5).map(|record| seconds(Some(1_000 + record))).collect());
    columns[5] = times((0..5).map(|record| seconds(TIMES[..record].iter().max().copied())).collect());
    RecordBatch::try_new(stream().log_schema(), columns).unwrap()
}

fn late_in_cells(view: &Arc<View>) -> i64 {
    let mut folder = Folder::new(view).unwrap();
    folder.fold(0, 0, &records()).unwrap();
    let states = folder.take().unwrap().unwrap();
    sum(states.column_by_name("_late").unwrap().as_primitive::<arrow::datatypes::Int64Type>()).unwrap()
}

#[rstest]
#[case::of_the_stream("SELECT k, count(*) AS c FROM s GROUP BY k", 2)]
#[case::time_not_selected("SELECT k, count(*) AS c FROM (SELECT k FROM s) AS q GROUP BY k", 2)]
#[case::two_levels(
    "SELECT k, count(*) AS c FROM (SELECT k FROM (SELECT k, n FROM s WHERE k <> 'z') AS a) AS b GROUP BY k",
    2
)]
#[case::renamed("SELECT k, count(*) AS c FROM (SELECT k, at AS happened FROM s) AS q GROUP BY k", 2)]
#[case::another_under_its_name(
    "SELECT k, count(*) AS c FROM (SELECT k, at - INTERVAL '1 day' AS at FROM s) AS q GROUP BY k",
    2
)]
#[case::bucket_of_a_renamed_one(
    "SELECT date_trunc('minute', happened) AS m, count(*) AS c FROM (SELECT at AS happened FROM s) AS q GROUP BY 1",
    2
)]
#[case::hour_of_a_renamed_one(
    "SELECT date_trunc('hour', happened) AS h, count(*) AS c FROM (SELECT at AS happened FROM s) AS q GROUP BY 1",
    0
)]
#[case::bucket_made_inside(
    "SELECT m, count(*) AS c FROM (SELECT date_bin(INTERVAL '2 minutes', at) AS m FROM s) AS q GROUP BY m",
    2
)]
#[case::windows_of_a_subquery(
    "SELECT window_start, count(*) AS c FROM TUMBLE((SELECT at AS t, k FROM s), t, INTERVAL '4 minutes') GROUP BY window_start",
    1
)]
#[case::joined("SELECT label, count(*) AS c FROM (SELECT k FROM s) AS q LEFT JOIN t ON q.k = t.code GROUP BY label", 2)]
#[case::distinct("SELECT DISTINCT k FROM s", 2)]
#[case::grouping_sets("SELECT k, n, count(*) AS c FROM (SELECT k, n FROM s) AS q GROUP BY ROLLUP (k, n)", 6)]
#[case::time_of_the_log(
    "SELECT window_start, count(*) AS c FROM TUMBLE(s, _append_time, INTERVAL '1 second') GROUP BY window_start",
    0
)]
#[case::processing_time("SELECT date_trunc('second', _processing_time) AS p, count(*) AS c FROM s GROUP BY 1", 0)]
fn late_records_are_counted_whatever_a_subquery_hands_on(#[case] sql: &str, #[case] late: i64) {
    let view = compile(sql);
    assert_eq!(late_in_cells(&view), late);
    let tables = [table(1, &[("a", "one"), ("b", "two"), ("b", "three")])];
    let strict = compile_with(sql, LatePolicy::Drop, &tables).unwrap();
    let counts = Folder::new(&strict).unwrap().fold(0, 0, &records()).unwrap();
    assert_eq!((counts.late > 0, counts.balance()), (late > 0, 0));
}

/// the processing time is what the log recorded, not a clock's: the same bytes as the append time.
#[test]
fn the_processing_time_is_the_recorded_one() {
    let view = compile(
        "SELECT _append_time AS a, _processing_time AS p, max(_processing_time) AS m, count(*) AS c FROM s \
         GROUP BY _append_time, _processing_time",
    );
    assert_eq!(view.input_columns().iter().filter(|column| **column == 4).count(), 1, "read once");
    let mut folder = Folder::new(&view).unwrap();
    folder.fold(0, 0, &records()).unwrap();
    let mut cells = CellTable::new(&view).unwrap();
    cells.merge(&folder.take().unwrap().unwrap()).unwrap();
    let answer = cells.answer().unwrap();
    assert_eq!(answer.num_rows(), 5);
    assert_eq!((answer.column(0), answer.column(0)), (answer.column(1), answer.column(3)));
}

#[rstest]
#[case::offset("SELECT k, count(*) AS c FROM (SELECT k, n AS _offset FROM s) AS q GROUP BY k")]
#[case::watermark("SELECT k, count(*) AS c FROM (SELECT k, at AS _max_event_time FROM s) AS q GROUP BY k")]
fn a_value_under_the_name_of_a_hidden_column_is_refused(#[case] sql: &str) {
    let problem = compile_with(sql, LatePolicy::Include, &[]).expect_err("refused");
    assert_eq!(problem.code, Code::InvalidSql, "{}", problem.text());
}

/// `late = 'only'`: each late record once, with all its columns.
#[rstest]
#[case::plain("SELECT k, sum(n) AS n FROM s WHERE n IS NULL GROUP BY k", &[4])]
#[case::windows("SELECT window_end, count(*) AS n FROM HOP(s, at, INTERVAL '20 seconds', INTERVAL '1 minute') GROUP BY window_end", &[2, 4])]
#[case::in_sets("SELECT k, x, count(*) AS n FROM (SELECT k, x FROM s) AS q GROUP BY CUBE (k, x)", &[2, 4])]
fn late_records_are_rows_of_a_view_of_their_own(#[case] sql: &str, #[case] late: &[i64]) {
    let records = {
        let records = records();
        let mut columns = records.columns().to_vec();
        columns[1] = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), None, None]));
        RecordBatch::try_new(records.schema(), columns).unwrap()
    };
    let view = compile_with(sql, LatePolicy::Only, &[]).unwrap();
    let mut folder = Folder::new(&view).unwrap();
    let counts = folder.fold(0, 0, &records).unwrap();
    assert_eq!((counts.counted, counts.late, counts.balance()), (late.len() as u64, 0, 0));
    let states = states::merge(&view, &folder.take().unwrap().into_iter().collect::<Vec<_>>()).unwrap();
    // sorted by place in the log
    assert_eq!(states.column(1).as_primitive::<arrow::datatypes::Int64Type>().values()[..], *late);
    let names: Vec<String> = view.output_schema().fields().iter().map(|field| field.name().clone()).collect();
    for name in ["k", "x", "_offset", "_partition", "_max_event_time"] {
        assert!(names.iter().any(|known| known == name), "{name} of {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("window_") || name == "_late_row"), "{names:?}");
}

#[test]
fn late_events_need_a_watermark_to_be_told_apart() {
    let mut stream = stream();
    stream.time_column = None;
    let position = SqlPosition { line: 1, column: 1 };
    for late in [LatePolicy::Side, LatePolicy::Only] {
        let source = ViewSource { sql: "SELECT count(*) AS c FROM s", position, stream: &stream, tables: &[], late };
        assert_eq!(View::compile(&source).expect_err("refused").code, Code::InvalidSql);
    }
}

fn finals(sql: &str, watermark_seconds: Option<i64>) -> Option<Vec<bool>> {
    let view = compile(sql);
    let mut folder = Folder::new(&view).unwrap();
    folder.fold(0, 0, &records()).unwrap();
    let states = folder.take().unwrap().unwrap();
    let states = states::merge(&view, &[states]).unwrap();
    let mut cells = CellTable::new(&view).unwrap();
    cells.merge(&states).unwrap();
    let answered = cells.answer().unwrap();
    let watermark_us = watermark_seconds.map(|seconds| seconds * 1_000_000);
    let flags = view.final_windows(&answered, &Frontier { watermark_us, ends: vec![] }).unwrap();
    let by_key = |flags: BooleanArray| {
        let mut rows: Vec<(i64, bool)> = answered
            .column(0)
            .as_primitive::<arrow::datatypes::TimestampMicrosecondType>()
            .values()
            .iter()
            .copied()
            .zip(flags.values().iter())
            .collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, flag)| flag).collect()
    };
    flags.map(by_key)
}

const TUMBLE: &str = "SELECT window_start, count(*) AS c FROM TUMBLE(s, at, INTERVAL '1 minute') GROUP BY window_start";
const TUMBLE_END: &str = "SELECT window_end, count(*) AS c FROM TUMBLE(s, at, INTERVAL '1 minute') GROUP BY window_end";
const TRUNCATE: &str = "SELECT date_trunc('minute', at) AS m, count(*) AS c FROM s GROUP BY 1";
const HOP: &str = "SELECT window_start, count(*) AS c FROM HOP(s, at, INTERVAL '1 minute', INTERVAL '2 minutes') \
    WHERE k = 'b' GROUP BY window_start";
const CUMULATE: &str = "SELECT window_end, count(*) AS c FROM CUMULATE(s, at, INTERVAL '1 minute', INTERVAL '3 minutes') \
    WHERE k = 'b' GROUP BY window_end";
const SESSION: &str =
    "SELECT window_start, count(*) AS c FROM SESSION(s, at, INTERVAL '20 seconds') GROUP BY window_start";

/// Minutes 0, 1, 3 and 5. `HOP`: the record at 200 s lies in [120, 240) and [180, 300): of the first, 239 s is in time
/// until 300. `CUMULATE`: in those that end at 240, 300 and 360, and stays in time until 360. `SESSION`: 50, 100 to
/// 119, 200, 300; what comes at 139 s joins the second, and is late when the watermark is behind 159 s.
#[rstest]
#[case::none(TUMBLE, None, &[false; 4])]
#[case::before_its_end(TUMBLE, Some(59), &[false; 4])]
#[case::at_its_end(TUMBLE, Some(60), &[true, false, false, false])]
#[case::later(TUMBLE, Some(300), &[true, true, true, false])]
#[case::by_its_end(TUMBLE_END, Some(120), &[true, true, false, false])]
#[case::truncated(TRUNCATE, Some(120), &[true, true, false, false])]
#[case::hop_not_at_its_end(HOP, Some(299), &[false, false])]
#[case::hop(HOP, Some(300), &[true, false])]
#[case::hop_both(HOP, Some(360), &[true, true])]
#[case::cumulate_not_at_its_end(CUMULATE, Some(359), &[false; 3])]
#[case::cumulate(CUMULATE, Some(360), &[true; 3])]
#[case::session_that_may_grow(SESSION, Some(159), &[true, false, false, false])]
#[case::session(SESSION, Some(160), &[true, true, false, false])]
fn a_window_is_final_when_what_is_in_time_cannot_change_it(
    #[case] sql: &str,
    #[case] watermark_seconds: Option<i64>,
    #[case] expected: &[bool],
) {
    assert_eq!(finals(sql, watermark_seconds).as_deref(), Some(expected));
}

#[rstest]
#[case::no_window("SELECT k, count(*) AS c FROM s GROUP BY k")]
#[case::of_another_time(
    "SELECT window_start, count(*) AS c FROM HOP(s, _append_time, INTERVAL '1 minute', INTERVAL '2 minutes') GROUP BY window_start"
)]
#[case::of_a_computed_time("SELECT date_trunc('hour', at - INTERVAL '1 day') AS h, count(*) AS c FROM s GROUP BY 1")]
#[case::column_of_that_name(
    "SELECT window_start, count(*) AS window_final FROM TUMBLE(s, at, INTERVAL '1 minute') GROUP BY window_start"
)]
fn what_no_watermark_closes_is_not_final(#[case] sql: &str) {
    assert!(!compile(sql).has_final_windows());
}
