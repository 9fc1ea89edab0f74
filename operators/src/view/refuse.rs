//! Preconditions H2 and H7: what could not be folded twice with the same result is refused at `CREATE`,
//! with the reason, the spelling that works where there is one, and the construct at fault.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, JoinType, Result};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Volatility};
use schemas::{Code, Problem};

use super::rows::rows_of;
use crate::aggregates;

/// Why a view is refused. The plan knows no places: the constructs are what to look for in the SQL, the first
/// that stands there is at fault.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) problem: Problem,
    pub(super) constructs: Vec<String>,
}

impl Refusal {
    fn at<S: AsRef<str>>(mut self, constructs: impl IntoIterator<Item = S>) -> Self {
        self.constructs = constructs.into_iter().map(|construct| construct.as_ref().to_owned()).collect();
        self
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, constructs: vec![] }
    }
}

fn not_mergeable(reason: impl Into<String>, hint: &str) -> Refusal {
    Problem::new(Code::NotMergeable, reason).with_hint(hint).into()
}

fn unsupported(reason: impl Into<String>, hint: &str) -> Refusal {
    Problem::new(Code::Unsupported, reason).with_hint(hint).into()
}

/// Refuses everything that is not rows of one stream, or one aggregate over them, pure all the way.
pub(super) fn check(plan: &LogicalPlan, stream: &str) -> Result<(), Refusal> {
    let (mut aggregates, mut unnests) = (vec![], 0);
    let mut problem = None;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            aggregates.push(called(&aggregate.aggr_expr));
        }
        unnests += usize::from(matches!(node, LogicalPlan::Unnest(_)));
        problem = check_node(node, stream).err();
        Ok(if problem.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if let Err(error) = walked {
        return Err(Problem::new(Code::InvalidSql, error.strip_backtrace()).into());
    }
    if let Some(problem) = problem {
        return Err(problem);
    }
    if unnests > 1 {
        return Err(unsupported(
            "more than one UNNEST in a view: each item of one array would stand beside each item of the other",
            "take arrays of one length apart together: SELECT unnest(a) AS a, unnest(b) AS b; or make a view of each",
        )
        .at(["UNNEST"]));
    }
    if !reads_stream(plan, stream) {
        return Err(Problem::new(Code::InvalidSql, format!("the view does not read the stream {stream}"))
            .with_hint("a view is made from the records of a stream; a table is read by queries as it is")
            .into());
    }
    match aggregates.as_slice() {
        [] => check_rows(rows_of(plan)),
        [_] => Ok(()),
        [outer, ..] => {
            let name = outer.first().map_or("GROUP BY", |call| call.trim_end_matches(" ("));
            Err(not_mergeable(
                format!(
                    "{name}: an aggregate over an aggregate cannot be merged: the inner result is not final while \
                     events still come"
                ),
                "make the inner SELECT a view of its own and aggregate over that view in the query",
            )
            .at(outer))
        }
    }
}

/// A view without an aggregate: its `ORDER BY` and `LIMIT` stand at its end, where both layers' rows are there.
fn check_rows(rows: &LogicalPlan) -> Result<(), Refusal> {
    if sorts_or_limits(rows) {
        return Err(not_mergeable(
            "ORDER BY or LIMIT within the rows of a view depends on the order of arrival",
            "put ORDER BY and LIMIT at the end of the view, or into the query",
        )
        .at(first_of_them(rows)));
    }
    Ok(())
}

fn sorts_or_limits(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Sort(_) | LogicalPlan::Limit(_)))).unwrap_or(false)
}

fn first_of_them(plan: &LogicalPlan) -> [&'static str; 2] {
    let limits = plan.exists(|node| Ok(matches!(node, LogicalPlan::Limit(_)))).unwrap_or(false);
    if limits { ["LIMIT", "OFFSET"] } else { ["ORDER BY", "LIMIT"] }
}

/// The calls of an aggregation, as they stand in the SQL.
fn called(aggregates: &[Expr]) -> Vec<String> {
    let name = |call: &Expr| match call.clone().unalias() {
        Expr::AggregateFunction(call) => Some(format!("{} (", call.func.name())),
        _ => None,
    };
    aggregates.iter().filter_map(name).chain(["GROUP BY".to_owned(), "SELECT DISTINCT".to_owned()]).collect()
}

