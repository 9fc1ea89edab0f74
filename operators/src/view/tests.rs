//! The split of a view: folding in pieces, in any order, gives the bytes of folding at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use rstest::rstest;
use schemas::problem::SqlPosition;
use schemas::{Code, ColumnDef, LatePolicy, LedgerCounts, OnBadData, Problem, SqlType, StreamDef};
use uuid::Uuid;

use super::*;
use crate::{Folder, states};

mod as_of;
mod branch;
mod calls;
mod late;
mod rows;

fn stream() -> StreamDef {
    let column = |name: &str, sql_type| ColumnDef { name: name.into(), sql_type, nullable: true };
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "s".into(),
        columns: vec![
            column("k", SqlType::Text),
            column("n", SqlType::BigInt),
            column("x", SqlType::Double),
            column("at", SqlType::TimestampTz),
        ],
        primary_key: vec![],
        time_column: Some("at".into()),
        watermark_delay_us: 0,
        partitions: 2,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: 0,
    }
}

fn table(version: u32, pairs: &[(&str, &str)]) -> StaticTable {
    let column = |values: Vec<&str>| -> ArrayRef { Arc::new(StringViewArray::from(values)) };
    let columns =
        [("code", column(pairs.iter().map(|p| p.0).collect())), ("label", column(pairs.iter().map(|p| p.1).collect()))];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    StaticTable {
        name: "t".into(),
        rows: vec![rows],
        identity: format!("t/{version}"),
        is_late: false,
        valid_from: None,
    }
}

fn compile_with(sql: &str, late: LatePolicy, tables: &[StaticTable]) -> Result<Arc<View>, Problem> {
    let position = SqlPosition { line: 1, column: 1 };
    View::compile(&ViewSource { sql, position, stream: &stream(), tables, late })
}

fn compile(sql: &str) -> Arc<View> {
    compile_with(sql, LatePolicy::Include, &[table(1, &[("a", "one"), ("b", "two"), ("b", "three")])])
        .unwrap_or_else(|problem| panic!("{}", problem.text()))
}

/// Records `from..to`: four keys, one of them null; times move on by a second, every seventh is late.
fn rows(from: i64, to: i64) -> RecordBatch {
    let keys = ["a", "b", "c"];
    let key = |i: i64| keys.get((i % 4) as usize).copied();
    let time = |i: i64| if i % 7 == 6 { i - 100 } else { i } * 1_000_000;
    let largest = |i: i64| (0..i).map(time).max();
    let times = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new((from..to).map(key).collect::<StringViewArray>()),
        Arc::new((from..to).map(|i| (i % 5 != 0).then_some(i)).collect::<Int64Array>()),
        Arc::new(
            (from..to).map(|i| Some([0.1, 1e16, -1e16, f64::NAN, -0.0][(i % 5) as usize])).collect::<Float64Array>(),
        ),
        times((from..to).map(|i| Some(time(i))).collect()),
        times((from..to).map(|_| Some(0)).collect()),
        times((from..to).map(largest).collect()),
    ];
    RecordBatch::try_new(stream().log_schema(), columns).unwrap()
}

/// Folds `[0, 700)` of partition 0 in pieces and merges the pieces in the given order.
fn fold_in_pieces(view: &Arc<View>, piece: i64, reversed: bool) -> (RecordBatch, LedgerCounts) {
    let mut parts = vec![];
    let mut counts = LedgerCounts::default();
    let mut folder = Folder::new(view).unwrap();
    for from in (0..700).step_by(piece as usize) {
        counts.add(&folder.fold(0, from as u64, &rows(from, (from + piece).min(700))).unwrap());
        if from % 3 == 0 {
            parts.extend(folder.take().unwrap());
        }
    }
    parts.extend(folder.take().unwrap());
    if reversed {
        parts.reverse();
    }
    (states::merge(view, &parts).unwrap(), counts)
}

