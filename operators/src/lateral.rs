//! `FROM stream CROSS JOIN UNNEST(stream.tags) AS t(tag)`: a join with what one row holds itself.
//!
//! DataFusion plans it as a join with a subquery that refers to the row outside, and cannot run that. It is
//! the same as taking the arrays of a row apart beside the row's other columns, which it can.
//!
//! ```text
//! Join                                 Projection  s.*, tag AS t.tag
//!   s                                    Unnest
//!   t: Subquery                   ──►      Projection  s.*, s.tags
//!        Unnest                              s
//!          Projection  outer(s.tags)
//!            one empty row
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, TableReference};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{EmptyRelation, Expr, Join, JoinType, LogicalPlan, Projection, Unnest};
use sqlparser::ast::{FunctionArg, FunctionArgExpr, ObjectName, TableFactor};

/// Qualifies what the subquery computes while the row's own columns stand beside it: no table is called so.
const INSIDE: &str = "__lateral";
/// What DataFusion calls a column that is about to be taken apart: no user's column is called so.
pub(crate) const PLACEHOLDER: &str = "__unnest_placeholder";

/// The plan with joins of this kind written as what can be run. Other plans are handed back as they are.
///
/// # Errors
/// DataFusion refuses the new plan: our bug.
pub fn without_lateral(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(rewrite)?.data)
}

fn rewrite(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
    if join.join_type != JoinType::Inner || !join.on.is_empty() || !is_always(join) {
        return Ok(Transformed::no(node));
    }
    let Some(inside) = inside_of(&join.right) else { return Ok(Transformed::no(node)) };
    let left = columns_of(join.left.schema());
    let Some(grafted) = graft(inside, &join.left, &left)? else { return Ok(Transformed::no(node)) };
    let inner = grafted.schema().columns().split_off(left.len());
    let named = inner
        .into_iter()
        .zip(join.right.schema().iter())
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
    let columns = left.into_iter().chain(named).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(grafted))?)))
}

fn is_always(join: &Join) -> bool {
    matches!(&join.filter, None | Some(Expr::Literal(ScalarValue::Boolean(Some(true)), _)))
}

/// The subquery of the right side, without the names that are put on it.
fn inside_of(right: &LogicalPlan) -> Option<&LogicalPlan> {
    match right {
        LogicalPlan::Subquery(subquery) => Some(&subquery.subquery),
        LogicalPlan::SubqueryAlias(alias) => inside_of(&alias.input),
        _ => None,
    }
}

fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

/// The subquery over the rows of `row` and not over one empty row, with their columns before its own; none if
/// it does more than to take arrays apart.
fn graft(plan: &LogicalPlan, row: &Arc<LogicalPlan>, left: &[Expr]) -> Result<Option<LogicalPlan>> {
    Ok(Some(match plan {
        LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. }) => row.as_ref().clone(),
        LogicalPlan::Projection(projection) => {
            let Some(input) = graft(&projection.input, row, left)? else { return Ok(None) };
            let inner = input.schema().columns().split_off(left.len());
            let mut columns = left.to_vec();
            for (expression, field) in projection.expr.iter().zip(projection.schema.fields()) {
                let qualifier = (!field.name().starts_with(PLACEHOLDER)).then(|| TableReference::bare(INSIDE));
                let resolved = resolve(expression.clone().unalias(), &inner)?;
                columns.push(resolved.alias_qualified(qualifier, field.name()));
            }
            LogicalPlan::Projection(Projection::try_new(columns, Arc::new(input))?)
        }
        LogicalPlan::Unnest(unnest) => {
            let Some(input) = graft(&unnest.input, row, left)? else { return Ok(None) };
            let columns = unnest.exec_columns.clone();
            LogicalPlan::Unnest(Unnest::try_new(Arc::new(input), columns, unnest.options.clone())?)
        }
        _ => return Ok(None),
    }))
}

/// An expression of the subquery: its own columns by the names that they have beside the row's.
fn resolve(expression: Expr, inner: &[Column]) -> Result<Expr> {
    let resolved = expression.transform(|part| {
        Ok(match part {
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            Expr::Column(column) => {
                let own = inner.iter().find(|own| own.name == column.name).cloned();
                Transformed::yes(Expr::Column(own.unwrap_or(column)))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(resolved.data)
}

/// Plans `LATERAL unnest(tags)`, which the parser takes for any function.
#[derive(Debug, Default)]
pub struct LateralPlanner;

impl RelationPlanner for LateralPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Function { name, args, alias, with_ordinality, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let plain = |arg: &FunctionArg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
            _ => None,
        };
        let Some(array_exprs) = args.iter().map(plain).collect::<Option<Vec<_>>>().filter(|_| is_unnest(name)) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let unnest = TableFactor::UNNEST {
            alias: None,
            array_exprs,
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: *with_ordinality,
        };
        let plan = context.plan(unnest)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

fn is_unnest(name: &ObjectName) -> bool {
    name.to_string().eq_ignore_ascii_case("unnest")
}