fn check_node(node: &LogicalPlan, stream: &str) -> Result<(), Refusal> {
    for expression in node.expressions() {
        check_expression(&expression)?;
    }
    match node {
        LogicalPlan::Join(join) => {
            check_join(node, join.join_type, join.on.is_empty() && join.filter.is_none(), stream)
        }
        LogicalPlan::Window(window) if !reads_aggregate(&window.input) => Err(not_mergeable(
            "a window function over the stream needs all of it in order: it cannot be merged",
            "use a window function over the view in the query, or over the aggregates of the view",
        )
        .at(["OVER"])),
        // of a view without an aggregate: `check_rows`
        LogicalPlan::Aggregate(aggregate) if sorts_or_limits(&aggregate.input) => Err(not_mergeable(
            "ORDER BY or LIMIT below the aggregate depends on the order of arrival",
            "put ORDER BY and LIMIT after the aggregate",
        )
        .at(first_of_them(&aggregate.input))),
        LogicalPlan::Distinct(Distinct::On(_)) => Err(not_mergeable(
            "DISTINCT ON keeps the first row of each group by an order that a view does not keep",
            "write first_value(x ORDER BY k) for each column, with GROUP BY",
        )
        .at(["DISTINCT ON"])),
        LogicalPlan::Distinct(_) if !reads_aggregate(node) => Err(not_mergeable(
            "DISTINCT over a stream cannot be merged as it is written",
            "write GROUP BY with the same columns",
        )
        .at(["SELECT DISTINCT", "DISTINCT"])),
        LogicalPlan::Union(_) => Err(unsupported(
            "this UNION cannot be taken apart into branches that are added up",
            "write one UNION ALL, without INTERSECT or EXCEPT beside it; or make a view of each part, and write the UNION \
             over the views in the query",
        )
        .at(["UNION"])),
        LogicalPlan::RecursiveQuery(_) => {
            Err(not_mergeable("a recursive query cannot be merged", "compute it over the view in the query")
                .at(["RECURSIVE"]))
        }
        LogicalPlan::Unnest(_) if reads_aggregate(node) => Err(unsupported(
            "UNNEST of what an aggregate gives is not supported in a view",
            "write it in the query over the view",
        )
        .at(["UNNEST"])),
        LogicalPlan::Unnest(unnest) if !unnest.struct_type_columns.is_empty() => {
            Err(unsupported("UNNEST of a value of several fields is not supported in a view", "name the fields")
                .at(["UNNEST"]))
        }
        LogicalPlan::Subquery(_) => Err(lateral()),
        LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().try_for_each(check_aggregate),
        _ => Ok(()),
    }
}

fn reads_aggregate(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Aggregate(_)))).unwrap_or(false)
}

pub(super) fn reads_stream(plan: &LogicalPlan, stream: &str) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(scan) if scan.table_name.table() == stream)))
        .unwrap_or(false)
}

fn lateral() -> Refusal {
    not_mergeable(
        "LATERAL: a query for each row of the stream depends on all of its tables at once",
        "join a static table on the equality of columns; take an array apart with CROSS JOIN UNNEST(s.tags) AS t(tag)",
    )
    .at(["LATERAL", "APPLY", "( SELECT", "UNNEST"])
}

/// `EXCEPT` and `INTERSECT` are joins of this kind, too.
fn check_set_operation(join_type: JoinType) -> Result<(), Refusal> {
    let (name, join) = match join_type {
        JoinType::LeftAnti => ("EXCEPT", "ANTI JOIN"),
        JoinType::LeftSemi => ("INTERSECT", "SEMI JOIN"),
        _ => return Ok(()),
    };
    Err(not_mergeable(
        format!("{name}: whether a row stays depends on all rows of the other side"),
        &format!(
            "make a view of each side, and write {name} over the views in the query; a constant list is NOT IN (…)"
        ),
    )
    .at([name, join]))
}

