//! A view as a table: states → ⊕ → answer → finish. Whatever the states come from, there is one way
//! from them to an answer.

mod bounds;
mod joined;
mod rows;
mod window_exec;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::datasource::{TableType, ViewTable, provider_as_source};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, lit};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::scalar::ScalarValue;

use self::window_exec::WindowExec;
use crate::aggregates::name_view;
use crate::compacted::compacted;
use crate::view::{CELLS, CellPlan, Frontier, StaticTable, View};
use crate::windows::{ALL_WINDOWS, WindowRange, Windows};

/// Where the states of a view come from: a batch view, deltas, a tail, or all of them.
#[async_trait]
pub trait StateSource: Send + Sync + std::fmt::Debug {
    /// States as plans over the given columns of the state schema, in this order.
    ///
    /// `filters` are over key columns (`g0…`) and may be used to read less; rows that do not pass
    /// are removed afterwards in any case.
    async fn scan(
        &self,
        session: &dyn Session,
        projection: &[usize],
        filters: &[Expr],
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>>;
}

/// The view as a table with its output columns. Filters on keys are applied below the merge. `name` is what
/// errors call the view.
pub fn table(view: &Arc<View>, name: &str, source: Arc<dyn StateSource>) -> Result<Arc<dyn TableProvider>> {
    table_at(view, name, source, view.current_dimension())
}

/// The same with this version of the table that the view joins when it is read.
///
/// # Errors
/// As [`table`].
pub fn table_at(
    view: &Arc<View>,
    name: &str,
    source: Arc<dyn StateSource>,
    dimension: Option<Arc<StaticTable>>,
) -> Result<Arc<dyn TableProvider>> {
    over(view, view.finish().clone(), name, source, dimension)
}

/// [`table`] with one more column at the end, [`crate::WINDOW_FINAL`]: true where no record that is in time can
/// change the row any more; the frontier is that of the position that the states were read at. A view without windows over
/// the event time has no such column, and neither has one that joins a table when it is read.
///
/// # Errors
/// As [`table`].
pub fn table_with_finality(
    view: &Arc<View>,
    name: &str,
    source: Arc<dyn StateSource>,
    frontier: &Frontier,
) -> Result<Arc<dyn TableProvider>> {
    let finish = view.finish_with_finality(frontier)?;
    over(view, finish.unwrap_or_else(|| view.finish().clone()), name, source, view.current_dimension())
}

/// A finish as a table over the states.
fn over(
    view: &Arc<View>,
    finish: LogicalPlan,
    name: &str,
    source: Arc<dyn StateSource>,
    dimension: Option<Arc<StaticTable>>,
) -> Result<Arc<dyn TableProvider>> {
    let cells = provider_as_source(Arc::new(Cells { view: Arc::clone(view), source, dimension }));
    let plan = finish.transform_up(|node| match node {
        LogicalPlan::TableScan(mut scan) if scan.table_name.table() == CELLS => {
            scan.source = Arc::clone(&cells);
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => other.map_expressions(|expression| expression.transform_up(|e| Ok(name_view(e, name)))),
    })?;
    Ok(Arc::new(ViewTable::new(plan.data, None)))
}

/// The answered cells of a view as a table.
#[derive(Debug)]
struct Cells {
    view: Arc<View>,
    source: Arc<dyn StateSource>,
    dimension: Option<Arc<StaticTable>>,
}

impl Cells {
    fn plan(&self) -> &CellPlan {
        self.view.answered()
    }

    fn is_key(&self, column: &Column) -> bool {
        self.plan().answer_schema.index_of(&column.name).is_ok_and(|index| index < self.plan().keys)
    }
}

#[async_trait]
impl TableProvider for Cells {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.plan().answer_schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // the columns of cells that are one row each are stored as they are
        let is_stored = |column: &&Column| self.view.is_of_rows() || self.is_key(column);
        let below = |filter: &&Expr| {
            if !self.view.is_global() && filter.column_refs().iter().all(is_stored) {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        };
        Ok(filters.iter().map(below).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.plan().answer_schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let filters: Vec<Expr> = filters.iter().map(unqualified).collect::<Result<_>>()?;
        if self.view.is_of_rows() {
            return rows::scan(self.plan(), self.source.as_ref(), session, wanted, filters).await;
        }
        let answer = Answer::of(&self.view, wanted)?;
        let partitions = session.config().target_partitions();
        if let (Some(dimension), Some(rows)) = (self.view.dimension(), &self.dimension) {
            let (stored, wanted) = (&self.view.cells, answer.columns_behind_keys(&self.view));
            let states = joined::scan((dimension, rows), stored, self.source.as_ref(), session, &wanted).await?;
            return answer.plan(&self.view, filtered(session, states, filters)?, partitions);
        }
        let split = Split::of(self.plan(), filters);
        let plans = self.source.scan(session, &answer.state_columns, &split.below).await?;
        let states = union(plans, &answer.state_schema)?;
        let states = filtered(session, states, split.below)?;
        if self.plan().windows.is_none() {
            return answer.plan(&self.view, states, partitions);
        }
        let windows = Arc::new(WindowExec::over(answer.cells(&self.view)?, split.windows, states, partitions)?);
        answer.rename(&self.view, filtered(session, windows, split.above)?, self.plan().keys)
    }
}

/// Filters on keys, split at the merge. A cell of windows that share records is not a window: what asks for
/// windows is looked at when they are made.
struct Split {
    /// On states.
    below: Vec<Expr>,
    /// On answered windows.
    above: Vec<Expr>,
    /// The windows that can pass.
    windows: WindowRange,
}

impl Split {
    fn of(cells: &CellPlan, filters: Vec<Expr>) -> Self {
        let names: Vec<&str> = match &cells.windows {
            None => return Self { below: filters, above: vec![], windows: ALL_WINDOWS },
            Some(Windows::Panes { key, .. }) => vec![cells.state_schema.field(*key).name()],
            Some(Windows::Sessions { .. }) => {
                [cells.keys - 2, cells.keys - 1].map(|key| cells.state_schema.field(key).name().as_str()).into()
            }
        };
        let of_windows =
            |filter: &Expr| filter.column_refs().iter().any(|column| names.contains(&column.name.as_str()));
        // conjuncts by themselves: one part may be about the key alone
        let parts = filters.iter().flat_map(split_conjunction).cloned();
        let (above, mut below): (Vec<Expr>, Vec<Expr>) = parts.partition(of_windows);
        let windows = match &cells.windows {
            Some(Windows::Panes { .. }) => bounds::windows_asked_for(&above, names[0]),
            _ => ALL_WINDOWS,
        };
        if let (Some(Windows::Panes { spec, .. }), false) = (&cells.windows, windows == ALL_WINDOWS) {
            let (first, end) = if windows.is_empty() { (0, 0) } else { spec.panes_of(&windows) };
            let pane = || Expr::Column(Column::new_unqualified(names[0]));
            let bound = |bound: i64| {
                if spec.is_counted() {
                    return lit(bound);
                }
                lit(ScalarValue::TimestampMicrosecond(Some(bound), Some("UTC".into())))
            };
            below.push(pane().gt_eq(bound(first)).and(pane().lt(bound(end))));
        }
        Self { below, above, windows }
    }
}

fn unqualified(filter: &Expr) -> Result<Expr> {
    let plain = filter.clone().transform(|e| {
        Ok(match e {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    })?;
    Ok(plain.data)
}

fn union(mut plans: Vec<Arc<dyn ExecutionPlan>>, schema: &SchemaRef) -> Result<Arc<dyn ExecutionPlan>> {
    match plans.len() {
        0 => Ok(Arc::new(EmptyExec::new(Arc::clone(schema)))),
        1 => Ok(plans.remove(0)),
        _ => UnionExec::try_new(plans),
    }
}

fn filtered(
    session: &dyn Session,
    states: Arc<dyn ExecutionPlan>,
    filters: Vec<Expr>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(predicate) = conjunction(filters) else { return Ok(states) };
    let schema = DFSchema::try_from(states.schema())?;
    let predicate = session.create_physical_expr(predicate, &schema)?;
    Ok(Arc::new(FilterExec::try_new(predicate, states)?))
}

/// What has to be read and merged for some columns of the answer.
struct Answer {
    /// Columns of the answer schema, as asked for.
    wanted: Vec<usize>,
    /// Aggregates that are answered.
    aggregates: Vec<usize>,
    /// Columns of the state schema that they need: the keys first.
    state_columns: Vec<usize>,
    state_schema: SchemaRef,
}

impl Answer {
    fn of(view: &View, wanted: &[usize]) -> Result<Self> {
        let plan = view.answered();
        let mut aggregates: Vec<usize> = wanted.iter().filter(|c| **c >= plan.keys).map(|c| c - plan.keys).collect();
        aggregates.sort_unstable();
        aggregates.dedup();
        if aggregates.is_empty() {
            aggregates.push(0);
        }
        // a view without GROUP BY has one row whatever was counted: its constant key is not read
        let mut state_columns: Vec<usize> = if view.is_global() { vec![] } else { (0..plan.keys).collect() };
        let mut first = plan.keys;
        for (index, aggregate) in plan.aggregates.iter().enumerate() {
            let width = aggregate.state_fields()?.len();
            if aggregates.contains(&index) {
                state_columns.extend(first..first + width);
            }
            first += width;
        }
        let state_schema = Arc::new(plan.state_schema.project(&state_columns)?);
        Ok(Self { wanted: wanted.to_vec(), aggregates, state_columns, state_schema })
    }

    /// Names of the state columns that are needed behind the keys.
    fn columns_behind_keys(&self, view: &View) -> Vec<String> {
        let keys = view.answered().keys;
        self.state_schema.fields().iter().skip(keys).map(|field| field.name().clone()).collect()
    }

    /// The view's cells with only the aggregates that are answered.
    fn cells(&self, view: &View) -> Result<CellPlan> {
        let plan = view.answered();
        let mut answered: Vec<usize> = (0..plan.keys).collect();
        answered.extend(self.aggregates.iter().map(|aggregate| plan.keys + aggregate));
        Ok(CellPlan {
            aggregates: self.aggregates.iter().map(|aggregate| Arc::clone(&plan.aggregates[*aggregate])).collect(),
            filters: vec![None; self.aggregates.len()],
            state_schema: Arc::clone(&self.state_schema),
            answer_schema: Arc::new(plan.answer_schema.project(&answered)?),
            ..plan.clone()
        })
    }

    fn plan(&self, view: &View, states: Arc<dyn ExecutionPlan>, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = view.answered();
        let keys = if view.is_global() { 0 } else { plan.keys };
        let schema = states.schema();
        let group_by = PhysicalGroupBy::new_single((0..keys).map(|index| key(&schema, index)).collect());
        let split = partitions > 1 && keys > 0;
        let (mode, input) = if split {
            let by = Partitioning::Hash(group_by.input_exprs(), partitions);
            let input: Arc<dyn ExecutionPlan> = Arc::new(RepartitionExec::try_new(states, by)?);
            (AggregateMode::FinalPartitioned, input)
        } else if states.output_partitioning().partition_count() > 1 {
            let input: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(states));
            (AggregateMode::Final, input)
        } else {
            (AggregateMode::Final, states)
        };
        let aggregates: Vec<_> = self.aggregates.iter().map(|index| Arc::clone(&plan.aggregates[*index])).collect();
        let filters = vec![None; aggregates.len()];
        let merged = AggregateExec::try_new(mode, group_by, aggregates, filters, input, Arc::clone(&plan.row_schema))?;
        // it comes as slices of one batch
        self.rename(view, compacted(Arc::new(merged)), keys)
    }

    fn rename(&self, view: &View, merged: Arc<dyn ExecutionPlan>, keys: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = view.answered();
        let columns = self.wanted.iter().map(|wanted| -> Result<(Arc<dyn PhysicalExpr>, String)> {
            let name = plan.answer_schema.field(*wanted).name().clone();
            if *wanted < plan.keys && view.is_global() {
                let zero = ScalarValue::Int32(Some(0));
                return Ok((datafusion::physical_expr::expressions::lit(zero), name));
            }
            let index = match wanted.checked_sub(plan.keys) {
                None => *wanted,
                Some(aggregate) => keys + self.aggregates.iter().take_while(|a| **a != aggregate).count(),
            };
            Ok((Arc::new(PhysicalColumn::new(merged.schema().field(index).name(), index)), name))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, merged)?))
    }
}

/// A key of the states by position; its name must be the input column's (DataFusion asserts it).
fn key(schema: &SchemaRef, index: usize) -> (Arc<dyn PhysicalExpr>, String) {
    let name = schema.field(index).name();
    (Arc::new(PhysicalColumn::new(name, index)), name.clone())
}
