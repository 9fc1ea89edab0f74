//! `window_final`: is the window of a row closed for everything that comes in time?
//!
//! A window is final at a watermark when every record that could lie in it would be late, in whatever partition it
//! came: what is in time cannot change it any more. That is a matter of lateness and not only of the window's end: a
//! record is late when the *last* of its windows has ended, so a window of `HOP` or `CUMULATE` stays open as long as
//! the last window that shares an instant with it, and a session as long as a record that joins it would be in time.
//!
//! ```text
//!  TUMBLE, date_trunc, date_bin   the watermark lies in a later bucket
//!  HOP, CUMULATE                  watermark ≥ end of the last window of the window's last instant
//!  SESSION                        watermark > last event + 2 gaps: what joins it is at most a gap after its last
//!                                 event, and late when the watermark is more than a gap after itself
//!  COUNT_WINDOW                   the partition has a record at the window's end or behind it, or ends there
//! ```

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Column, DFSchema, Result, ScalarValue, TableReference};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, lit};
use schemas::column::PARTITION;
use schemas::{LatePolicy, Offset, Problem, StreamDef};

use super::grouping::plain_keys;
use super::hidden::{at, bucket_of, hidden, is_event_time, is_stream_column};
use super::windowed::{Keys, as_column, behind};
use super::{CELLS, View, ViewSource};
use crate::cells::compute_problem;
use crate::windows::{Part, WindowFunction, WindowSpec, Windows, window_call};

/// The column that says whether a row's window is final. As with PostgreSQL's system columns, a query has it where it
/// names it, and `*` is without it.
pub const WINDOW_FINAL: &str = "window_final";

/// How far an answer goes: what it was made from, and nothing else, decides which of its windows are final.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    /// The smallest watermark of all partitions; none if there is a partition without an event.
    pub watermark_us: Option<i64>,
    /// Of each partition, the first offset that is not in the answer: what windows of so many records are closed by.
    pub ends: Vec<Offset>,
}

/// Stands for the watermark in a bucket's call.
const WATERMARK: &str = "_watermark";

/// How a cell's key says when its window is final.
#[derive(Debug, Clone)]
pub(super) enum Finality {
    /// A key is a bucket of the event time: the call, of the column [`WATERMARK`].
    Bucket { key: usize, call: Expr },
    /// A key is the bound of a window that shares records with others.
    Panes { key: usize, spec: WindowSpec },
    /// A key is a bound of windows over positions, `to_end` before their end; another one is their partition.
    Positions { key: usize, to_end: i64, partition: usize },
    /// A key is the last event of a session.
    Session { key: usize, gap_us: i64 },
}

impl Finality {
    /// None where no key is a window over the stream's event time: no watermark closes the cells then.
    pub(super) fn of(aggregate: &Aggregate, keys: &Keys, source: &ViewSource<'_>) -> Result<Option<Self>> {
        if source.late == LatePolicy::Only {
            return Ok(None);
        }
        let stream = source.stream;
        let is_over_event_time = || aggregate.group_expr.iter().any(|key| is_window(key, &aggregate.input, stream));
        if let Some(counted) = counted(aggregate, keys, stream) {
            return Ok(Some(counted));
        }
        Ok(match &keys.windows {
            Some(Windows::Panes { key, spec }) if is_over_event_time() => {
                Some(Self::Panes { key: *key, spec: spec.clone() })
            }
            Some(Windows::Sessions { gap_us }) if is_over_event_time() => {
                Some(Self::Session { key: keys.stored.len() - 1, gap_us: *gap_us })
            }
            Some(_) => None,
            None => {
                let plain = plain_keys(aggregate)?;
                let bucket = |(key, expression): (usize, &Expr)| {
                    Some(Self::Bucket { key, call: bucket_at_watermark(expression, &aggregate.input, stream)? })
                };
                plain.iter().enumerate().find_map(bucket)
            }
        })
    }

