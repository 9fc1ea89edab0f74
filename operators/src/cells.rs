//! A table of cells, held directly: groups and their accumulators (DESIGN §5.4).
//!
//! Emptying it moves its vectors out: emptying is the snapshot. It never grows for ever and is
//! never copied.

mod appended;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::aggregates::{AggregateMode, aggregate_expressions, evaluate_group_by};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use schemas::Problem;

use self::appended::AppendedKeys;
use crate::error::problem;
use crate::view::{CellPlan, View};
use crate::windows::{ALL_WINDOWS, WindowRange, Windows, coalesce, expand};

/// Cells by key, filled from rows (by a [`crate::Folder`]) or from states ([`CellTable::merge`]).
pub struct CellTable {
    plan: CellPlan,
    groups: Box<dyn GroupValues>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    /// How many state columns each accumulator has.
    widths: Vec<usize>,
    /// Scratch: the cell of each row.
    indices: Vec<usize>,
}

impl std::fmt::Debug for CellTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CellTable").field("cells", &self.cells()).finish_non_exhaustive()
    }
}

/// An error of folding, as a problem without a place in the SQL.
pub(crate) fn compute_problem(error: &datafusion::common::DataFusionError) -> Problem {
    problem(error, "", schemas::problem::SqlPosition { line: 1, column: 1 })
}

impl CellTable {
    /// An empty table for the view's cells.
    pub fn new(view: &View) -> Result<Self, Problem> {
        Self::with_plan(&view.cells).map_err(|e| compute_problem(&e))
    }

    /// [`CellTable::new`] where a key may come twice, also of cells that are one row each.
    pub(crate) fn merging(view: &View) -> Result<Self, Problem> {
        let keys = lookup_keys(&view.cells).and_then(|keys| Self::with_keys(&view.cells, keys));
        keys.map_err(|e| compute_problem(&e))
    }

    pub(crate) fn with_plan(plan: &CellPlan) -> Result<Self> {
        let keys: Box<dyn GroupValues> =
            if plan.is_of_rows { Box::new(AppendedKeys::default()) } else { lookup_keys(plan)? };
        Self::with_keys(plan, keys)
    }

    fn with_keys(plan: &CellPlan, groups: Box<dyn GroupValues>) -> Result<Self> {
        let widths = plan.aggregates.iter().map(|a| Ok(a.state_fields()?.len())).collect::<Result<_>>()?;
        Ok(Self {
            groups,
            accumulators: plan.aggregates.iter().map(accumulator).collect::<Result<_>>()?,
            arguments: aggregate_expressions(&plan.aggregates, &AggregateMode::Partial, plan.keys)?,
            widths,
            indices: Vec::new(),
            plan: plan.clone(),
        })
    }

    /// Folds rows of the row program's output.
    pub(crate) fn update(&mut self, rows: &RecordBatch) -> Result<()> {
        let array = |e: &Arc<dyn PhysicalExpr>| e.evaluate(rows)?.into_array(rows.num_rows());
        let each = |arguments: &Vec<_>| arguments.iter().map(array).collect::<Result<Vec<ArrayRef>>>();
        let arguments = self.arguments.iter().map(each).collect::<Result<Vec<_>>>()?;
        let filters = self.plan.filters.iter().map(|filter| filter.as_ref().map(array).transpose());
        let filters = filters.collect::<Result<Vec<_>>>()?;
        // once, or once for each grouping set
        for keys in evaluate_group_by(&self.plan.group_by, rows)? {
            self.groups.intern(&keys, &mut self.indices)?;
            let cells = self.groups.len();
            for ((accumulator, values), filter) in self.accumulators.iter_mut().zip(&arguments).zip(&filters) {
                let filter = filter.as_ref().map(AsArray::as_boolean);
                accumulator.update_batch(values, &self.indices, filter, cells)?;
            }
        }
        Ok(())
    }

