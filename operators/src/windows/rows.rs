//! Windows as ordinary relations, for queries and for the auditor's oracle: a record that lies in several
//! windows becomes several rows, and sessions are found with window functions. Views do it another way.

use datafusion::common::{Column, Result};
use datafusion::functions_aggregate::{min_max, sum};
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit, when};

use super::function::{Part, before, window_call};
use super::planner::{WINDOW_END, WINDOW_START, columns_of};
use super::spec::WindowSpec;
use crate::canonical;

/// The bound that tells a row's window apart.
const BOUND: &str = "_window";
/// The time of the event before.
const BEFORE: &str = "_before";
/// 1 where a session begins.
const BEGINS: &str = "_begins";
/// Which session of its key a row is in.
const NUMBER: &str = "_session";

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// `HOP` and `CUMULATE`: a row per record and window.
pub(super) fn of_panes(input: LogicalPlan, spec: &WindowSpec, time: Expr) -> Result<LogicalPlan> {
    let columns = columns_of(input.schema());
    let mut with_bounds = columns.clone();
    with_bounds.push(window_call(spec, Part::All, vec![time]).alias(BOUND));
    let rows = LogicalPlanBuilder::from(input).project(with_bounds)?.unnest_column(Column::new_unqualified(BOUND))?;
    let mut windows = columns;
    windows.push(window_call(spec, Part::StartOfBound, vec![column(BOUND)]).alias(WINDOW_START));
    windows.push(window_call(spec, Part::EndOfBound, vec![column(BOUND)]).alias(WINDOW_END));
    rows.project(windows)?.build()
}

/// `SESSION`: a session begins where the event before is more than the gap away; sessions are numbered by
/// how many have begun.
pub(super) fn of_sessions(input: LogicalPlan, time: &Expr, keys: &[Expr], gap_us: i64) -> Result<LogicalPlan> {
    let columns = columns_of(input.schema());
    // as everywhere, 0.0 and -0.0 are one key
    let keys = keys.iter().map(|key| {
        let is_float = key.get_type(input.schema())?.is_floating();
        Ok(if is_float { canonical::float(key.clone()) } else { key.clone() })
    });
    let keys = keys.collect::<Result<Vec<Expr>>>()?;
    let in_order = vec![time.clone().sort(true, true)];
    let previous = lag(time.clone(), Some(1), None).partition_by(keys.clone()).order_by(in_order.clone()).build()?;
    let begins = when(column(BEFORE).lt(before(time.clone(), gap_us)), lit(1_i64))
        .when(column(BEFORE).is_null(), lit(1_i64))
        .otherwise(lit(0_i64))?;
    let number = Expr::from(WindowFunction::new(sum::sum_udaf(), vec![column(BEGINS)]))
        .partition_by(keys.clone())
        .order_by(in_order)
        .build()?;
    let with = |more: Expr| -> Vec<Expr> { columns.iter().cloned().chain([more]).collect() };
    let numbered = LogicalPlanBuilder::from(input)
        .window([previous.alias(BEFORE)])?
        .project(with(begins.alias(BEGINS)))?
        .window([number.alias(NUMBER)])?
        .project(with(column(NUMBER)))?;
    let of_session: Vec<Expr> = keys.iter().cloned().chain([column(NUMBER)]).collect();
    let bound = |function| {
        Expr::from(WindowFunction::new(function, vec![time.clone()])).partition_by(of_session.clone()).build()
    };
    let (start, end) = (bound(min_max::min_udaf())?, bound(min_max::max_udaf())?);
    let bounded = numbered.window([start.alias(WINDOW_START), end.alias(WINDOW_END)])?;
    bounded.project(columns.into_iter().chain([column(WINDOW_START), column(WINDOW_END)]).collect::<Vec<_>>())?.build()
}
