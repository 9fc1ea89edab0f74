//! Running a plan within the bounds of memory and rows, and what it read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use storage::footprint::bytes_of;

use super::QueryEngine;
use super::memory::QueryMemory;
use super::tables::Prepared;

/// What came out of a plan.
pub(super) struct Executed {
    pub(super) schema: SchemaRef,
    pub(super) rows: Vec<RecordBatch>,
    pub(super) truncated: bool,
    pub(super) cells_read: u64,
    pub(super) bytes_read: u64,
}

impl QueryEngine {
    /// Executes a plan and keeps at most `limit` rows.
    pub(super) async fn execute(
        &self,
        prepared: &Prepared,
        limit: usize,
        memory: &Arc<QueryMemory>,
    ) -> Result<Executed> {
        let session = &prepared.session;
        let plan = limited(prepared.plan.clone(), limit)?;
        let physical = session.create_physical_plan(&plan).await?;
        let pool: Arc<dyn MemoryPool> = Arc::clone(memory) as _;
        let mut stream = execute_stream(Arc::clone(&physical), Self::context(session, Arc::clone(&pool)))?;
        let held = MemoryConsumer::new("answer").register(&pool);
        let (mut rows, mut count, mut truncated) = (vec![], 0, false);
        while let Some(part) = stream.next().await {
            let part: RecordBatch = part?;
            let keep = part.num_rows().min(limit - count);
            truncated |= keep < part.num_rows();
            if keep > 0 {
                let part = part.slice(0, keep);
                held.try_grow(bytes_of(&part))?;
                count += keep;
                rows.push(part);
            }
            if truncated {
                break;
            }
        }
        drop(stream);
        let (from_files, bytes_read) = read_by(&physical);
        let cells_read = from_files + prepared.scanned.load(Ordering::Relaxed);
        Ok(Executed { schema: physical.schema(), rows, truncated, cells_read, bytes_read })
    }
}

impl QueryEngine {
    /// What a plan is executed with: all that queries share, and memory of its own.
    pub(super) fn context(session: &SessionState, memory: Arc<dyn MemoryPool>) -> Arc<TaskContext> {
        let shared = session.runtime_env();
        let runtime = RuntimeEnv {
            memory_pool: memory,
            disk_manager: Arc::clone(&shared.disk_manager),
            cache_manager: Arc::clone(&shared.cache_manager),
            object_store_registry: Arc::clone(&shared.object_store_registry),
        };
        Arc::new(TaskContext::from(session).with_runtime(Arc::new(runtime)))
    }
}

/// One row more than the limit, to know whether there is more.
fn limited(plan: LogicalPlan, limit: usize) -> Result<LogicalPlan> {
    match plan {
        // these have to stay the root of the plan
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) => Ok(plan),
        plan => LogicalPlanBuilder::from(plan).limit(0, Some(limit.saturating_add(1)))?.build(),
    }
}

/// Rows and bytes that the leaves of an executed plan have read from files.
fn read_by(plan: &Arc<dyn ExecutionPlan>) -> (u64, u64) {
    let children = plan.children();
    if children.is_empty() {
        let Some(metrics) = plan.metrics() else { return (0, 0) };
        let bytes = metrics.sum_by_name("bytes_scanned").map_or(0, |value| value.as_usize());
        return (metrics.output_rows().unwrap_or(0) as u64, bytes as u64);
    }
    let (mut rows, mut bytes) = (0, 0);
    for child in children {
        let (more_rows, more_bytes) = read_by(child);
        rows += more_rows;
        bytes += more_bytes;
    }
    (rows, bytes)
}