    /// "The window is final", over the columns of the answered cells.
    fn expression(&self, cell: impl Fn(usize) -> Expr, frontier: &Frontier) -> Result<Expr> {
        let watermark_us = match (self, frontier.watermark_us) {
            (Self::Positions { key, to_end, partition }, _) => {
                return Ok(has_reached(&(cell(*key) + lit(*to_end)), &cell(*partition), &frontier.ends));
            }
            (_, None) => return Ok(lit(false)),
            (_, Some(watermark_us)) => watermark_us,
        };
        let time = |us: i64| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
        let is_final = match self {
            Self::Bucket { key, call } => {
                let is_watermark = |e: &Expr| matches!(e, Expr::Column(column) if column.name == WATERMARK);
                at(call, &is_watermark, &time(watermark_us))?.gt(cell(*key))
            }
            Self::Panes { key, spec } => time(watermark_us).gt_eq(window_call(spec, Part::FinalFrom, vec![cell(*key)])),
            Self::Positions { .. } => lit(false),
            Self::Session { key, gap_us } => cell(*key).lt(time(watermark_us.saturating_sub(gap_us.saturating_mul(2)))),
        };
        // a window without a time is never closed
        Ok(is_final.is_true())
    }
}

/// "The partition has all records before the window's end."
fn has_reached(end: &Expr, partition: &Expr, ends: &[Offset]) -> Expr {
    let reached = (0_i32..)
        .zip(ends)
        .map(|(number, reached)| partition.clone().eq(lit(number)).and(end.clone().lt_eq(lit(*reached as i64))));
    reached.reduce(Expr::or).unwrap_or_else(|| lit(false)).is_true()
}

/// The rule of windows over positions, if the view has some among its keys.
fn counted(aggregate: &Aggregate, keys: &Keys, stream: &StreamDef) -> Option<Finality> {
    let is_partition = |key: &Expr| is_stream_column(key, &aggregate.input, stream, &[PARTITION]);
    let partition = keys.stored.iter().position(is_partition)?;
    let bound = |key: &Expr| match origin(key, &aggregate.input)? {
        (Expr::ScalarFunction(ScalarFunction { func, .. }), _) => {
            let function = func.inner().downcast_ref::<WindowFunction>()?;
            let is_end = function.part == Part::End && !function.spec.is_shared();
            function.spec.is_counted().then(|| if is_end { 0 } else { function.spec.end_of(0) })
        }
        _ => None,
    };
    let (key, to_end) = keys.stored.iter().enumerate().find_map(|(key, stored)| Some((key, bound(stored)?)))?;
    Some(Finality::Positions { key, to_end, partition })
}

/// The expression that a key is, and the plan that it reads.
fn origin<'a>(key: &Expr, input: &'a LogicalPlan) -> Option<(Expr, &'a LogicalPlan)> {
    match as_column(key) {
        Some(column) => behind(input, &column),
        None => Some((key.clone().unalias(), input)),
    }
}

/// True if a key is a bound of windows over the event time.
fn is_window(key: &Expr, input: &LogicalPlan, stream: &StreamDef) -> bool {
    let Some((Expr::ScalarFunction(ScalarFunction { func, args }), plan)) = origin(key, input) else { return false };
    let Some(function) = func.inner().downcast_ref::<WindowFunction>() else { return false };
    matches!(function.part, Part::Start | Part::End)
        && args.first().is_some_and(|time| is_event_time(time, plan, stream))
}

/// A key that is a bucket of the event time, as a call of the watermark.
fn bucket_at_watermark(key: &Expr, input: &LogicalPlan, stream: &StreamDef) -> Option<Expr> {
    let (call, plan) = origin(key, input)?;
    let is_time = |e: &Expr| is_event_time(e, plan, stream);
    let bucket = match bucket_of(&call, &is_time) {
        Some(bucket) => bucket,
        None => is_window(key, input, stream).then(|| call.unalias())?,
    };
    at(&bucket, &is_time, &Expr::Column(Column::new_unqualified(WATERMARK))).ok()
}

