//! A table that changes, joined after ⊕ (DESIGN §14 `LATE`, ADR 0022): cells are grouped by what the join compares,
//! and the table's columns come to them when they are read. A new version of the table changes no state.
//!
//! ```text
//! Aggregate  d.label, s.day: count(*)        Aggregate  d.label, s.day           at reading
//!   Filter  s.n > 0 and d.label <> 'x'         Filter  d.label <> 'x'
//!     Join  s.k = d.code               ──►       Join  g1 = d.code
//!       s                                          states                        stored, by s.day and s.k
//!       d                                          d, as it is when it is read
//! ```

mod sides;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinType, Result, TableReference, internal_err};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, cast};
use parking_lot::RwLock;
use schemas::{Code, Problem};

use self::sides::{Owner, Sides, Splitter};
use super::{CellPlan, StaticTable, ViewSource};

/// Name of the table of stored states in a join.
pub(crate) const STATES: &str = "__states";

/// The table that a view joins when it is read.
#[derive(Debug)]
pub(crate) struct Dimension {
    /// Inner, or left with the stream on the left.
    join_type: JoinType,
    /// What has to be equal: a stored key, and an expression of the table.
    on: Vec<(usize, Expr)>,
    /// What else the table's rows have to fulfil to be joined.
    joined_if: Option<Expr>,
    /// What is left out after the join.
    kept_if: Option<Expr>,
    /// The table's side of the join.
    right: LogicalPlan,
    /// The view's own keys, over stored keys (`__states.g…`) and the table's columns.
    keys: Vec<Expr>,
    /// The cells that are answered: by the view's own keys.
    pub(crate) answered: CellPlan,
    /// The newest version.
    current: RwLock<Arc<StaticTable>>,
}

/// A view's aggregate, split at the join with a table that changes.
pub(super) struct Split {
    /// Over the stream alone, grouped by what the join and the view's keys need of it.
    pub(super) stored: Aggregate,
    join_type: JoinType,
    on: Vec<(usize, Expr)>,
    joined_if: Option<Expr>,
    kept_if: Option<Expr>,
    right: LogicalPlan,
    keys: Vec<Expr>,
    table: StaticTable,
}

fn unsupported(detail: String, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Problem::new(Code::Unsupported, detail).with_hint(hint)))
}

const PINNED: &str =
    "create the table WITH (join = 'pinned') if its rows never change: they are then joined before the aggregate";

/// The aggregate without the join, if it joins a table that changes.
///
/// # Errors
/// The join has another shape, or the table's columns are used where only the stream's can be.
pub(super) fn split(aggregate: &Aggregate, source: &ViewSource<'_>) -> Result<Option<Split>> {
    let Some(table) = late_table(&aggregate.input, source)? else { return Ok(None) };
    let mut conditions = vec![];
    let mut node = aggregate.input.as_ref();
    while let LogicalPlan::Filter(filter) = node {
        conditions.extend(split_conjunction(&filter.predicate).into_iter().cloned());
        node = &filter.input;
    }
    let name = &table.name;
    let LogicalPlan::Join(join) = node else {
        let detail = format!(
            "table {name} is joined when the view is read: the join must stand in the FROM of the aggregate itself"
        );
        return Err(unsupported(
            detail,
            "write FROM stream JOIN table ON … GROUP BY … without a subquery around the join, or create the table WITH (join = 'pinned')",
        ));
    };
    let sides = Sides::of(join, table)?;
    let mut split = Splitter { sides: &sides, name, stored: vec![] };
    for call in &aggregate.aggr_expr {
        split.check_stream_only(call, "an aggregate")?;
    }
    let (mut of_stream, mut kept_if) = (vec![], vec![]);
    for condition in conditions {
        match sides.owner(&condition) {
            Owner::Stream => of_stream.push(condition),
            Owner::Table => kept_if.push(condition),
            Owner::Both => return Err(split.mixed("a condition")),
        }
    }
    let keys = aggregate.group_expr.iter().map(|key| split.key(key)).collect::<Result<Vec<_>>>()?;
    if keys.is_empty() {
        let detail = format!(
            "table {name} is joined when the view is read: a view without GROUP BY has no cells that it could be joined to"
        );
        return Err(unsupported(detail, "group by a column, or create the table WITH (join = 'pinned')"));
    }
    let (on, joined_if) = split.on(join)?;
    let mut input = sides.stream.clone();
    if let Some(predicate) = conjunction(of_stream) {
        input = Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, input)?));
    }
    let stored = Aggregate::try_new(input, split.stored, aggregate.aggr_expr.clone())?;
    Ok(Some(Split {
        stored,
        join_type: sides.join_type,
        on,
        joined_if: conjunction(joined_if),
        kept_if: conjunction(kept_if),
        right: sides.right.as_ref().clone(),
        keys,
        table: table.clone(),
    }))
}

/// The only table that changes among those that a plan reads.
fn late_table<'a>(plan: &LogicalPlan, source: &ViewSource<'a>) -> Result<Option<&'a StaticTable>> {
    let mut found: Vec<&StaticTable> = vec![];
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let name = scan.table_name.table();
            found.extend(source.tables.iter().filter(|table| table.is_late && table.name == name));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        [first, ..] => Err(unsupported(
            format!(
                "table {} and another one are joined when the view is read: a view can join one such table, once",
                first.name
            ),
            PINNED,
        )),
    }
}

