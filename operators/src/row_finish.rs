//! The finish of a view, row by row: for look-ups that plan nothing.
//!
//! Most views end with projections and `HAVING` alone. Those need no plan: their expressions are
//! evaluated over the few answered cells that a look-up has found.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use schemas::Problem;

use crate::cells::compute_problem;
use crate::view::View;

/// One step from the answered cells towards the output.
#[derive(Debug)]
enum Step {
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
    Keep(Arc<dyn PhysicalExpr>),
}

/// Projections and filters, bottom up.
#[derive(Debug)]
pub struct RowFinish {
    steps: Vec<Step>,
    output: SchemaRef,
}

impl RowFinish {
    /// The finish of a view, if each of its rows depends on one cell alone. A sort is left out: the order
    /// of a view's rows is no promise.
    pub fn of(view: &View) -> Option<Self> {
        if view.is_global() || view.dimension().is_some() {
            return None;
        }
        let mut steps = vec![];
        collect(view.finish(), &ExecutionProps::new(), &mut steps)?;
        Some(Self { steps, output: view.output_schema() })
    }

    /// Turns answered cells (`CellTable::answer`) into rows of the view.
    pub fn apply(&self, cells: RecordBatch) -> Result<RecordBatch, Problem> {
        self.try_apply(cells).map_err(|e| compute_problem(&e))
    }

    fn try_apply(&self, cells: RecordBatch) -> Result<RecordBatch> {
        let mut rows = cells;
        for step in &self.steps {
            rows = match step {
                Step::Keep(predicate) => {
                    let keep = predicate.evaluate(&rows)?.into_array(rows.num_rows())?;
                    filter_record_batch(&rows, keep.as_boolean())?
                }
                Step::Project(columns, schema) => project(&rows, columns, schema)?,
            };
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output), rows.columns().to_vec(), &options)?)
    }
}

fn project(rows: &RecordBatch, columns: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> Result<RecordBatch> {
    let arrays = columns.iter().map(|column| column.evaluate(rows)?.into_array(rows.num_rows()));
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

fn collect(plan: &LogicalPlan, props: &ExecutionProps, steps: &mut Vec<Step>) -> Option<()> {
    match plan {
        LogicalPlan::TableScan(_) => {}
        LogicalPlan::SubqueryAlias(alias) => collect(&alias.input, props, steps)?,
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => collect(&sort.input, props, steps)?,
        LogicalPlan::Filter(filter) => {
            collect(&filter.input, props, steps)?;
            steps.push(Step::Keep(
                create_physical_expr(
                    &filter.predicate,
                    filter.input.schema(),
                    props,
                    &PhysicalPlanningContext::default(),
                )
                .ok()?,
            ));
        }
        LogicalPlan::Projection(projection) => {
            collect(&projection.input, props, steps)?;
            let input = projection.input.schema();
            let columns = projection
                .expr
                .iter()
                .map(|column| create_physical_expr(column, input, props, &PhysicalPlanningContext::default()));
            let columns = columns.collect::<Result<Vec<_>>>().ok()?;
            steps.push(Step::Project(columns, Arc::new(projection.schema.as_arrow().clone())));
        }
        _ => return None,
    }
    Some(())
}
