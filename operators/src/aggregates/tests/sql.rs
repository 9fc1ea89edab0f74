//! The aggregates through SQL: names, FILTER, WITHIN GROUP, groups, windows, and what is refused.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::executor::block_on;
use rstest::rstest;

use crate::aggregates::register;

fn query(sql: &str) -> Result<String> {
    let mut context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    register(&mut context)?;
    context.remove_optimizer_rule("single_distinct_aggregation_to_group_by");
    let rows = RecordBatch::try_from_iter([
        ("i", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])) as _),
        ("x", Arc::new(Float64Array::from(vec![Some(0.1), Some(0.2), Some(0.3), None, Some(-0.6)])) as _),
        ("s", Arc::new(StringViewArray::from(vec![Some("a"), Some("b"), None, Some("a"), Some("c")])) as _),
    ])?;
    context.register_batch("t", rows)?;
    let answer = block_on(async { context.sql(sql).await?.collect().await })?;
    let table = pretty_format_batches(&answer)?.to_string();
    let cells = table.lines().skip(3).filter(|line| line.starts_with('|'));
    let cells = cells.map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>());
    Ok(cells.map(|row| row.join(" ")).collect::<Vec<_>>().join(" / "))
}

#[rstest]
#[case::counts("count(*), count(1), count(x), count()", "5 5 4 5")]
#[case::filters(
    "count(*) FILTER (WHERE x > 0), sum(i) FILTER (WHERE x IS NULL), max(i) FILTER (WHERE i > 9) IS NULL",
    "3 4 true"
)]
#[case::exact_float_sum("sum(x), sum(x) + 1", "2.7755575615628914e-17 1.0")]
#[case::averages("avg(i), mean(i + 1), avg(CAST(i * 2 AS DECIMAL(9,2)))", "3.0 4.0 6.000000")]
#[case::extremes("min(x), max(x), min(s), max(s), max(i > 4)", "-0.6 0.3 a c true")]
#[case::booleans("bool_and(i > 0), bool_or(i > 9), bool_and(s = 'a')", "true false false")]
#[case::bits("bit_and(i), bit_or(i), bit_xor(i)", "0 7 1")]
#[case::distinct("approx_distinct(s), approx_distinct(i), approx_distinct(NULL)", "3 5 0")]
#[case::distinct_without_meaning("min(DISTINCT i), max(DISTINCT s), approx_distinct(DISTINCT s)", "1 c 3")]
#[case::percentiles("approx_percentile_cont(i, 0.25), approx_median(i), approx_percentile_cont(i, 1)", "2.0 3.0 5.0")]
#[case::within_group("approx_percentile_cont(0.25) WITHIN GROUP (ORDER BY i)", "2.0")]
#[case::within_group_descending("approx_percentile_cont(0.25) WITHIN GROUP (ORDER BY i DESC)", "4.0")]
#[case::variances(
    "var(i), var_samp(i), var_pop(i), round(stddev(i), 4), stddev_pop(i) = sqrt(2.0)",
    "2.5 2.5 2.0 1.5811 true"
)]
#[case::pairs(
    "covar_pop(i, i), covar_samp(i, i * 2), corr(i, -i), regr_slope(i * 3, i), regr_intercept(i * 3 + 1, i)",
    "2.0 5.0 -1.0 3.0 1.0"
)]
#[case::more_pairs(
    "regr_count(i, x), regr_avgx(i, x), regr_avgy(i, i), regr_r2(i, i), regr_sxx(i, i), regr_syy(i, i), regr_sxy(i, i)",
    "4 6.938893903907228e-18 3.0 1.0 10.0 10.0 10.0"
)]
#[case::exact_percentiles(
    "median_exact(i), median_exact(x), percentile_cont(i, 0.1), percentile_cont(0.25) WITHIN GROUP (ORDER BY i DESC)",
    "3.0 0.15000000000000002 1.4 4.0"
)]
#[case::top_k("approx_top_k(s, 2)", "[{value: a, count: 2}, {value: b, count: 1}]")]
#[case::extremes_of_keys("arg_min(s, x), arg_max(s, i), arg_min(i, s), arg_max(x, s)", "c c 1 -0.6")]
#[case::order_does_not_matter("sum(i ORDER BY x DESC), count(i ORDER BY s)", "15 5")]
fn answers(#[case] select: &str, #[case] expected: &str) {
    assert_eq!(query(&format!("SELECT {select} FROM t")).unwrap(), expected);
}

#[test]
fn nothing_counts_zero_and_sums_null() {
    let sql = "SELECT count(i), approx_distinct(i), sum(i) IS NULL, avg(x) IS NULL, min(s) IS NULL, \
               approx_median(x) IS NULL, var_pop(x) IS NULL, bool_or(i > 0) IS NULL FROM t WHERE i > 9";
    assert_eq!(query(sql).unwrap(), "0 0 true true true true true true");
}

#[test]
fn groups_are_apart() {
    let sql = "SELECT s, count(*), sum(i), avg(i), approx_distinct(i) FROM t GROUP BY s ORDER BY s";
    assert_eq!(query(sql).unwrap(), "a 2 5 2.5 2 / b 1 2 2.0 1 / c 1 5 5.0 1 / 1 3 3.0 1");
}

#[test]
fn running_totals_keep_their_state() {
    let sql = "SELECT sum(i) OVER (ORDER BY i), approx_distinct(s) OVER (ORDER BY i) FROM t ORDER BY i";
    assert_eq!(query(sql).unwrap(), "1 1 / 3 2 / 6 2 / 10 2 / 15 3");
}

#[rstest]
#[case("count(DISTINCT i)", "write approx_distinct(x)")] // a view lowers it first
#[case("sum(DISTINCT i)", "sum(distinct x) keeps every value")]
#[case("count(i, x)", "count takes one argument, found 2")]
#[case("sum(s)", "sum: expected a number, found Utf8View")]
#[case("bool_and(i)", "bool_and: expected a boolean, found Int64")]
#[case("bit_or(x)", "bit_or: expected an integer, found Float64")]
#[case("approx_percentile_cont(x, 1.5)", "constant between 0 and 1")]
#[case("approx_percentile_cont(x, i)", "constant between 0 and 1")]
#[case("approx_percentile_cont(x, 0.5, 100)", "takes no number of centroids")]
#[case("approx_median(DISTINCT x)", "keeps every value")]
#[case("min(make_array(i))", "has no order here")]
#[case("corr(i)", "corr takes two arguments, found 1")]
#[case("regr_slope(s, i)", "regr_slope: expected a number, found Utf8View")]
#[case("percentile_cont(x, 2)", "constant between 0 and 1")]
#[case("median_exact(s)", "median_exact: expected a number, found Utf8View")]
#[case("approx_top_k(s, 0)", "constant from 1 to 1000")]
#[case("approx_top_k(s, 1.5)", "must be an integer")]
#[case("arg_min(s)", "arg_min takes 2 arguments, found 1")]
fn refuses(#[case] call: &str, #[case] reason: &str) {
    let error = query(&format!("SELECT {call} FROM t")).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
}
