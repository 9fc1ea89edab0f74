//! Preconditions H2 and H7: what could not be folded twice with the same result is refused at `CREATE`,
//! with the reason and, where there is one, the spelling that works.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, JoinType, Result};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Volatility};
use schemas::{Code, Problem};

use super::rows::rows_of;
use crate::aggregates;

fn not_mergeable(reason: impl Into<String>, hint: &str) -> Problem {
    Problem::new(Code::NotMergeable, reason).with_hint(hint)
}

/// Refuses everything that is not rows of one stream, or one aggregate over them, pure all the way.
pub(super) fn check(plan: &LogicalPlan, stream: &str) -> Result<(), Problem> {
    let (mut aggregates, mut unnests) = (0, 0);
    let mut problem = None;
    let walked = plan.apply_with_subqueries(|node| {
        aggregates += usize::from(matches!(node, LogicalPlan::Aggregate(_)));
        unnests += usize::from(matches!(node, LogicalPlan::Unnest(_)));
        problem = check_node(node, stream).err();
        Ok(if problem.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if let Err(error) = walked {
        return Err(Problem::new(Code::InvalidSql, error.strip_backtrace()));
    }
    if let Some(problem) = problem {
        return Err(problem);
    }
    if unnests > 1 {
        return Err(Problem::new(
            Code::Unsupported,
            "more than one UNNEST in a view: each item of one array would stand beside each item of the other",
        )
        .with_hint(
            "take arrays of one length apart together: SELECT unnest(a) AS a, unnest(b) AS b; or make a view of each",
        ));
    }
    if !reads_stream(plan, stream) {
        return Err(Problem::new(Code::InvalidSql, format!("the view does not read the stream {stream}"))
            .with_hint("a view is made from the records of a stream; a table is read by queries as it is"));
    }
    match aggregates {
        0 => check_rows(rows_of(plan)),
        1 => Ok(()),
        _ => Err(not_mergeable(
            "an aggregate over an aggregate cannot be merged: the inner result is not final while events still come",
            "make the inner SELECT a view of its own and aggregate over that view in the query",
        )),
    }
}

/// A view without an aggregate: its `ORDER BY` and `LIMIT` stand at its end, where both layers' rows are there.
fn check_rows(rows: &LogicalPlan) -> Result<(), Problem> {
    if sorts_or_limits(rows) {
        return Err(not_mergeable(
            "ORDER BY or LIMIT within the rows of a view depends on the order of arrival",
            "put ORDER BY and LIMIT at the end of the view, or into the query",
        ));
    }
    Ok(())
}

fn sorts_or_limits(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Sort(_) | LogicalPlan::Limit(_)))).unwrap_or(false)
}

fn check_node(node: &LogicalPlan, stream: &str) -> Result<(), Problem> {
    for expression in node.expressions() {
        check_expression(&expression)?;
    }
    match node {
        LogicalPlan::Join(join) if is_lateral(&join.right) => Err(Problem::new(
            Code::Unsupported,
            "LATERAL is supported with UNNEST alone, over the columns of the rows before it",
        )
        .with_hint("write FROM stream CROSS JOIN UNNEST(stream.tags) AS t(tag)")),
        LogicalPlan::Join(join) => {
            check_join(node, join.join_type, join.on.is_empty() && join.filter.is_none(), stream)
        }
        LogicalPlan::Window(window) if !reads_aggregate(&window.input) => Err(not_mergeable(
            "a window function over the stream needs all of it in order: it cannot be merged",
            "use a window function over the view in the query, or over the aggregates of the view",
        )),
        // of a view without an aggregate: `check_rows`
        LogicalPlan::Aggregate(aggregate) if sorts_or_limits(&aggregate.input) => Err(not_mergeable(
            "ORDER BY or LIMIT below the aggregate depends on the order of arrival",
            "put ORDER BY and LIMIT after the aggregate",
        )),
        LogicalPlan::Distinct(Distinct::On(_)) => Err(not_mergeable(
            "DISTINCT ON keeps the first row of each group by an order that a view does not keep",
            "write first_value(x ORDER BY k) for each column, with GROUP BY",
        )),
        LogicalPlan::Distinct(_) if !reads_aggregate(node) => Err(not_mergeable(
            "DISTINCT over a stream cannot be merged as it is written",
            "write GROUP BY with the same columns",
        )),
        LogicalPlan::Union(_) => Err(Problem::new(Code::Unsupported, "UNION in a view is not supported yet")),
        LogicalPlan::RecursiveQuery(_) => {
            Err(not_mergeable("a recursive query cannot be merged", "compute it over the view in the query"))
        }
        LogicalPlan::Unnest(_) if reads_aggregate(node) => {
            Err(Problem::new(Code::Unsupported, "UNNEST of what an aggregate gives is not supported in a view")
                .with_hint("write it in the query over the view"))
        }
        LogicalPlan::Unnest(unnest) if !unnest.struct_type_columns.is_empty() => {
            Err(Problem::new(Code::Unsupported, "UNNEST of a value of several fields is not supported in a view")
                .with_hint("name the fields"))
        }
        LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().try_for_each(check_aggregate),
        _ => Ok(()),
    }
}

