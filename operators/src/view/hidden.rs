//! Carries `_partition`, `_offset`, `_max_event_time` and the lateness of each row up to the aggregate.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, lit};
use schemas::StreamDef;
use schemas::column::{MAX_EVENT_TIME, OFFSET, PARTITION, timestamp_type};

use crate::windows::{Part, WINDOW_START_FUNCTION, WindowFunction, before, window_call};

/// True for a row whose window had closed when its record came.
pub(super) const LATE_ROW: &str = "_late_row";

/// Time-bucket functions: monotone in their time argument, so that "the watermark lies in a later
/// bucket than the event" is "the event's bucket has ended".
const BUCKETS: [&str; 3] = ["date_trunc", "date_bin", WINDOW_START_FUNCTION];

/// Rebuilds `plan` so that the hidden columns reach its output.
pub(super) fn thread(plan: &LogicalPlan, stream: &StreamDef) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Ok(plan.clone()),
        LogicalPlan::Projection(projection) => thread_projection(projection, stream),
        LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Join(_) | LogicalPlan::Unnest(_) => {
            let inputs: Vec<LogicalPlan> =
                plan.inputs().into_iter().map(|input| thread(input, stream)).collect::<Result<_>>()?;
            plan.with_new_exprs(plan.expressions(), inputs)
        }
        other => plan_err!("{} below the aggregate of a view", other.display()),
    }
}

fn thread_projection(projection: &Projection, stream: &StreamDef) -> Result<LogicalPlan> {
    let input = thread(&projection.input, stream)?;
    let mut expressions = projection.expr.clone();
    let present: HashSet<String> = projection.schema.fields().iter().map(|field| field.name().clone()).collect();
    for name in [PARTITION, OFFSET, MAX_EVENT_TIME, LATE_ROW] {
        if let (false, Some(column)) = (present.contains(name), hidden(&input, name)) {
            expressions.push(column);
        }
    }
    if hidden(&input, LATE_ROW).is_none()
        && !present.contains(LATE_ROW)
        && let Some(late) = late_row(&projection.expr, &input, stream)?
    {
        expressions.push(late.alias(LATE_ROW));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(input))?))
}

/// The column of that name in a plan's output, whatever its qualifier.
pub(super) fn hidden(plan: &LogicalPlan, name: &str) -> Option<Expr> {
    let found = plan.schema().iter().find(|(_, field)| field.name() == name);
    found.map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name())))
}

/// "This row's bucket had ended by the watermark": from the first time-bucket expression among `expressions`.
/// Of a row that lies in several windows, the last of them.
pub(super) fn late_row(expressions: &[Expr], input: &LogicalPlan, stream: &StreamDef) -> Result<Option<Expr>> {
    let Some((time, watermark)) = time_and_watermark(input, stream)? else { return Ok(None) };
    if let Some(end) = expressions.iter().find_map(|expression| end_of_windows(expression, &time)) {
        return Ok(Some(known(watermark.gt_eq(end))));
    }
    let Some(bucket) = expressions.iter().find_map(|expression| bucket_of(expression, &time)) else {
        return Ok(None);
    };
    let at_watermark = bucket
        .clone()
        .transform(|e| Ok(if e == time { Transformed::yes(watermark.clone()) } else { Transformed::no(e) }))?
        .data;
    Ok(Some(known(at_watermark.gt(bucket))))
}

/// "This row's time lies behind the watermark": for views without a time bucket.
pub(super) fn late_event(input: &LogicalPlan, stream: &StreamDef) -> Result<Option<Expr>> {
    Ok(time_and_watermark(input, stream)?.map(|(time, watermark)| known(time.lt(watermark))))
}

/// The first record of a partition has no watermark before it: it is not late.
fn known(late: Expr) -> Expr {
    datafusion::functions::core::expr_fn::coalesce(vec![late, lit(false)])
}

fn time_and_watermark(input: &LogicalPlan, stream: &StreamDef) -> Result<Option<(Expr, Expr)>> {
    let Some(name) = &stream.time_column else { return Ok(None) };
    let (Some(time), Some(largest)) = (hidden(input, name), hidden(input, MAX_EVENT_TIME)) else { return Ok(None) };
    if time.get_type(input.schema())? != timestamp_type() {
        return Ok(None);
    }
    Ok(Some((time, before(largest, stream.watermark_delay_us))))
}

fn bucket_of(expression: &Expr, time: &Expr) -> Option<Expr> {
    let expression = expression.clone().unalias();
    let Expr::ScalarFunction(ScalarFunction { func, args }) = &expression else { return None };
    let is_bucket = BUCKETS.contains(&func.name()) && args.iter().filter(|arg| *arg == time).count() == 1;
    is_bucket.then_some(expression)
}

/// When the last window of a time has ended, if the expression is a bound of its windows.
fn end_of_windows(expression: &Expr, time: &Expr) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expression.clone().unalias() else { return None };
    let window = func.inner().downcast_ref::<WindowFunction>()?;
    let is_bound = matches!(window.part, Part::Start | Part::End) && args.first() == Some(time);
    is_bound.then(|| window_call(&window.spec, Part::EndOfLast, vec![time.clone()]))
}
