//! A view's plan, taken apart: its aggregate, what that reads, and what is done after the merge.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, lit};
use schemas::LatePolicy;

use super::dimension::Split;
use super::grouping::plain_keys;
use super::hidden::{LATE_ROW, hidden, late_event, late_row, thread};
use super::rows::{as_cells, is_of_rows, rows_of};
use super::windowed::{Keys, check_counted, check_counted_rows};
use super::{ViewSource, dimension, side};

/// A view, split at its aggregate.
pub(super) struct Parsed {
    pub(super) plan: LogicalPlan,
    pub(super) aggregate: Aggregate,
    /// What the stored aggregate reads, with the hidden columns.
    pub(super) input: LogicalPlan,
    pub(super) keys: Keys,
    /// Of a view that joins a table when it is read: what is done after the merge.
    pub(super) split: Option<Split>,
}

/// Finds the aggregate; of a view of rows, or of nothing but late events, makes the one that has a cell for each.
pub(super) fn parse(source: &ViewSource<'_>, analyzed: &LogicalPlan) -> Result<Parsed> {
    if is_of_rows(analyzed) {
        dimension::refuse_in_rows(analyzed, source)?;
        check_counted_rows(rows_of(analyzed), source.stream)?;
        return with_own_input(as_cells(analyzed, source)?, Keys::of);
    }
    let aggregate = find_aggregate(analyzed)?;
    let split = dimension::split(&aggregate, source)?;
    let stored = split.as_ref().map_or(&aggregate, |split| &split.stored);
    check_counted(stored, source.stream)?;
    let keys = Keys::of(stored)?;
    if let (Some(_), Some(_)) = (&split, &keys.windows) {
        return Err(dimension::with_windows());
    }
    let input = with_lateness(source, stored)?;
    if source.late != LatePolicy::Only {
        return Ok(Parsed { plan: analyzed.clone(), aggregate, input, keys, split });
    }
    with_own_input(side::late_rows(input)?, |aggregate| Ok(Keys::without_windows(aggregate)))
}

/// A plan whose aggregate has the hidden columns below it already.
fn with_own_input(plan: LogicalPlan, keys: impl Fn(&Aggregate) -> Result<Keys>) -> Result<Parsed> {
    let aggregate = find_aggregate(&plan)?;
    let keys = keys(&aggregate)?;
    let input = aggregate.input.as_ref().clone();
    Ok(Parsed { plan, aggregate, input, keys, split: None })
}

fn find_aggregate(plan: &LogicalPlan) -> Result<Aggregate> {
    let mut found = None;
    plan.apply(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            found = Some(aggregate.clone());
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    found.map_or_else(|| internal_err!("the aggregate of the view is gone"), Ok)
}

/// What the aggregate reads, with the hidden columns: each row's place in the log, and whether it is late.
fn with_lateness(source: &ViewSource<'_>, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let input = thread(&aggregate.input, source.stream)?;
    if hidden(&input, LATE_ROW).is_some() {
        return Ok(input);
    }
    let late = late_row(&plain_keys(aggregate)?, &input, source.stream)?;
    let late = late.or_else(|| late_event(&input, source.stream)).unwrap_or_else(|| lit(false));
    let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(late.alias(LATE_ROW));
    LogicalPlanBuilder::from(input).project(columns)?.build()
}
