//! Windows of so many records, and global windows with a trigger and an evictor.

use super::*;
use crate::{Frontier, states};

/// Ten records of partition 0 and seven of partition 1, folded apart; `n` is 0 to 16.
fn parts(view: &Arc<View>) -> Vec<RecordBatch> {
    let events = |from: i64, to: i64| (from..to).map(|n| ("a", Some(n))).collect::<Vec<_>>();
    let pieces = [(0, 0, events(0, 4)), (0, 4, events(4, 10)), (1, 0, events(10, 11)), (1, 1, events(11, 17))];
    let fold = |(partition, base, events): (u32, u64, Vec<(&str, Option<i64>)>)| {
        let mut folder = Folder::new(view).unwrap();
        folder.fold(partition, base, &rows(&events)).unwrap();
        folder.take().unwrap()
    };
    pieces.into_iter().filter_map(fold).collect()
}

fn answered(sql: &str) -> Vec<String> {
    let view = view(sql);
    let parts = parts(&view);
    let whole = states::merge(&view, &parts).unwrap();
    let found = answer(&view, &parts);
    assert_eq!(answer(&view, &[whole]), found);
    found
}

#[test]
fn windows_of_records_follow_each_other_in_each_partition() {
    let found = answered(
        "SELECT _partition AS p, window_start AS w, window_end AS e, count(*) AS c, max(n) AS n \
         FROM COUNT_WINDOW(s, 4) GROUP BY _partition, window_start, window_end",
    );
    assert_eq!(found, ["0 0 4 4 3", "0 4 8 4 7", "0 8 12 2 9", "1 0 4 4 13", "1 4 8 3 16"]);
}

/// Flink's sliding count window: every 3 records the last 5; of the first result, only 3 are there.
#[rstest]
#[case::counted("COUNT_WINDOW(s, 3, 5)")]
#[case::triggered("GLOBAL_WINDOW(s, TRIGGER(count, 3), EVICTOR(count, 5))")]
fn every_so_many_records_the_last_so_many(#[case] relation: &str) {
    let found = answered(&format!(
        "SELECT _partition AS p, window_end AS e, min(n) AS a, max(n) AS b FROM {relation} GROUP BY window_end, _partition"
    ));
    assert_eq!(found, ["0 12 7 9", "0 3 0 2", "0 6 1 5", "0 9 4 8", "1 3 10 12", "1 6 11 15", "1 9 14 16"]);
}

/// The last 2 of every 5: the others are in no result.
#[test]
fn an_evictor_may_keep_less_than_a_trigger_waits_for() {
    let found = answered(
        "SELECT _partition AS p, window_start AS w, min(n) AS a, count(*) AS c \
         FROM GLOBAL_WINDOW(s, TRIGGER(count, 5), EVICTOR(count, 2)) GROUP BY _partition, window_start",
    );
    assert_eq!(found, ["0 3 3 2", "0 8 8 2", "1 3 13 2"]);
}

/// A filter takes records out of a window and does not fill it up.
#[test]
fn the_records_of_the_log_are_counted() {
    let found = answered(
        "SELECT _partition AS p, window_start AS w, count(*) AS c FROM COUNT_WINDOW(s, 4) WHERE n % 2 = 0 \
         GROUP BY _partition, window_start",
    );
    assert_eq!(found, ["0 0 2", "0 4 2", "0 8 1", "1 0 2", "1 4 2"]);
}

#[rstest]
#[case("GLOBAL_WINDOW(s, TRIGGER(count, 4, PURGE))", "COUNT_WINDOW(s, 4)", "_partition, window_start")]
#[case(
    "GLOBAL_WINDOW(s, TRIGGER(at, INTERVAL '1 minute', PURGE))",
    "TUMBLE(s, at, INTERVAL '1 minute')",
    "window_start"
)]
#[case(
    "GLOBAL_WINDOW(s, trigger(_processing_time, INTERVAL '5 seconds'), evictor(_processing_time, INTERVAL '1 minute'))",
    "HOP(s, _processing_time, INTERVAL '5 seconds', INTERVAL '1 minute')",
    "window_start"
)]
fn a_global_window_is_what_trigger_and_evictor_make_of_it(
    #[case] global: &str,
    #[case] plain: &str,
    #[case] keys: &str,
) {
    let select = |relation: &str| format!("SELECT {keys}, count(*) AS c FROM {relation} GROUP BY {keys}");
    assert_eq!(view(&select(global)).semantic_hash(), view(&select(plain)).semantic_hash());
}