const VIEWS: [&str; 20] = [
    "SELECT k, count(*) AS c, sum(x) AS x, min(n) AS n FROM s GROUP BY k",
    "SELECT k, window_start, count(n) AS c, avg(n) AS a FROM TUMBLE(s, at, INTERVAL '10 seconds') GROUP BY k, window_start",
    "SELECT count(*) AS c, max(k) AS k, stddev(n) AS d FROM s",
    "SELECT label, count(*) AS c, approx_distinct(n) AS d FROM s JOIN t ON s.k = t.code GROUP BY label",
    "SELECT label, sum(n) AS n FROM s LEFT JOIN t ON s.k = t.code WHERE n % 2 = 0 GROUP BY label HAVING count(*) > 1",
    "SELECT x, count(*) AS c FROM s GROUP BY x",
    "SELECT upper(k) || '!' AS u, bool_or(n > 3) AS b, approx_percentile_cont(x, 0.5) AS p FROM s WHERE k IS NOT NULL GROUP BY 1",
    "SELECT date_trunc('minute', at) AS m, count(*) FILTER (WHERE n > 100) AS c FROM (SELECT at, n FROM s WHERE k <> 'c') AS q GROUP BY 1 ORDER BY c DESC LIMIT 3",
    "SELECT k, count(DISTINCT n % 10) AS d, sum(DISTINCT n) AS s, avg(DISTINCT x) FILTER (WHERE n > 9) AS a FROM s GROUP BY k",
    "SELECT k, first_value(n ORDER BY x DESC) AS f, last_value(x) AS l, arg_min(k, n) AS m, arg_max(x, n) AS g, any_value(x) AS v FROM s GROUP BY k",
    "SELECT k, array_agg(n ORDER BY x, n DESC) AS a, array_agg(DISTINCT x) AS d, string_agg(k, '-' ORDER BY n) FILTER (WHERE n < 100) AS t FROM s GROUP BY k",
    "SELECT corr(n, x) AS c, regr_slope(n, n % 7) AS r, median_exact(n) AS m, percentile_cont(0.25) WITHIN GROUP (ORDER BY n) AS p, approx_top_k(k, 2) AS t FROM s",
    "SELECT k, date_trunc('minute', at) AS m, grouping(k) AS g, count(*) AS c, sum(n) AS n FROM s GROUP BY ROLLUP (k, date_trunc('minute', at))",
    "SELECT DISTINCT k, x FROM s WHERE n > 3",
    "SELECT label, x, count(DISTINCT k) AS c FROM s JOIN t ON s.k = t.code GROUP BY GROUPING SETS ((label, x), (label), ())",
    "SELECT k, first_value(label) AS f, last_value(label) AS l, array_agg(label) AS a FROM s JOIN t ON s.k = t.code GROUP BY k",
    "SELECT k, x, n % 3 AS r, stddev(DISTINCT n) AS d FROM s GROUP BY CUBE (k, x, n % 3) HAVING count(*) > 2",
    "SELECT k, window_end, sum(x) AS x FROM HOP(s, at, INTERVAL '8 seconds', INTERVAL '1 minute') GROUP BY window_end, k",
    "SELECT window_end, approx_distinct(n) AS d FROM CUMULATE(s, at, INTERVAL '5 seconds', INTERVAL '1 minute') GROUP BY window_end",
    "SELECT k, window_start, avg(n) AS a FROM SESSION(s, k, at, INTERVAL '3 seconds') GROUP BY k, window_start",
];

#[rstest]
fn pieces_in_any_order_give_the_same_bytes(
    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)] view: usize,
    #[values(LatePolicy::Include, LatePolicy::Drop)] late: LatePolicy,
) {
    let tables = [table(1, &[("a", "one"), ("b", "two"), ("b", "three")])];
    let view = compile_with(VIEWS[view], late, &tables).unwrap();
    let (whole, whole_counts) = fold_in_pieces(&view, 700, false);
    assert_eq!(whole_counts.records, 700);
    assert_eq!(whole_counts.balance(), 0, "{whole_counts:?}");
    for (piece, reversed) in [(1, false), (7, true), (64, false), (333, true)] {
        let (states, counts) = fold_in_pieces(&view, piece, reversed);
        assert_eq!(states.columns(), whole.columns(), "pieces of {piece}");
        assert_eq!(counts, whole_counts, "pieces of {piece}");
    }
}

