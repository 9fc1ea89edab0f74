//! Carries `_partition`, `_offset`, `_max_event_time`, the event time and the lateness of each row up to the aggregate,
//! through subqueries that do not select them.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, Result, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, lit};
use schemas::column::{APPEND_TIME, MAX_EVENT_TIME, OFFSET, PARTITION, PROCESSING_TIME};
use schemas::{Code, Problem, StreamDef};

use super::rows::ORDINAL;
use super::windowed::behind;
use crate::windows::{Part, WINDOW_END_FUNCTION, WINDOW_START_FUNCTION, WindowFunction, before, window_call};

/// True for a row whose window had closed when its record came.
pub(super) const LATE_ROW: &str = "_late_row";

/// The event time of a row, where a subquery does not hand on the column that it is.
pub(super) const EVENT_TIME: &str = "_event_time";

/// What is carried up to the aggregate whatever the projections on the way name.
const CARRIED: [&str; 5] = [PARTITION, OFFSET, MAX_EVENT_TIME, EVENT_TIME, LATE_ROW];

/// Time-bucket functions: monotone in their time argument, so that "the watermark lies in a later
/// bucket than the event" is "the event's bucket has ended".
const BUCKETS: [&str; 4] = ["date_trunc", "date_bin", WINDOW_START_FUNCTION, WINDOW_END_FUNCTION];

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
    check_names(projection)?;
    let input = thread(&projection.input, stream)?;
    let mut expressions = projection.expr.clone();
    let present: HashSet<String> = projection.schema.fields().iter().map(|field| field.name().clone()).collect();
    for name in CARRIED {
        if let (false, Some(column)) = (present.contains(name), hidden(&input, name)) {
            expressions.push(column);
        }
    }
    let is_handed_on = expressions.iter().any(|expression| is_event_time(expression, &input, stream));
    if let (false, Some(time)) = (is_handed_on, event_time(&input, stream)) {
        expressions.push(time.alias(EVENT_TIME));
    }
    if hidden(&input, LATE_ROW).is_none()
        && let Some(late) = late_row(&projection.expr, &input, stream)?
    {
        expressions.push(late.alias(LATE_ROW));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(input))?))
}

/// A value of the user's under the name of a hidden column would be taken for that column: for a record's place in
/// the log, or for its watermark.
fn check_names(projection: &Projection) -> Result<()> {
    for (expression, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let name = field.name();
        let is_itself = matches!(expression.clone().unalias(), Expr::Column(column) if column.name == *name);
        if (CARRIED.contains(&name.as_str()) || name == ORDINAL) && !is_itself {
            let detail = format!("{name} is the name of a column of the platform");
            let problem = Problem::new(Code::InvalidSql, detail).with_hint("give the column another name with AS");
            return Err(DataFusionError::External(Box::new(problem)));
        }
    }
    Ok(())
}

/// The column of that name in a plan's output, whatever its qualifier.
pub(super) fn hidden(plan: &LogicalPlan, name: &str) -> Option<Expr> {
    let found = plan.schema().iter().find(|(_, field)| field.name() == name);
    found.map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name())))
}

/// True if an expression over `input` is one of these columns of the stream, whatever it is called on its way.
pub(super) fn is_stream_column(expression: &Expr, input: &LogicalPlan, stream: &StreamDef, names: &[&str]) -> bool {
    let Expr::Column(column) = expression.clone().unalias() else { return false };
    match behind(input, &column) {
        Some((Expr::Column(origin), LogicalPlan::TableScan(scan))) => {
            scan.table_name.table() == stream.name && names.contains(&origin.name.as_str())
        }
        _ => false,
    }
}

/// True if an expression is the event time as the stream has it. A column that only has its name is not.
pub(super) fn is_event_time(expression: &Expr, input: &LogicalPlan, stream: &StreamDef) -> bool {
    stream.time_column.as_deref().is_some_and(|name| is_stream_column(expression, input, stream, &[name]))
}

/// The column of a plan's output that is the event time.
fn event_time(plan: &LogicalPlan, stream: &StreamDef) -> Option<Expr> {
    let mut columns = plan.schema().columns().into_iter().map(Expr::Column);
    columns.find(|column| is_event_time(column, plan, stream))
}

/// "This row's bucket had ended by the watermark": from the first time-bucket expression among `expressions`.
/// Of a row that lies in several windows, the last of them. Windows over the log's own time or over positions never have
/// a late row: these do not decrease within a partition.
pub(super) fn late_row(expressions: &[Expr], input: &LogicalPlan, stream: &StreamDef) -> Result<Option<Expr>> {
    let Some(watermark) = watermark(input, stream) else { return Ok(None) };
    let is_time = |expression: &Expr| is_event_time(expression, input, stream);
    if let Some(end) = expressions.iter().find_map(|expression| end_of_windows(expression, &is_time)) {
        return Ok(Some(known(watermark.gt_eq(end))));
    }
    if let Some(bucket) = expressions.iter().find_map(|expression| bucket_of(expression, &is_time)) {
        return Ok(Some(known(at(&bucket, &is_time, &watermark)?.gt(bucket))));
    }
    let is_log_time =
        |expression: &Expr| is_stream_column(expression, input, stream, &[APPEND_TIME, PROCESSING_TIME, OFFSET]);
    let is_of_log_time = |expression: &Expr| {
        end_of_windows(expression, &is_log_time).is_some() || bucket_of(expression, &is_log_time).is_some()
    };
    Ok(expressions.iter().any(is_of_log_time).then(|| lit(false)))
}

/// A bucket of the event time, at another time.
pub(super) fn at(bucket: &Expr, is_time: &dyn Fn(&Expr) -> bool, time: &Expr) -> Result<Expr> {
    let moved = |e: Expr| Ok(if is_time(&e) { Transformed::yes(time.clone()) } else { Transformed::no(e) });
    Ok(bucket.clone().transform(moved)?.data)
}

/// "This row's time lies behind the watermark": for views without a time bucket.
pub(super) fn late_event(input: &LogicalPlan, stream: &StreamDef) -> Option<Expr> {
    let (time, watermark) = (event_time(input, stream)?, watermark(input, stream)?);
    Some(known(time.lt(watermark)))
}

/// The first record of a partition has no watermark before it: it is not late.
fn known(late: Expr) -> Expr {
    datafusion::functions::core::expr_fn::coalesce(vec![late, lit(false)])
}

/// The watermark of the record's partition before it came.
fn watermark(input: &LogicalPlan, stream: &StreamDef) -> Option<Expr> {
    stream.time_column.as_ref()?;
    hidden(input, MAX_EVENT_TIME).map(|largest| before(largest, stream.watermark_delay_us))
}

/// The call of a time bucket that an expression is.
pub(super) fn bucket_of(expression: &Expr, is_time: &dyn Fn(&Expr) -> bool) -> Option<Expr> {
    let expression = expression.clone().unalias();
    let Expr::ScalarFunction(ScalarFunction { func, args }) = &expression else { return None };
    let is_bucket = BUCKETS.contains(&func.name()) && args.iter().filter(|arg| is_time(arg)).count() == 1;
    is_bucket.then_some(expression)
}

/// When the last window of a time has ended, if the expression is a bound of its windows.
fn end_of_windows(expression: &Expr, is_time: &dyn Fn(&Expr) -> bool) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expression.clone().unalias() else { return None };
    let window = func.inner().downcast_ref::<WindowFunction>()?;
    let time = args.first().filter(|time| is_time(time))?;
    let is_bound = matches!(window.part, Part::Start | Part::End);
    is_bound.then(|| window_call(&window.spec, Part::EndOfLast, vec![time.clone()]))
}
