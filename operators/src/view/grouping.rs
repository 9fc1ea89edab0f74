//! Groups in other words: `SELECT DISTINCT`, and the sets of `ROLLUP`, `CUBE` and `GROUPING SETS`.
//!
//! With grouping sets a record is folded once for each set; a cell's key is the columns, nulls where the
//! set has none, and the number of the set, which `grouping()` is computed from. The set `()` has a row as
//! soon as a record was counted.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};

/// `SELECT DISTINCT` over the stream: groups without an aggregate.
pub(super) fn distinct_as_groups(plan: LogicalPlan) -> Result<LogicalPlan> {
    if plan.exists(|node| Ok(matches!(node, LogicalPlan::Aggregate(_))))? {
        return Ok(plan);
    }
    let grouped = plan.transform_down(|node| match node {
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let groups = LogicalPlan::Aggregate(groups_of(input)?);
            Ok(Transformed::new(groups, true, TreeNodeRecursion::Stop))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(grouped.data)
}

/// The groups of a `SELECT`'s columns: over what it reads, so that a row's time is still there to say whether
/// it is late; over its output where two columns are the same.
fn groups_of(input: Arc<LogicalPlan>) -> Result<Aggregate> {
    if let LogicalPlan::Projection(select) = input.as_ref() {
        let plain: HashSet<Expr> = select.expr.iter().map(|column| column.clone().unalias()).collect();
        if plain.len() == select.expr.len() {
            return Aggregate::try_new(Arc::clone(&select.input), select.expr.clone(), vec![]);
        }
    }
    let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
    Aggregate::try_new(input, columns, vec![])
}

/// The keys as they are written, without the sets that they are grouped in.
pub(super) fn plain_keys(aggregate: &Aggregate) -> Result<Vec<Expr>> {
    Ok(grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect())
}
