//! What the windows of a view mean for its keys: which of them are stored, and which are made after ⊕.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Unnest};
use schemas::column::{PARTITION, is_reserved};
use schemas::{Code, Problem, StreamDef};

use super::hidden::is_stream_column;
use crate::windows::{Part, WindowFunction, WindowSpec, Windows, window_call};

/// Name of the second key of a session: its last event.
pub(super) const LAST_EVENT: &str = "_last_event";

/// What a group expression of a view is in its answered cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A key column as it is.
    Key(usize),
    /// The start of the window that a key column tells apart.
    Start(usize),
    /// The end of it.
    End(usize),
}

/// The keys of a view.
#[derive(Debug)]
pub(super) struct Keys {
    /// The expressions that are stored, in order.
    pub(super) stored: Vec<Expr>,
    /// What each group expression of the view is.
    pub(super) roles: Vec<Role>,
    /// How windows are made of the cells, if a cell is not a window.
    pub(super) windows: Option<Windows>,
}

impl Keys {
    /// The keys of a view's aggregate.
    ///
    /// # Errors
    /// Windows that share records are used in a way that cannot be answered from panes or sessions.
    pub(super) fn of(aggregate: &Aggregate) -> Result<Self> {
        if aggregate.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
            return match window_below(&aggregate.input)? {
                Some(spec) => Err(in_sets(&spec)),
                None => Ok(Self::without_windows(aggregate)),
            };
        }
        check_uses(&LogicalPlan::Aggregate(aggregate.clone()))?;
        let found: Vec<Option<Shared>> =
            aggregate.group_expr.iter().map(|key| shared_behind(key, &aggregate.input)).collect();
        let Some(first) = found.iter().position(Option::is_some) else {
            return match window_below(&aggregate.input)? {
                Some(spec) => Err(not_grouped(&spec)),
                None => Ok(Self::without_windows(aggregate)),
            };
        };
        match &found[first] {
            Some(Shared { spec: WindowSpec::Session { gap_us }, keys, .. }) => {
                Self::of_sessions(aggregate, &found, first, (keys, *gap_us))
            }
            Some(Shared { spec, .. }) => {
                let is_told_apart = found.iter().flatten().any(|shared| shared.part == Part::End);
                if !spec.is_known_by_start() && !is_told_apart {
                    return Err(not_told_apart());
                }
                Ok(Self::of_panes(aggregate, &found, first, spec))
            }
            None => Ok(Self::without_windows(aggregate)),
        }
    }

    /// The keys of an aggregate that stores what it groups by.
    pub(super) fn without_windows(aggregate: &Aggregate) -> Self {
        let roles = (0..aggregate.group_expr.len()).map(Role::Key).collect();
        Self { stored: aggregate.group_expr.clone(), roles, windows: None }
    }

    /// The first bound of the windows is stored, as the pane; another one is computed of it.
    fn of_panes(aggregate: &Aggregate, found: &[Option<Shared>], first: usize, spec: &WindowSpec) -> Self {
        let (mut stored, mut roles) = (vec![], vec![]);
        for (index, (expression, shared)) in aggregate.group_expr.iter().zip(found).enumerate() {
            roles.push(match shared {
                Some(shared) => shared.role(first),
                None => Role::Key(stored.len()),
            });
            if shared.is_none() || index == first {
                stored.push(expression.clone());
            }
        }
        Self { stored, roles, windows: Some(Windows::Panes { key: first, spec: spec.clone() }) }
    }

    /// The session's bounds come last, whatever the order of the keys in the view.
    fn of_sessions(
        aggregate: &Aggregate,
        found: &[Option<Shared>],
        first: usize,
        (keys, gap_us): (&[Expr], i64),
    ) -> Result<Self> {
        let plain: Vec<&Expr> =
            aggregate.group_expr.iter().zip(found).filter(|(_, shared)| shared.is_none()).map(|(key, _)| key).collect();
        check_session_keys(aggregate, &plain, keys)?;
        check_between(&aggregate.input)?;
        let mut stored: Vec<Expr> = plain.into_iter().cloned().collect();
        let start = stored.len();
        let mut next = 0;
        let mut role = |shared: &Option<Shared>| match shared {
            Some(Shared { part: Part::End, .. }) => Role::Key(start + 1),
            Some(_) => Role::Key(start),
            None => {
                next += 1;
                Role::Key(next - 1)
            }
        };
        let roles = found.iter().map(&mut role).collect();
        let time = aggregate.group_expr[first].clone().unalias();
        stored.extend([time.clone(), time.alias(LAST_EVENT)]);
        Ok(Self { stored, roles, windows: Some(Windows::Sessions { gap_us }) })
    }

    /// A group expression of the view, from a column of the answered cells.
    pub(super) fn answered(&self, index: usize, cell: impl Fn(usize) -> Expr) -> Expr {
        // grouping sets are one expression with several columns
        let role = self.roles.get(index).copied().unwrap_or(Role::Key(index));
        match (role, &self.windows) {
            (Role::Start(key), Some(Windows::Panes { spec, .. })) if !spec.is_known_by_start() => {
                window_call(spec, Part::StartOfBound, vec![cell(key)])
            }
            (Role::End(key), Some(Windows::Panes { spec, .. })) if spec.is_known_by_start() => {
                window_call(spec, Part::EndOfBound, vec![cell(key)])
            }
            (Role::Key(key) | Role::Start(key) | Role::End(key), _) => cell(key),
        }
    }
}

