//! The stored states of a view, joined with the newest version of a table: states by the view's own keys, which are
//! merged like any others.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::datasource::{MemTable, TableType, provider_as_source};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use super::{StateSource, union};
use crate::view::{CellPlan, Dimension, STATES, StaticTable};

/// The states with the view's own keys first, then `columns`.
pub(super) async fn scan(
    (dimension, table): (&Dimension, &StaticTable),
    stored: &CellPlan,
    source: &dyn StateSource,
    session: &dyn Session,
    columns: &[String],
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut read: Vec<usize> = (0..stored.keys).collect();
    for name in columns {
        read.push(stored.state_schema.index_of(name)?);
    }
    let schema = Arc::new(stored.state_schema.project(&read)?);
    let states = union(source.scan(session, &read, &[]).await?, &schema)?;
    let states = LogicalPlanBuilder::scan(STATES, provider_as_source(Arc::new(Planned(states))), None)?.build()?;
    let first = table.rows.first().ok_or_else(|| internal_datafusion_err!("a table without a schema"))?;
    let rows = MemTable::try_new(first.schema(), vec![table.rows.clone()])?;
    let rows = LogicalPlanBuilder::scan(table.name.as_str(), provider_as_source(Arc::new(rows)), None)?.build()?;
    // the plan that this becomes a part of is optimised as a whole, and must not find this part done already
    let state = session.as_any().downcast_ref::<SessionState>();
    let state = state.ok_or_else(|| internal_datafusion_err!("a session of another kind"))?;
    let plain = SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(vec![]).build();
    plain.create_physical_plan(&dimension.join(states, &rows, columns)?).await
}

/// A plan as a table.
#[derive(Debug)]
struct Planned(Arc<dyn ExecutionPlan>);

#[async_trait]
impl TableProvider for Planned {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(projection) = projection else { return Ok(Arc::clone(&self.0)) };
        let schema = self.0.schema();
        let column = |index: &usize| -> (Arc<dyn PhysicalExpr>, String) {
            let name = schema.field(*index).name();
            (Arc::new(PhysicalColumn::new(name, *index)), name.clone())
        };
        let columns: Vec<_> = projection.iter().map(column).collect();
        Ok(Arc::new(ProjectionExec::try_new(columns, Arc::clone(&self.0))?))
    }
}
