//! A view of nothing but late events (`late = 'only'`): what `late = 'side'` makes beside a view.
//!
//! Each late event is a cell of its own, whose key is all of it: its place in the log first, then the columns that
//! the other view's aggregate reads. So both layers, certificates and recovery treat it as any other view.
//! Items of one array may be alike: where one is taken apart, the number of the row comes behind the place.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, Result, internal_err};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Projection, lit};
use schemas::column::{OFFSET, PARTITION, PROCESSING_TIME};

use super::hidden::{LATE_ROW, hidden};
use super::rows::ORDINAL;
use super::windowed::shared_behind;
use crate::lateral::PLACEHOLDER;

/// The rows of `input` that are late, each a group: `input` is what an aggregate reads, with the hidden columns.
pub(super) fn late_rows(input: LogicalPlan) -> Result<LogicalPlan> {
    let Some(late) = hidden(&input, LATE_ROW) else { return internal_err!("lateness does not reach the aggregate") };
    let rows = numbered(LogicalPlanBuilder::from(input).filter(late)?.build()?)?;
    let mut shown = rows.schema().columns();
    shown.retain(|column| is_shown(column, &rows));
    let mut keys = shown.clone();
    keys.sort_by_key(|column| match column.name() {
        PARTITION => 0,
        OFFSET => 1,
        ORDINAL => 2,
        _ => 3,
    });
    let grouped = Aggregate::try_new(Arc::new(rows), keys.into_iter().map(Expr::Column).collect(), vec![])?;
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(grouped)).project(named(shown))?.build()
}

/// Rows with room for their number, if they are items of arrays.
fn numbered(rows: LogicalPlan) -> Result<LogicalPlan> {
    if !rows.exists(|node| Ok(matches!(node, LogicalPlan::Unnest(_))))? {
        return Ok(rows);
    }
    let mut columns: Vec<Expr> = rows.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(lit(0_i32).alias(ORDINAL));
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(rows))?))
}

/// A late event is in no window that others share any more; the processing time is the append time once more.
fn is_shown(column: &Column, input: &LogicalPlan) -> bool {
    !matches!(column.name(), LATE_ROW | PROCESSING_TIME)
        && shared_behind(&Expr::Column(column.clone()), input).is_none()
}

/// Columns under their own names; of two with the same one, the second has its table's before it.
fn named(columns: Vec<Column>) -> Vec<Expr> {
    let mut taken = BTreeSet::new();
    let mut named = vec![];
    for column in columns {
        let table = column.relation.as_ref().map_or("other", |table| table.table());
        // an array that is taken apart in the `SELECT` of the aggregate has no name of the user's
        let mut name = if column.name.starts_with(PLACEHOLDER) { "item".to_owned() } else { column.name.clone() };
        if taken.contains(&name) {
            name = format!("{table}_{name}");
        }
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        named.push(Expr::Column(column).alias(name));
    }
    named
}