/// A join whose build side was the stream would read the first rows again for every later piece.
#[test]
fn a_join_sees_every_piece_and_counts_records_once() {
    let view = compile(VIEWS[3]);
    let (states, counts) = fold_in_pieces(&view, 7, false);
    // keys a and b are half of the records; b has two labels, so three rows for each pair
    assert_eq!((counts.counted, counts.filtered), (350, 350));
    let mut cells = crate::cells::CellTable::new(&view).unwrap();
    cells.merge(&states).unwrap();
    assert_eq!(cells.answer().unwrap().num_rows(), 3);
}

/// Every execution of a plan leaks metrics until its states are reset: past the reset it must go on.
#[test]
fn a_row_program_survives_its_reset() {
    let view = compile(VIEWS[3]);
    let mut folder = Folder::new(&view).unwrap();
    let one = rows(0, 1);
    let mut counts = LedgerCounts::default();
    for offset in 0..2_500 {
        counts.add(&folder.fold(1, offset, &one).unwrap());
    }
    assert_eq!((counts.records, counts.counted), (2_500, 2_500));
    assert_eq!(folder.cells(), 1);
}

#[test]
fn the_semantic_hash_covers_what_states_mean() {
    let hash = |sql: &str, late, version| {
        compile_with(sql, late, &[table(version, &[("a", "one")])]).unwrap().semantic_hash().to_owned()
    };
    let base = hash(VIEWS[3], LatePolicy::Include, 1);
    assert_eq!(base, hash(VIEWS[3], LatePolicy::Include, 1));
    assert_ne!(base, hash(VIEWS[3], LatePolicy::Drop, 1));
    assert_ne!(base, hash(VIEWS[3], LatePolicy::Include, 2));
    assert_ne!(base, hash(&VIEWS[3].replace("count(*)", "count(n)"), LatePolicy::Include, 1));
}

#[test]
fn only_the_columns_that_are_read_are_asked_for() {
    // k, x, n; the largest event time decides lateness, and the time itself
    assert_eq!(compile(VIEWS[0]).input_columns(), [0, 1, 2, 3, 5]);
    assert_eq!(compile("SELECT count(*) AS c FROM s").input_columns(), [3, 5]);
}

#[test]
fn output_keys_name_the_keys_that_are_only_renamed() {
    let keys = |sql: &str| compile(sql).output_keys();
    assert_eq!(keys("SELECT count(*) AS c, k AS shop, n FROM s GROUP BY k, n"), [None, Some(0), Some(1)]);
    assert_eq!(keys("SELECT upper(k) AS u, count(*) AS c FROM s GROUP BY k"), [None, None]);
}

#[rstest]
#[case("SELECT k, nth_value(n, 2) AS m FROM s GROUP BY k", Code::NotMergeable)]
#[case("SELECT DISTINCT ON (k) k, n FROM s", Code::NotMergeable)]
#[case("SELECT k, corr(DISTINCT n, x) AS c FROM s GROUP BY k", Code::NotMergeable)]
#[case("SELECT k, array_agg(DISTINCT n ORDER BY x) AS a FROM s GROUP BY k", Code::InvalidSql)]
#[case("SELECT k, string_agg(k, k) AS a FROM s GROUP BY k", Code::InvalidSql)]
#[case("SELECT k, k FROM s GROUP BY k", Code::InvalidSql)]
#[case("SELECT kk, count(*) AS c FROM s GROUP BY kk", Code::NotFound)]
#[case("SELECT k, median(n) AS m FROM s GROUP BY k", Code::NotMergeable)]
#[case("SELECT k, count(*) AS c FROM s JOIN t ON s.k > t.code GROUP BY k", Code::Unsupported)]
#[case("SELECT t.label, count(*) AS c FROM t LEFT JOIN s ON s.k = t.code GROUP BY t.label", Code::NotMergeable)]
fn what_cannot_be_folded_twice_is_refused(#[case] sql: &str, #[case] code: Code) {
    let problem = compile_with(sql, LatePolicy::Include, &[table(1, &[("a", "one")])]).expect_err("refused");
    assert_eq!(problem.code, code, "{}", problem.text());
}
