//! Keys in `ROLLUP`, `CUBE` and `GROUPING SETS` whose types are coerced, each under its own name.
//!
//! DataFusion keeps the name of whatever coercion changes. It does so for a set of groups as a whole: `CUBE(…)`
//! becomes `CUBE(…) AS …`, is no set of groups to it any more, and has no number that `grouping()` is computed
//! from. This rule coerces the keys one by one, so that the set stays as it is.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;

/// The rule. It must come before the coercion of types, and after `grouping()` was resolved.
#[derive(Debug, Default)]
pub(crate) struct SetKeys;

impl AnalyzerRule for SetKeys {
    fn name(&self) -> &'static str {
        "set_keys"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(rewrite)?.data)
    }
}

fn rewrite(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = node else { return Ok(Transformed::no(node)) };
    let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let schema = aggregate.input.schema();
    let coerced = |keys: &[Expr]| keys.iter().map(|key| coerced(key, schema)).collect::<Result<Vec<_>>>();
    let sets = match sets {
        GroupingSet::Rollup(keys) => GroupingSet::Rollup(coerced(keys)?),
        GroupingSet::Cube(keys) => GroupingSet::Cube(coerced(keys)?),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.iter().map(|keys| coerced(keys)).collect::<Result<_>>()?)
        }
    };
    let groups = vec![Expr::GroupingSet(sets)];
    Aggregate::try_new(aggregate.input, groups, aggregate.aggr_expr).map(LogicalPlan::Aggregate).map(Transformed::yes)
}

/// The key with its types coerced, called as before.
fn coerced(key: &Expr, schema: &DFSchema) -> Result<Expr> {
    let coerced = key.clone().rewrite(&mut TypeCoercionRewriter::new(schema))?.data;
    Ok(if coerced == *key { coerced } else { coerced.alias(key.schema_name().to_string()) })
}