#[rstest]
#[case::no_trigger("GLOBAL_WINDOW(s)", "without a trigger")]
#[case::only_an_evictor("GLOBAL_WINDOW(s, EVICTOR(count, 3))", "without a trigger")]
#[case::everything_again("GLOBAL_WINDOW(s, TRIGGER(count, 3))", "all records since the beginning")]
#[case::delta("GLOBAL_WINDOW(s, TRIGGER(count, 3), EVICTOR(delta, n, 5))", "near the value")]
#[case::count_by_time("GLOBAL_WINDOW(s, TRIGGER(count, 3), EVICTOR(at, INTERVAL '1 hour'))", "not known from a record")]
#[case::time_by_count("GLOBAL_WINDOW(s, TRIGGER(at, INTERVAL '1 hour'), EVICTOR(count, 3))", "not known from a record")]
#[case::two_times(
    "GLOBAL_WINDOW(s, TRIGGER(at, INTERVAL '1 hour'), EVICTOR(_append_time, INTERVAL '1 hour'))",
    "different times"
)]
#[case::purge_and_evictor("GLOBAL_WINDOW(s, TRIGGER(count, 3, PURGE), EVICTOR(count, 3))", "PURGE leaves nothing")]
#[case::two_triggers("GLOBAL_WINDOW(s, TRIGGER(count, 3), TRIGGER(count, 3))", "GLOBAL_WINDOW takes")]
#[case::no_number("COUNT_WINDOW(s, 0)", "number of records")]
#[case::no_constant("COUNT_WINDOW(s, INTERVAL '1 hour')", "number of records")]
#[case::too_many_windows("COUNT_WINDOW(s, 1, 100000)", "windows")]
#[case::without_offsets("COUNT_WINDOW((SELECT n, k FROM s), 3)", "counts the records of a stream's log")]
#[case::another_name("TUMBLE_ROWS(s, 3)", "COUNT_WINDOW")]
fn what_is_no_function_of_a_record_is_refused(#[case] relation: &str, #[case] words: &str) {
    let sql = format!("SELECT window_start, count(*) AS c FROM {relation} GROUP BY window_start, _partition");
    let problem = compile(&sql, LatePolicy::Include).expect_err("refused");
    assert!(problem.text().contains(words), "{}", problem.text());
}

/// H2: records of two partitions have no order between them.
#[rstest]
#[case::over_all("SELECT window_start, count(*) AS c FROM COUNT_WINDOW(s, 3) GROUP BY window_start")]
#[case::by_key("SELECT k, window_start, count(*) AS c FROM COUNT_WINDOW(s, 3, 9) GROUP BY k, window_start")]
#[case::in_sets(
    "SELECT _partition, window_start, count(*) AS c FROM COUNT_WINDOW(s, 3) GROUP BY ROLLUP (_partition, window_start)"
)]
fn windows_of_records_are_of_one_partition(#[case] sql: &str) {
    let problem = compile(sql, LatePolicy::Include).expect_err("refused");
    assert_eq!(problem.code, Code::NotMergeable, "{}", problem.text());
    assert!(problem.text().contains("_partition"), "{}", problem.text());
}

/// What a trigger has fired: the partition has all records before the window's end.
#[rstest]
#[case::by_start("window_start", &[true, true, false, true, false])]
#[case::by_end("window_end", &[true, true, false, true, false])]
fn a_window_of_records_is_final_when_it_is_full(#[case] bound: &str, #[case] expected: &[bool]) {
    let sql = format!("SELECT _partition AS p, {bound} AS w, count(*) AS c FROM COUNT_WINDOW(s, 4) GROUP BY 1, 2");
    let view = view(&sql);
    let mut cells = CellTable::new(&view).unwrap();
    cells.merge(&states::merge(&view, &parts(&view)).unwrap()).unwrap();
    let answered = cells.answer().unwrap();
    let finals = |ends: Vec<u64>| {
        let flags = view.final_windows(&answered, &Frontier { watermark_us: None, ends }).unwrap().unwrap();
        let key = |row: usize| {
            let number = |column: usize| arrow::util::display::array_value_to_string(answered.column(column), row);
            (number(0).unwrap().parse::<i64>().unwrap(), number(1).unwrap().parse::<i64>().unwrap())
        };
        let mut rows: Vec<_> = (0..answered.num_rows()).map(|row| (key(row), flags.value(row))).collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, flag)| flag).collect::<Vec<bool>>()
    };
    assert_eq!(finals(vec![10, 7]), expected);
    assert_eq!(finals(vec![12, 8]), [true; 5]);
    assert_eq!(finals(vec![]), [false; 5]);
}

/// A record is never late for a window of records.
#[test]
fn positions_are_never_late() {
    let sql =
        "SELECT _partition, window_start, count(*) AS c FROM COUNT_WINDOW(s, 4) GROUP BY _partition, window_start";
    let view = compile(sql, LatePolicy::Drop).unwrap();
    let (_, counts) = fold(&view, 0, &[("a", Some(1_000_000)), ("a", Some(0))]);
    assert_eq!((counts.counted, counts.late), (2, 0));
}
