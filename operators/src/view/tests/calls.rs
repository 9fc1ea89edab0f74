//! What the lowered calls answer: order by key and position, caps, sets of groups.

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::executor::block_on;
use schemas::limits::CELL_VALUES_MAX;

use super::*;
use crate::cells::CellTable;
use crate::{RowFinish, StateSource, merged, session};

/// `(k, n, x)` in both partitions, one after the other.
type Row = (Option<&'static str>, Option<i64>, Option<f64>);

fn log_rows(rows: &[Row]) -> RecordBatch {
    let time =
        || -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![Some(0); rows.len()]).with_timezone("UTC")) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<StringViewArray>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        time(),
        time(),
        time(),
    ];
    RecordBatch::try_new(stream().log_schema(), columns).unwrap()
}

/// States of rows in partition 0 from offset 10 on, and in partition 1 from offset 5 on.
fn fold(view: &Arc<View>, partitions: [&[Row]; 2]) -> RecordBatch {
    let mut folder = Folder::new(view).unwrap();
    folder.fold(1, 5, &log_rows(partitions[1])).unwrap();
    folder.fold(0, 10, &log_rows(partitions[0])).unwrap();
    let parts: Vec<RecordBatch> = folder.take().unwrap().into_iter().collect();
    states::merge(view, &parts).unwrap()
}

#[derive(Debug)]
struct Parts(RecordBatch);

#[async_trait]
impl StateSource for Parts {
    async fn scan(
        &self,
        _: &dyn Session,
        projection: &[usize],
        _: &[Expr],
    ) -> datafusion::common::Result<Vec<Arc<dyn ExecutionPlan>>> {
        let rows = [vec![self.0.clone()]];
        Ok(vec![MemorySourceConfig::try_new_exec(&rows, self.0.schema(), Some(projection.to_vec()))?])
    }
}

/// A query over the view, each row as text.
fn ask(view: &Arc<View>, states: RecordBatch, query: &str) -> Result<Vec<String>, Problem> {
    let config = session::config().with_target_partitions(1);
    let context = SessionContext::new_with_state(session::query_state(config, Arc::default()));
    let read = async {
        context.register_table("v", merged::table(view, "v", Arc::new(Parts(states)))?)?;
        context.sql(query).await?.collect().await
    };
    let answer =
        block_on(read).map_err(|error| crate::error::problem(&error, query, SqlPosition { line: 1, column: 1 }))?;
    let cell = |batch: &RecordBatch, column: usize, row: usize| {
        arrow::util::display::array_value_to_string(batch.column(column), row).unwrap()
    };
    let row = |batch: &RecordBatch, row: usize| {
        (0..batch.num_columns()).map(|column| cell(batch, column, row)).collect::<Vec<_>>().join(" ")
    };
    Ok(answer
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(|index| row(batch, index)).collect::<Vec<_>>())
        .collect())
}

const ROWS: [&[Row]; 2] = [
    &[(Some("a"), Some(1), Some(2.0)), (Some("a"), None, Some(1.0)), (Some("a"), Some(3), None)],
    &[(Some("a"), Some(4), Some(2.0)), (Some("b"), Some(5), Some(0.5)), (Some("a"), Some(3), Some(1.0))],
];