/// Refuses tables that change where a view has no cells to join them to.
pub(super) fn refuse_in_rows(plan: &LogicalPlan, source: &ViewSource<'_>) -> Result<()> {
    match late_table(plan, source)? {
        None => Ok(()),
        Some(table) => Err(unsupported(
            format!("table {} may change, and a view without an aggregate stores its rows as they are", table.name),
            "join the view with the table in the query, or create the table WITH (join = 'pinned')",
        )),
    }
}

/// Windows that share records are made of the stored cells, and so are the rows of a join.
pub(super) fn with_windows() -> DataFusionError {
    unsupported(
        "HOP, CUMULATE and SESSION with a table that is joined when the view is read are not supported together"
            .to_owned(),
        "join the view with the table in the query, or create the table WITH (join = 'pinned')",
    )
}

fn stored_column(index: usize) -> Expr {
    Expr::Column(Column::new(Some(TableReference::bare(STATES)), format!("g{index}")))
}

impl Split {
    /// The dimension of a view whose stored cells are these.
    pub(super) fn dimension(self, stored: &CellPlan) -> Result<Dimension> {
        let Self { join_type, on, joined_if, kept_if, right, keys, table, .. } = self;
        let joined = DFSchema::try_from_qualified_schema(STATES, &stored.state_schema)?.join(right.schema())?;
        let keys = keys.into_iter().map(|key| one_of_its_kind(key, &joined)).collect::<Result<Vec<_>>>()?;
        let types = keys.iter().map(|key| key.get_type(&joined)).collect::<Result<Vec<_>>>()?;
        let with_keys = |schema: &Schema| {
            let own = types
                .iter()
                .enumerate()
                .map(|(index, kind)| Arc::new(Field::new(format!("g{index}"), kind.clone(), true)));
            let rest = schema.fields().iter().skip(stored.keys).cloned();
            Arc::new(Schema::new(own.chain(rest).collect::<Vec<_>>()))
        };
        let answered = CellPlan {
            state_schema: with_keys(&stored.state_schema),
            answer_schema: with_keys(&stored.answer_schema),
            keys: keys.len(),
            ..stored.clone()
        };
        let current = RwLock::new(Arc::new(table));
        Ok(Dimension { join_type, on, joined_if, kept_if, right, keys, answered, current })
    }
}

/// One string type, one NaN, one zero, as keys of the fold are.
fn one_of_its_kind(key: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match key.get_type(schema)? {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(_, _) => cast(key, DataType::Utf8View),
        DataType::Float32 | DataType::Float64 | DataType::Float16 => crate::canonical::float(key),
        _ => key,
    })
}

impl Dimension {
    /// The table's name.
    pub(crate) fn table(&self) -> String {
        self.current.read().name.clone()
    }

    /// The newest version, for one answer.
    pub(crate) fn current(&self) -> Arc<StaticTable> {
        Arc::clone(&self.current.read())
    }

    /// From the next answer on, this version is joined. The one that is joined already stays the same object: by
    /// that, readers of changes know that there is no other.
    pub(crate) fn set(&self, table: &StaticTable) {
        let mut current = self.current.write();
        let columns = |table: &StaticTable| -> Vec<ArrayRef> {
            table.rows.iter().flat_map(|rows| rows.columns().iter().cloned()).collect()
        };
        let (before, newest) = (columns(&current), columns(table));
        let is_same = before.len() == newest.len() && before.iter().zip(&newest).all(|(a, b)| Arc::ptr_eq(a, b));
        if !is_same {
            *current = Arc::new(table.clone());
        }
    }

    /// The stored states with the view's own keys: the columns `g0…` and then those of the states named. `states`
    /// is a scan of [`STATES`], `rows` one of the table.
    pub(crate) fn join(&self, states: LogicalPlan, rows: &LogicalPlan, columns: &[String]) -> Result<LogicalPlan> {
        let right = self.right.clone().transform_up(|node| match node {
            LogicalPlan::TableScan(scan) => {
                let LogicalPlan::TableScan(current) = rows else { return internal_err!("no scan of the table") };
                let source = Arc::clone(&current.source);
                let renamed = LogicalPlanBuilder::scan(scan.table_name.clone(), source, scan.projection.clone())?;
                Ok(Transformed::yes(renamed.build()?))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let (mut lefts, mut rights) = (vec![], vec![]);
        for (key, expression) in &self.on {
            let (stored, wanted) = (stored_column(*key), expression.get_type(right.data.schema())?);
            let same = stored.get_type(states.schema())? == wanted;
            lefts.push(if same { stored } else { cast(stored, wanted) });
            rights.push(expression.clone());
        }
        // the table is what a hash table is made of: it is smaller
        let join_type = if self.join_type == JoinType::Left { JoinType::Right } else { self.join_type };
        let mut plan = LogicalPlanBuilder::from(right.data).join_with_expr_keys(
            states,
            join_type,
            (rights, lefts),
            self.joined_if.clone(),
        )?;
        if let Some(predicate) = &self.kept_if {
            plan = plan.filter(predicate.clone())?;
        }
        let own = self.keys.iter().enumerate().map(|(index, key)| key.clone().alias(format!("g{index}")));
        let of_states =
            columns.iter().map(|name| Expr::Column(Column::new(Some(TableReference::bare(STATES)), name)).alias(name));
        plan.project(own.chain(of_states).collect::<Vec<_>>())?.build()
    }

    /// What the join means, for the semantic hash: everything but the table's version.
    pub(super) fn meaning(&self) -> String {
        let Self { join_type, on, joined_if, kept_if, right, keys, .. } = self;
        format!("{join_type} {on:?} {joined_if:?} {kept_if:?} {keys:?}\n{}", right.display_indent_schema())
    }
}