/// True for a subquery that refers to the rows beside it, under whatever name.
fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Subquery(_) => true,
        LogicalPlan::SubqueryAlias(alias) => is_lateral(&alias.input),
        _ => false,
    }
}

fn reads_aggregate(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Aggregate(_)))).unwrap_or(false)
}

pub(super) fn reads_stream(plan: &LogicalPlan, stream: &str) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(scan) if scan.table_name.table() == stream)))
        .unwrap_or(false)
}

fn check_join(node: &LogicalPlan, join_type: JoinType, no_condition: bool, stream: &str) -> Result<(), Problem> {
    let sides: Vec<bool> = node.inputs().into_iter().map(|input| reads_stream(input, stream)).collect();
    if reads_aggregate(node) {
        return Err(Problem::new(Code::Unsupported, "a join after the aggregate of a view is not supported yet")
            .with_hint("join the view in the query"));
    }
    if sides == [true, true] {
        return Err(not_mergeable(
            "a join of a stream with a stream cannot be merged: a record may meet its partner on the other side of a cut",
            "join the stream with a static table, or join two views in the query",
        ));
    }
    let keeps_stream = match join_type {
        JoinType::Inner => true,
        JoinType::Left => sides == [true, false],
        JoinType::Right => sides == [false, true],
        _ => false,
    };
    if !keeps_stream {
        return Err(not_mergeable(
            format!("a {join_type} join produces rows that depend on all of the stream at once"),
            "use an inner join, or a left join with the stream on the left",
        ));
    }
    if no_condition {
        return Err(Problem::new(Code::Unsupported, "a cross join in a view is not supported")
            .with_hint("join on the equality of columns"));
    }
    Ok(())
}

fn check_expression(expression: &Expr) -> Result<(), Problem> {
    let mut problem = None;
    let walked = expression.apply(|e| {
        problem = check_one(e).err();
        Ok(if problem.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (walked, problem) {
        (_, Some(problem)) => Err(problem),
        (Err(error), None) => Err(Problem::new(Code::InvalidSql, error.strip_backtrace())),
        (Ok(_), None) => Ok(()),
    }
}

fn check_one(expression: &Expr) -> Result<(), Problem> {
    match expression {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            let name = call.func.name();
            Err(not_mergeable(
                format!("{name}() gives another result at another time, so that the two layers would differ"),
                "use the event's own columns, such as its event time; filter by the current time in the query",
            ))
        }
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => Err(not_mergeable(
            "a subquery inside an expression of a view depends on all of its table at once",
            "join the static table instead",
        )),
        Expr::Placeholder(_) => Err(Problem::new(Code::InvalidSql, "a view takes no parameters")),
        _ => Ok(()),
    }
}

fn check_aggregate(expression: &Expr) -> Result<(), Problem> {
    let Expr::AggregateFunction(call) = expression.clone().unalias() else { return Ok(()) };
    let name = call.func.name();
    if let Some(reason) = aggregates::mergeable_spelling(name) {
        return Err(Problem::new(Code::NotMergeable, reason));
    }
    if !aggregates::is_exact(name) {
        return Err(Problem::new(
            Code::NotMergeable,
            format!("{name}: its result depends on the order of the rows, so it cannot be merged exactly"),
        ));
    }
    if call.params.distinct && !aggregates::takes_distinct(name) {
        return Err(not_mergeable(
            format!("{name}(DISTINCT …) is not defined in a view"),
            "leave DISTINCT out, or write approx_distinct(x) for a number of distinct values",
        ));
    }
    Ok(())
}

/// A join without an equality would need all of the stream at once.
pub(super) fn check_joins(input: &LogicalPlan) -> Result<()> {
    let unequal = input.exists(|node| Ok(matches!(node, LogicalPlan::Join(join) if join.on.is_empty())))?;
    if !unequal {
        return Ok(());
    }
    let problem = Problem::new(Code::Unsupported, "a join without an equality of columns is not supported in a view")
        .with_hint("join on the equality of columns, and put other conditions beside it");
    Err(DataFusionError::External(Box::new(problem)))
}