/// Keys first, then the position: partition 0 before partition 1, whatever was folded first.
#[rstest]
#[case("first_value(n)", "1")]
#[case("last_value(n)", "3")]
#[case("first_value(n ORDER BY x)", "")] // of the two with x = 1 the earlier one, whose n is null
#[case("first_value(n ORDER BY x DESC)", "3")] // nulls first
#[case("first_value(n ORDER BY x DESC NULLS LAST)", "1")]
#[case("first_value(n ORDER BY x DESC NULLS LAST, n DESC)", "4")]
#[case("last_value(n ORDER BY x NULLS FIRST)", "4")]
#[case("first_value(n) IGNORE NULLS", "1")]
#[case("last_value(n ORDER BY x DESC NULLS FIRST) IGNORE NULLS", "3")]
#[case("any_value(n)", "1")]
#[case("arg_min(n, x)", "3")] // the one whose n is null does not count
#[case("arg_max(n, x)", "1")] // of equal keys the earliest
#[case("arg_max(x, n)", "2.0")]
#[case("array_agg(n)", "[1, , 3, 4, 3]")]
#[case("array_agg(n) IGNORE NULLS", "[1, 3, 4, 3]")]
#[case("array_agg(n ORDER BY n DESC NULLS LAST)", "[4, 3, 3, 1, ]")]
#[case("array_agg(DISTINCT n)", "[1, 3, 4, ]")]
#[case("array_agg(DISTINCT n ORDER BY n DESC)", "[, 4, 3, 1]")]
#[case("string_agg(CAST(n AS TEXT), '+' ORDER BY x, n)", "3+1+4+3")]
#[case("string_agg(DISTINCT CAST(n AS TEXT), ', ')", "1, 3, 4")]
#[case("count(DISTINCT n)", "3")]
#[case("sum(DISTINCT n)", "8")]
#[case("avg(DISTINCT n) FILTER (WHERE n > 1)", "3.5")]
#[case("min(DISTINCT n)", "1")]
#[case("median_exact(n)", "3.0")]
#[case("median_exact(DISTINCT n)", "3.0")]
#[case("percentile_cont(0.5) WITHIN GROUP (ORDER BY x)", "1.5")]
#[case("approx_top_k(n, 2)", "[{value: 3, count: 2}, {value: 1, count: 1}]")]
#[case("regr_count(n, x)", "3")]
fn calls_answer(#[case] call: &str, #[case] expected: &str) {
    let view = compile(&format!("SELECT k, {call} AS o FROM s GROUP BY k"));
    assert_eq!(ask(&view, fold(&view, ROWS), "SELECT o FROM v WHERE k = 'a'").unwrap(), [expected], "{call}");
}

#[test]
fn nothing_has_no_value() {
    let view = compile(
        "SELECT count(DISTINCT n) AS a, sum(DISTINCT n) AS b, first_value(n) AS c, array_agg(n) AS d, \
         string_agg(k, ',') AS e, median_exact(n) AS f, approx_top_k(n, 1) AS g, corr(n, x) AS h FROM s",
    );
    let nothing = RecordBatch::new_empty(Arc::clone(view.state_schema()));
    assert_eq!(ask(&view, nothing, "SELECT * FROM v").unwrap(), ["0       "]);
}

/// Calls that are kept the same way are two columns all the same.
#[test]
fn equal_calls_stand_side_by_side() {
    let view = compile(
        "SELECT k, max(n) AS a, max(DISTINCT n) AS b, any_value(n) AS c, first_value(n) IGNORE NULLS AS d FROM s GROUP BY k",
    );
    assert_eq!(ask(&view, fold(&view, ROWS), "SELECT * FROM v WHERE k = 'a'").unwrap(), ["a 4 4 1 1"]);
}

/// The set `()` has no key, and nulls of a column are told from "not in this set" by `grouping()`.
#[rstest]
#[case(
    "SELECT k, n, grouping(k) AS gk, grouping(k, n) AS g, count(*) AS c FROM s GROUP BY ROLLUP (k, n)",
    &["a  0 0 1", "a  0 1 5", "a 1 0 0 1", "a 3 0 0 2", "a 4 0 0 1", "b  0 1 1", "b 5 0 0 1", "  1 3 6"]
)]
#[case(
    "SELECT k, n, count(*) AS c FROM s WHERE n > 3 GROUP BY CUBE (k, n)",
    &["a 4 1", "a  1", "b 5 1", "b  1", " 4 1", " 5 1", "  2"]
)]
#[case(
    "SELECT k, n, sum(x) AS s FROM s WHERE n > 3 GROUP BY GROUPING SETS ((k), (k), (n))",
    &["a  2.0", "a  2.0", "b  0.5", "b  0.5", " 4 2.0", " 5 0.5"]
)]
#[case("SELECT k, count(*) AS c FROM s GROUP BY k, ROLLUP (n) HAVING grouping(n) = 1", &["a 5", "b 1"])]
#[case(
    "SELECT n > 2.5 AS big, grouping(n > 2.5) AS g, count(*) AS c FROM s GROUP BY CUBE (n > 2.5)",
    &["false 0 1", "true 0 4", " 0 1", " 1 6"]
)]
#[case("SELECT DISTINCT k, n > 3 AS big FROM s WHERE n IS NOT NULL", &["a false", "a true", "b true"])]
#[case("SELECT DISTINCT k AS a, k AS b FROM s", &["a a", "b b"])]
#[case("SELECT DISTINCT c FROM (SELECT k, min(x) > 0 AS c FROM s GROUP BY k) AS q", &["true"])]
fn groups_answer(#[case] sql: &str, #[case] expected: &[&str]) {
    let view = compile(sql);
    let mut answer = ask(&view, fold(&view, ROWS), "SELECT * FROM v").unwrap();
    answer.sort();
    let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    expected.sort();
    assert_eq!(answer, expected, "{sql}");
}