    /// Merges states in the view's state schema (⊕).
    pub fn merge(&mut self, states: &RecordBatch) -> Result<(), Problem> {
        self.try_merge(states).map_err(|e| compute_problem(&e))
    }

    pub(crate) fn try_merge(&mut self, states: &RecordBatch) -> Result<()> {
        let keys = self.plan.keys;
        self.groups.intern(&states.columns()[..keys], &mut self.indices)?;
        let cells = self.groups.len();
        let mut first = keys;
        for (accumulator, width) in self.accumulators.iter_mut().zip(&self.widths) {
            accumulator.merge_batch(&states.columns()[first..first + width], &self.indices, cells)?;
            first += width;
        }
        Ok(())
    }

    /// How many cells there are.
    pub fn cells(&self) -> usize {
        self.groups.len()
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.groups.size() + self.accumulators.iter().map(|a| a.size()).sum::<usize>()
    }

    /// Moves all states out, in no order; none if there are none. Sessions that are near each other are one.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, Problem> {
        self.try_take().map_err(|e| compute_problem(&e))
    }

    fn try_take(&mut self) -> Result<Option<RecordBatch>> {
        if self.groups.is_empty() {
            return Ok(None);
        }
        let mut columns = self.groups.emit(EmitTo::All)?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        self.groups.clear_shrink(0);
        let states = RecordBatch::try_new(Arc::clone(&self.plan.state_schema), columns)?;
        match self.plan.windows {
            Some(Windows::Sessions { gap_us }) => {
                coalesce(states, self.plan.keys, gap_us, &mut self.accumulators, &self.widths).map(Some)
            }
            _ => Ok(Some(states)),
        }
    }

    /// Moves all cells out as answers: key columns, `_n`, one column per aggregate. Where a cell is a pane or a
    /// part of a session, the answers are of whole windows.
    pub fn answer(&mut self) -> Result<RecordBatch, Problem> {
        self.answer_windows(&ALL_WINDOWS, |_| Ok(())).map_err(|e| compute_problem(&e))
    }

    /// [`CellTable::answer`] where only the windows of a look-up's key are wanted: there may be others beside them
    /// that are not whole.
    pub fn answer_for(&mut self, view: &View, key: &[ScalarValue]) -> Result<RecordBatch, Problem> {
        self.answer_windows(&view.windows_of_key(key), |_| Ok(())).map_err(|e| compute_problem(&e))
    }

    /// The same for some windows at least; those beside them may lack panes. `hold` is told how many bytes
    /// are held on the way.
    pub(crate) fn answer_windows(
        &mut self,
        wanted: &WindowRange,
        hold: impl Fn(usize) -> Result<()>,
    ) -> Result<RecordBatch> {
        if let Some(windows) = self.plan.windows.clone()
            && let Some(states) = self.try_take()?
        {
            match &windows {
                Windows::Sessions { .. } => self.try_merge(&states)?,
                Windows::Panes { key, spec } => {
                    let panes = states.get_array_memory_size();
                    expand(&states, (*key, spec), wanted, |states| {
                        self.try_merge(&states)?;
                        hold(panes + self.memory_bytes())
                    })?;
                }
            }
        }
        self.answer_cells()
    }

    fn answer_cells(&mut self) -> Result<RecordBatch> {
        if self.groups.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.plan.answer_schema)));
        }
        let mut columns = self.groups.emit(EmitTo::All)?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        self.groups.clear_shrink(0);
        Ok(RecordBatch::try_new(Arc::clone(&self.plan.answer_schema), columns)?)
    }
}

/// Keys that are looked up: each is there once.
fn lookup_keys(plan: &CellPlan) -> Result<Box<dyn GroupValues>> {
    let key_schema = plan.state_schema.project(&(0..plan.keys).collect::<Vec<_>>())?;
    new_group_values(Arc::new(key_schema), &GroupOrdering::None)
}

fn accumulator(aggregate: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if aggregate.groups_accumulator_supported() {
        return aggregate.create_groups_accumulator();
    }
    let aggregate = Arc::clone(aggregate);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}