/// The finish with one more column; none if that would not reach its output.
fn thread(plan: &LogicalPlan, flag: &Expr) -> Result<Option<LogicalPlan>> {
    if plan.schema().has_column_with_unqualified_name(WINDOW_FINAL) {
        return Ok(None);
    }
    match plan {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == CELLS => {
            let columns = plan.schema().columns().into_iter().map(Expr::Column);
            let columns: Vec<Expr> = columns.chain([flag.clone().alias(WINDOW_FINAL)]).collect();
            LogicalPlanBuilder::from(plan.clone()).project(columns)?.build().map(Some)
        }
        LogicalPlan::Projection(projection) => {
            let Some(input) = thread(&projection.input, flag)? else { return Ok(None) };
            let columns: Vec<Expr> = projection.expr.iter().cloned().chain(hidden(&input, WINDOW_FINAL)).collect();
            LogicalPlanBuilder::from(input).project(columns)?.build().map(Some)
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::SubqueryAlias(_) => {
            let inputs: Option<Vec<LogicalPlan>> =
                plan.inputs().into_iter().map(|input| thread(input, flag)).collect::<Result<_>>()?;
            inputs.map(|inputs| plan.with_new_exprs(plan.expressions(), inputs)).transpose()
        }
        _ => Ok(None),
    }
}

/// True if a column of the cells can be handed on through the whole finish.
pub(super) fn reaches_the_top(finish: &LogicalPlan) -> bool {
    matches!(thread(finish, &lit(false)), Ok(Some(_)))
}

impl View {
    /// True if the view has windows over its stream's event time, so that its rows can say whether they are final.
    pub fn has_final_windows(&self) -> bool {
        self.finality.is_some()
    }

    /// True if the rows of both views together can say whether their windows are final, by the rule of either: it is a
    /// watermark that closes them, and their keys are the same windows.
    pub fn has_same_final_windows(&self, other: &Self) -> bool {
        let rule = |view: &Self| view.is_closed_by_watermark().then(|| format!("{:?}", view.finality));
        rule(self).is_some_and(|own| rule(other).is_some_and(|others| own == others))
    }

    /// True if it is the watermark that closes the view's windows, and not the number of records.
    pub fn is_closed_by_watermark(&self) -> bool {
        matches!(&self.finality, Some(finality) if !matches!(finality, Finality::Positions { .. }))
    }

    /// [`View::output_schema`], with [`WINDOW_FINAL`] behind it if the view has windows over the event time.
    ///
    /// # Errors
    /// The finish could not be rebuilt.
    pub fn output_schema_with_finality(&self) -> Result<SchemaRef, Problem> {
        let finish = self.finish_with_finality(&Frontier::default()).map_err(|e| compute_problem(&e))?;
        Ok(finish.map_or_else(|| self.output_schema(), |finish| finish.schema().inner().clone()))
    }

    /// The finish with the column [`WINDOW_FINAL`] at the end; none for a view without windows over the event time.
    pub(crate) fn finish_with_finality(&self, frontier: &Frontier) -> Result<Option<LogicalPlan>> {
        let Some(finality) = &self.finality else { return Ok(None) };
        let cell = |key: usize| {
            let name = self.cells.answer_schema.field(key).name();
            Expr::Column(Column::new(Some(TableReference::bare(CELLS)), name))
        };
        thread(&self.finish, &finality.expression(cell, frontier)?)
    }

    /// Of each answered cell (`CellTable::answer`), whether its window is final in an answer that goes so far. None for
    /// a view without windows over the event time.
    ///
    /// Output mode `append` hands out a cell once, when this becomes true of it.
    ///
    /// # Errors
    /// The keys are not the view's.
    pub fn final_windows(&self, answered: &RecordBatch, frontier: &Frontier) -> Result<Option<BooleanArray>, Problem> {
        let Some(finality) = &self.finality else { return Ok(None) };
        let evaluate = || {
            let schema = DFSchema::try_from(answered.schema())?;
            let cell = |key: usize| Expr::Column(Column::new_unqualified(answered.schema_ref().field(key).name()));
            let expression = finality.expression(cell, frontier)?;
            let flags = self.planner.create_physical_expr(expression, &schema)?.evaluate(answered)?;
            Ok(flags.into_array(answered.num_rows())?.as_boolean().clone())
        };
        evaluate().map(Some).map_err(|e| compute_problem(&e))
    }
}