/// Past its cap a cell has no answer, and says so when it is read; others are readable.
#[rstest]
#[case("count(DISTINCT n)", "count(DISTINCT", "approx_distinct(x)")]
#[case("array_agg(n)", "array_agg(", "group by more columns")]
#[case("median_exact(n)", "median_exact(", "approx_percentile_cont(x, p)")]
#[case("approx_top_k(n, 3)", "approx_top_k(", "count(*)")]
fn a_cell_past_its_cap_is_an_error_of_its_own(#[case] call: &str, #[case] words: &str, #[case] hint: &str) {
    let view = compile(&format!("SELECT k, count(*) AS c, {call} AS o FROM s GROUP BY k"));
    let many: Vec<Row> = (0..=CELL_VALUES_MAX as i64).map(|n| (Some("a"), Some(n), None)).collect();
    let states = fold(&view, [&many, ROWS[1]]);
    let ask = |query: &str| ask(&view, states.clone(), query);
    assert_eq!(ask("SELECT k, c FROM v WHERE k = 'a'").unwrap(), [format!("a {}", CELL_VALUES_MAX + 3)]);
    assert_eq!(ask("SELECT count(o) FROM v WHERE k = 'b'").unwrap(), ["1"]);
    assert_eq!(ask("SELECT count(o) FROM v WHERE c < 10").unwrap(), ["1"], "left out by another column");
    for query in ["SELECT * FROM v", "SELECT o FROM v WHERE k = 'a'", "SELECT max(c) FROM v WHERE o IS NOT NULL"] {
        let problem = ask(query).expect_err(query);
        assert_eq!(problem.code, Code::ComputationFailed, "{}", problem.text());
        let detail = &problem.detail;
        assert!(detail.starts_with("view v: ") && detail.contains(words), "{detail}");
        assert!(detail.contains("the cell (k = a)"), "{detail}");
        assert!(problem.hint.as_ref().is_some_and(|text| text.contains(hint)), "{:?}", problem.hint);
    }
    let mut cells = CellTable::new(&view).unwrap();
    cells.merge(&states).unwrap();
    let looked_up = RowFinish::of(&view).unwrap().apply(cells.answer().unwrap()).expect_err("a look-up reads it");
    assert_eq!(looked_up.code, Code::ComputationFailed);
}

/// The same states without regard to where the many values came from.
#[test]
fn the_mark_of_a_cell_is_the_same_in_every_order() {
    let view = compile("SELECT count(DISTINCT n) AS o FROM s");
    let values = |from: i64, to: i64| (from..to).map(|n| (None, Some(n), None)).collect::<Vec<Row>>();
    let half = CELL_VALUES_MAX as i64 / 2;
    let (low, high) = (values(0, half + 10), values(half, 2 * half + 1));
    let parts: Vec<RecordBatch> = [&low, &high].map(|rows| fold(&view, [rows, &[]])).into();
    let one = states::merge(&view, &[parts[0].clone(), parts[1].clone()]).unwrap();
    let other = states::merge(&view, &[parts[1].clone(), parts[0].clone()]).unwrap();
    assert_eq!(one.columns(), other.columns());
    assert!(ask(&view, one, "SELECT o FROM v").expect_err("past the cap").detail.contains("the view's only cell"));
    assert_eq!(ask(&view, parts[0].clone(), "SELECT o FROM v").unwrap(), [(half + 10).to_string()]);
}
