//! A view without an aggregate: every row that the row program makes is a cell of its own (ADR 0018).
//!
//! ```text
//! Sort, Limit                      finish
//!   rows                    ──►      Projection  _value of each column
//!                                      Aggregate  by _partition, _offset, _ordinal
//!                                        rows, with these three beside their columns
//! ```
//! The key is where the row comes from: its record's position, and which of the record's rows it is. Each
//! column is kept by an aggregate of one value. So fold, merge, checkpoint, run, audit and answer are those of
//! every other view, and the union of both layers is ⊕.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, Filter, LogicalPlan, Projection, cast, lit};
use schemas::column::{OFFSET, PARTITION, is_reserved};
use schemas::{Code, LatePolicy, Problem};

use super::ViewSource;
use super::hidden::{LATE_ROW, hidden, is_stream_column, late_event, thread};
use crate::aggregates::value;

/// Which of its record's rows a row is, from 0: the fold counts them.
pub(crate) const ORDINAL: &str = "_ordinal";

/// True for a view that has no aggregate.
pub(super) fn is_of_rows(plan: &LogicalPlan) -> bool {
    !plan.exists(|node| Ok(matches!(node, LogicalPlan::Aggregate(_)))).unwrap_or(false)
}

/// The rows of a view without an aggregate: what lies below the `ORDER BY` and `LIMIT` that it ends with, which
/// are done over both layers' rows.
pub(super) fn rows_of(plan: &LogicalPlan) -> &LogicalPlan {
    let mut rows = plan;
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::Sort(sort) => {
                rows = &sort.input;
                &sort.input
            }
            LogicalPlan::Limit(limit) => {
                rows = &limit.input;
                &limit.input
            }
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Filter(filter) => &filter.input,
            _ => return rows,
        };
    }
}

/// The same plan with its rows as cells. Of nothing but late events (`late = 'only'`): those rows that the view
/// beside it leaves out, all of them.
///
/// # Errors
/// `invalid_sql`: the view has no column but the platform's own.
pub(super) fn as_cells(plan: &LogicalPlan, source: &ViewSource<'_>) -> Result<LogicalPlan> {
    let rows = rows_of(plan);
    let cells = cells_of(rows, source)?;
    if source.late == LatePolicy::Only { Ok(cells) } else { over(plan, rows, cells) }
}

/// What stands above the rows, over their cells.
fn over(plan: &LogicalPlan, rows: &LogicalPlan, cells: LogicalPlan) -> Result<LogicalPlan> {
    if std::ptr::eq(plan, rows) {
        return Ok(cells);
    }
    let inputs = plan.inputs();
    let [input] = inputs.as_slice() else { return internal_err!("the rows of the view are not in its plan") };
    plan.with_new_exprs(plan.expressions(), vec![over(input, rows, cells)?])
}

fn cells_of(rows: &LogicalPlan, source: &ViewSource<'_>) -> Result<LogicalPlan> {
    let stream = source.stream;
    let input = with_hidden(rows, source)?;
    let position = [PARTITION, OFFSET, ORDINAL].map(|name| hidden(&input, name));
    let [Some(partition), Some(offset), Some(ordinal)] = position else {
        return internal_err!("a position does not reach the rows of the view");
    };
    let (mut calls, mut names) = (vec![], vec![]);
    for (qualifier, field) in rows.schema().iter() {
        let column = Expr::Column((qualifier, field).into());
        if is_reserved(field.name()) && is_stream_column(&column, rows, stream, &[field.name().as_str()]) {
            continue;
        }
        calls.push(value::function().call(vec![kept(column, &input)?]));
        names.push((qualifier.cloned(), field.name().clone()));
    }
    if calls.is_empty() {
        let problem = Problem::new(Code::InvalidSql, "the view has no column of its own")
            .with_hint("give a column of the platform a name: SELECT _append_time AS appended");
        return Err(DataFusionError::External(Box::new(problem)));
    }
    let cells = Aggregate::try_new(Arc::new(input), vec![partition, offset, ordinal], calls)?;
    let values = cells.schema.columns().split_off(3);
    let named = values.into_iter().zip(names);
    let named = named.map(|(column, (qualifier, name))| Expr::Column(column).alias_qualified(qualifier, name));
    Ok(LogicalPlan::Projection(Projection::try_new(named.collect(), Arc::new(LogicalPlan::Aggregate(cells)))?))
}

/// The rows with the hidden columns: their place in the log, their number and whether they are late.
fn with_hidden(rows: &LogicalPlan, source: &ViewSource<'_>) -> Result<LogicalPlan> {
    let threaded = thread(rows, source.stream)?;
    let mut columns: Vec<Expr> = threaded.schema().columns().into_iter().map(Expr::Column).collect();
    if hidden(&threaded, LATE_ROW).is_none() {
        let late = late_event(&threaded, source.stream).unwrap_or_else(|| lit(false));
        columns.push(late.alias(LATE_ROW));
    }
    columns.push(lit(0_i32).alias(ORDINAL));
    let input = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(threaded))?);
    match hidden(&input, LATE_ROW) {
        Some(late) if source.late == LatePolicy::Only => {
            Ok(LogicalPlan::Filter(Filter::try_new(late, Arc::new(input))?))
        }
        _ => Ok(input),
    }
}

/// One string type; floats with one NaN (which of them a computation gives depends on the processor) and one zero.
fn kept(column: Expr, input: &LogicalPlan) -> Result<Expr> {
    Ok(match column.get_type(input.schema())? {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(_, _) => cast(column, DataType::Utf8View),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => crate::canonical::float(column),
        _ => column,
    })
}
