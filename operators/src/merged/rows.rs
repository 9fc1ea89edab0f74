//! The answer of a view without an aggregate: the union of both layers' rows. Their positions are disjoint (H1),
//! so nothing is merged, and a reader that stops early reads little.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, internal_datafusion_err};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use super::{StateSource, filtered, union};
use crate::evidence;
use crate::view::CellPlan;

/// The column of the states that a column of the answer is.
fn stored(plan: &CellPlan, answer: usize) -> usize {
    // keys, count and values, where the states have more evidence than the count
    if answer <= plan.keys { answer } else { answer + evidence::COLUMNS.len() - 1 }
}

/// Columns `wanted` of the answered rows that pass.
pub(super) async fn scan(
    plan: &CellPlan,
    source: &dyn StateSource,
    session: &dyn Session,
    wanted: &[usize],
    filters: Vec<Expr>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let filters = filters.into_iter().map(|filter| over_states(plan, filter)).collect::<Result<Vec<_>>>()?;
    let mut read: BTreeSet<usize> = wanted.iter().map(|column| stored(plan, *column)).collect();
    let filtered_by: BTreeSet<&Column> = filters.iter().flat_map(Expr::column_refs).collect();
    for column in filtered_by {
        read.insert(plan.state_schema.index_of(&column.name)?);
    }
    let read: Vec<usize> = read.into_iter().collect();
    let schema = Arc::new(plan.state_schema.project(&read)?);
    let states = union(source.scan(session, &read, &filters).await?, &schema)?;
    let states = filtered(session, states, filters)?;
    let columns = wanted.iter().map(|column| -> Result<(Arc<dyn PhysicalExpr>, String)> {
        let name = plan.state_schema.field(stored(plan, *column)).name();
        let index = states.schema().index_of(name)?;
        Ok((Arc::new(PhysicalColumn::new(name, index)), plan.answer_schema.field(*column).name().clone()))
    });
    Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Result<Vec<_>>>()?, states)?))
}

/// A filter on the answer as one on the states.
fn over_states(plan: &CellPlan, filter: Expr) -> Result<Expr> {
    let renamed = filter.transform(|part| {
        let Expr::Column(column) = &part else { return Ok(Transformed::no(part)) };
        let answer = plan.answer_schema.index_of(&column.name)?;
        let field = plan.state_schema.fields().get(stored(plan, answer));
        let field = field.ok_or_else(|| internal_datafusion_err!("the states have no column for {column}"))?;
        Ok(Transformed::yes(Expr::Column(Column::new_unqualified(field.name()))))
    })?;
    Ok(renamed.data)
}