fn check_join(node: &LogicalPlan, join_type: JoinType, no_condition: bool, stream: &str) -> Result<(), Refusal> {
    let sides: Vec<bool> = node.inputs().into_iter().map(|input| reads_stream(input, stream)).collect();
    check_set_operation(join_type)?;
    if node.exists(|node| Ok(matches!(node, LogicalPlan::Subquery(_)))).unwrap_or(false) {
        return Err(lateral());
    }
    if reads_aggregate(node) {
        return Err(unsupported(
            "a join after the aggregate of a view is not supported yet",
            "join the view in the query",
        )
        .at(["JOIN"]));
    }
    if sides == [true, true] {
        return Err(not_mergeable(
            "a join of a stream with a stream cannot be merged: a record may meet its partner on the other side of a cut",
            "join the stream with a static table, or join two views in the query",
        )
        .at([format!("JOIN {stream}"), "JOIN".into(), format!(", {stream}")]));
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
        )
        .at(match join_type {
            JoinType::Full => ["FULL JOIN", "FULL OUTER"],
            JoinType::Right => ["RIGHT JOIN", "RIGHT OUTER"],
            _ => ["LEFT JOIN", "LEFT OUTER"],
        }));
    }
    if no_condition {
        return Err(unsupported("a cross join in a view is not supported", "join on the equality of columns").at([
            "CROSS JOIN",
            "JOIN",
            ",",
        ]));
    }
    Ok(())
}

fn check_expression(expression: &Expr) -> Result<(), Refusal> {
    let mut problem = None;
    let walked = expression.apply(|e| {
        problem = check_one(e).err();
        Ok(if problem.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (walked, problem) {
        (_, Some(problem)) => Err(problem),
        (Err(error), None) => Err(Problem::new(Code::InvalidSql, error.strip_backtrace()).into()),
        (Ok(_), None) => Ok(()),
    }
}

fn check_one(expression: &Expr) -> Result<(), Refusal> {
    match expression {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            let name = call.func.name();
            let called = if name == "now" { "now() or CURRENT_TIMESTAMP".to_owned() } else { format!("{name}()") };
            Err(not_mergeable(
                format!("{called} gives another result at another time, so that the two layers would differ"),
                "use the event's own columns, such as its event time; filter by the current time in the query",
            )
            .at([format!("{name} (").as_str(), name, "CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME"]))
        }
        Expr::Exists(_) => Err(subquery("EXISTS (SELECT …)", "EXISTS (")),
        Expr::InSubquery(_) => Err(subquery("IN (SELECT …)", "IN ( SELECT")),
        Expr::ScalarSubquery(_) | Expr::SetComparison(_) => Err(subquery("(SELECT …)", "( SELECT")),
        Expr::Placeholder(_) => Err(Problem::new(Code::InvalidSql, "a view takes no parameters")
            .with_hint("write the value, or leave it to the query: WHERE k = $1")
            .into()),
        _ => Ok(()),
    }
}

fn subquery(shown: &str, construct: &str) -> Refusal {
    not_mergeable(
        format!("{shown}: a subquery in an expression of a view depends on all of its table at once"),
        "join the static table instead, or ask for it over the view in the query",
    )
    .at([construct])
}

fn check_aggregate(expression: &Expr) -> Result<(), Refusal> {
    let Expr::AggregateFunction(call) = expression.clone().unalias() else { return Ok(()) };
    let name = call.func.name();
    let place = [format!("{name} ("), name.to_owned()];
    if let Some((reason, spelling)) = aggregates::mergeable_spelling(name) {
        return Err(not_mergeable(reason, spelling).at(place));
    }
    if !aggregates::is_exact(name) {
        return Err(not_mergeable(
            format!("{name}: its result depends on the order of the rows, so it cannot be merged exactly"),
            "compute it over the view in the query",
        )
        .at(place));
    }
    if call.params.distinct && !aggregates::takes_distinct(name) {
        return Err(not_mergeable(
            format!("{name}(DISTINCT …) is not defined in a view"),
            "leave DISTINCT out, or write approx_distinct(x) for a number of distinct values",
        )
        .at([format!("{name} ( DISTINCT")]));
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