/// A bound of a window that shares records with others.
#[derive(Debug)]
pub(super) struct Shared {
    spec: WindowSpec,
    part: Part,
    /// The columns that a session has one value of, as the stream has them.
    keys: Vec<Expr>,
}

impl Shared {
    fn role(&self, key: usize) -> Role {
        if self.part == Part::End { Role::End(key) } else { Role::Start(key) }
    }
}

fn problem(code: Code, detail: impl Into<String>, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Problem::new(code, detail).with_hint(hint)))
}

fn function_name(spec: &WindowSpec) -> &'static str {
    match spec {
        WindowSpec::Hop { .. } => "HOP",
        WindowSpec::Cumulate { .. } => "CUMULATE",
        WindowSpec::Session { .. } => "SESSION",
        WindowSpec::Positions { .. } => "COUNT_WINDOW",
        WindowSpec::Tumble { .. } | WindowSpec::Calendar(_) => "TUMBLE",
    }
}

fn not_grouped(spec: &WindowSpec) -> DataFusionError {
    let name = function_name(spec);
    problem(
        Code::InvalidSql,
        format!("{name}: the view is not grouped by its windows"),
        "put window_start, window_end or both into GROUP BY; without windows, read the stream itself",
    )
}

fn in_sets(spec: &WindowSpec) -> DataFusionError {
    let name = function_name(spec);
    problem(
        Code::Unsupported,
        format!(
            "{name} with ROLLUP, CUBE or GROUPING SETS is not supported: windows that share records are made after the merge"
        ),
        "create one view for each set of columns, or use TUMBLE",
    )
}

/// Windows of so many records are of one partition each: records of several have no order between them.
pub(super) fn check_counted(aggregate: &Aggregate, stream: &StreamDef) -> Result<()> {
    let by_partition = |key: &Expr| is_stream_column(key, &aggregate.input, stream, &[PARTITION]);
    if !counts_records(&aggregate.input)? || aggregate.group_expr.iter().any(by_partition) {
        return Ok(());
    }
    Err(problem(
        Code::NotMergeable,
        "windows of so many records are of one partition each: the log has no order of records over partitions, \
         so which records are the next hundred of all of them is not the same in both layers",
        "put _partition into GROUP BY (not into a ROLLUP or a CUBE), or use windows over a time",
    ))
}

/// The same of a view without an aggregate: who adds up its rows must see which partition a window is of.
pub(super) fn check_counted_rows(rows: &LogicalPlan, stream: &StreamDef) -> Result<()> {
    let shows_partition = |column: Column| {
        !is_reserved(&column.name) && is_stream_column(&Expr::Column(column), rows, stream, &[PARTITION])
    };
    if !counts_records(rows)? || rows.schema().columns().into_iter().any(shows_partition) {
        return Ok(());
    }
    Err(problem(
        Code::InvalidSql,
        "windows of so many records are of one partition each, and rows of several partitions would show the same ones",
        "put _partition AS partition into the SELECT, or use windows over a time",
    ))
}

