//! All rows of a view at one snapshot, as they are made: for readers that take the whole view, however large.

use std::sync::Arc;

use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::execute_stream;
use operators::View;
use schemas::Problem;
use storage::snapshot::ViewSnapshot;

use super::memory::QueryMemory;
use super::{QueryEngine, QueryRequest, sql_problem};
use crate::source::{Layer, SnapshotStates};

impl QueryEngine {
    /// The rows of a view, in no order. The snapshot's coverage was asserted before; memory is that of one query.
    pub(crate) async fn stream_view(
        &self,
        view: &Arc<View>,
        name: &str,
        snapshot: Arc<ViewSnapshot>,
    ) -> Result<SendableRecordBatchStream, Problem> {
        let states = SnapshotStates::new(Arc::clone(view), snapshot, Layer::Merged, Arc::clone(&self.files));
        let rows = async {
            let table = operators::merged::table(view, name, Arc::new(states))?;
            let plan = LogicalPlanBuilder::scan("changes", provider_as_source(table), None)?.build()?;
            let session = self.base.clone();
            let physical = session.create_physical_plan(&plan).await?;
            let memory = QueryMemory::new(self.parts.limits.query_memory_bytes, &self.memory);
            execute_stream(physical, Self::context(&session, memory))
        };
        rows.await.map_err(|e| stream_problem(&e))
    }
}

/// What went wrong while rows were made.
pub(crate) fn stream_problem(error: &datafusion::common::DataFusionError) -> Problem {
    sql_problem(error, &QueryRequest::default())
}