fn counts_records(plan: &LogicalPlan) -> Result<bool> {
    let mut is_counted = false;
    plan.apply(|node| {
        for expression in node.expressions() {
            if let Expr::ScalarFunction(ScalarFunction { func, .. }) = expression.unalias()
                && let Some(function) = func.inner().downcast_ref::<WindowFunction>()
            {
                is_counted |= function.spec.is_counted();
            }
        }
        Ok(if is_counted { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(is_counted)
}

fn not_told_apart() -> DataFusionError {
    problem(
        Code::InvalidSql,
        "CUMULATE: several windows have the same start: grouped by it alone, a record would be counted once for each",
        "put window_end into GROUP BY",
    )
}

/// The expression that a column is, below all projections that only hand it on, and the plan that it reads.
pub(super) fn behind<'a>(plan: &'a LogicalPlan, column: &Column) -> Option<(Expr, &'a LogicalPlan)> {
    match plan {
        LogicalPlan::TableScan(_) => Some((Expr::Column(column.clone()), plan)),
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column)?;
            match projection.expr[index].clone().unalias() {
                Expr::Column(inner) => behind(&projection.input, &inner),
                other => Some((other, &projection.input)),
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.maybe_index_of_column(column)?;
            behind(&alias.input, &alias.input.schema().columns()[index])
        }
        // an item of an array is not the array
        LogicalPlan::Unnest(unnest) if !unnest.input.schema().has_column(column) || is_taken_apart(unnest, column) => {
            Some((Expr::Column(column.clone()), plan))
        }
        other => {
            let input = other.inputs().into_iter().find(|input| input.schema().has_column(column))?;
            behind(input, column)
        }
    }
}

fn is_taken_apart(unnest: &Unnest, column: &Column) -> bool {
    unnest.exec_columns.iter().any(|taken| taken.name == column.name)
}

pub(super) fn as_column(expression: &Expr) -> Option<Column> {
    match expression.clone().unalias() {
        Expr::Column(column) => Some(column),
        _ => None,
    }
}

/// The shared window that an expression is a bound of.
pub(super) fn shared_behind(expression: &Expr, input: &LogicalPlan) -> Option<Shared> {
    let (call, plan) = behind(input, &as_column(expression)?)?;
    let (spec, part, arguments) = window_of(&call)?;
    let origin = |key: &Expr| as_column(key).and_then(|key| behind(plan, &key)).map(|(origin, _)| origin);
    let keys = arguments[1..].iter().map(|key| origin(key).unwrap_or_else(|| key.clone())).collect();
    Some(Shared { spec: spec.clone(), part, keys })
}

/// Windows, part and arguments of a call that is a bound of windows that share records.
fn window_of(expression: &Expr) -> Option<(&WindowSpec, Part, &[Expr])> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expression else { return None };
    let function = func.inner().downcast_ref::<WindowFunction>()?;
    function.spec.is_shared().then_some((&function.spec, function.part, args.as_slice()))
}

/// The first window that shares records in a plan.
fn window_below(plan: &LogicalPlan) -> Result<Option<WindowSpec>> {
    let mut found = None;
    plan.apply(|node| {
        for expression in node.expressions() {
            if let Some((spec, ..)) = window_of(&expression.clone().unalias()) {
                found = Some(spec.clone());
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// A record lies in several windows, or nobody knows yet in which: so its windows are no value of the record.
/// They can be handed on and grouped by, and nothing else.
fn check_uses(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        let handed_on: &[Expr] = match node {
            LogicalPlan::Projection(projection) => &projection.expr,
            LogicalPlan::Aggregate(aggregate) => &aggregate.group_expr,
            _ => &[],
        };
        for expression in node.expressions() {
            if handed_on.contains(&expression) && as_column(&expression).is_some() {
                continue;
            }
            let inputs = node.inputs();
            let mut columns: Vec<&Column> = expression.column_refs().into_iter().collect();
            columns.sort();
            for column in columns {
                let input = inputs.iter().find(|input| input.schema().has_column(column));
                if let Some(shared) = input.and_then(|input| shared_behind(&Expr::Column(column.clone()), input)) {
                    return Err(used_elsewhere(&shared, column));
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn used_elsewhere(shared: &Shared, column: &Column) -> DataFusionError {
    let (name, column) = (function_name(&shared.spec), column.name());
    problem(
        Code::Unsupported,
        format!(
            "{column} of {name} can be grouped by as it is, and not be computed with below the aggregate: \
             a record lies in several windows, which are made after the merge"
        ),
        "write conditions on windows in HAVING, and expressions of them in the SELECT or in the query",
    )
}

/// Sessions are of the values of their key: the view must have one cell for each of them.
fn check_session_keys(aggregate: &Aggregate, plain: &[&Expr], keys: &[Expr]) -> Result<()> {
    let origin = |key: &&Expr| as_column(key).and_then(|key| behind(&aggregate.input, &key)).map(|(origin, _)| origin);
    let grouped: Vec<Option<Expr>> = plain.iter().map(origin).collect();
    let same = grouped.iter().all(|key| key.as_ref().is_some_and(|key| keys.contains(key)))
        && keys.iter().all(|key| grouped.contains(&Some(key.clone())));
    if same {
        return Ok(());
    }
    Err(problem(
        Code::Unsupported,
        "SESSION: a view is grouped by exactly the columns that its sessions have one value of, and by their bounds",
        "write SESSION(stream, user_id, event_time, INTERVAL '5 minutes') and GROUP BY user_id, window_start, window_end",
    ))
}

/// What removes records behind `SESSION` would do so after the sessions were made: one that is removed still
/// connects its neighbours. The fold makes sessions of what reaches it.
fn check_between(plan: &LogicalPlan) -> Result<()> {
    match plan {
        LogicalPlan::Projection(projection) => {
            if projection.expr.iter().any(|e| window_of(&e.clone().unalias()).is_some()) {
                return Ok(());
            }
            check_between(&projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => check_between(&alias.input),
        _ => Err(problem(
            Code::Unsupported,
            "SESSION: WHERE and JOIN behind it would take records out of sessions that are made already",
            "filter before: SESSION((SELECT * FROM stream WHERE …), user_id, event_time, INTERVAL '5 minutes'), \
             or only in an aggregate: count(*) FILTER (WHERE …)",
        )),
    }
}
