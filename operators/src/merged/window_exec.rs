//! States of panes or of parts of sessions in, answered windows out.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use crate::cells::CellTable;
use crate::view::CellPlan;
use crate::windows::{WindowRange, Windows};

/// Merges the states of each key, makes windows of them and answers these.
#[derive(Debug)]
pub(super) struct WindowExec {
    cells: CellPlan,
    wanted: WindowRange,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl WindowExec {
    /// Windows of states in the state schema of `cells`; those of one key are brought together first.
    pub(super) fn over(
        cells: CellPlan,
        wanted: WindowRange,
        input: Arc<dyn ExecutionPlan>,
        partitions: usize,
    ) -> Result<Self> {
        let by = keys_beside_windows(&cells);
        let input: Arc<dyn ExecutionPlan> = if partitions > 1 && !by.is_empty() {
            Arc::new(RepartitionExec::try_new(input, Partitioning::Hash(by, partitions))?)
        } else if input.output_partitioning().partition_count() > 1 {
            Arc::new(CoalescePartitionsExec::new(input))
        } else {
            input
        };
        Ok(Self::new(cells, wanted, input))
    }

    fn new(cells: CellPlan, wanted: WindowRange, input: Arc<dyn ExecutionPlan>) -> Self {
        let partitioning = Partitioning::UnknownPartitioning(input.output_partitioning().partition_count());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&cells.answer_schema)),
            partitioning,
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { cells, wanted, input, properties: Arc::new(properties) }
    }
}

/// The keys whose cells have nothing to do with each other.
fn keys_beside_windows(cells: &CellPlan) -> Vec<Arc<dyn PhysicalExpr>> {
    let is_beside = |index: &usize| match &cells.windows {
        Some(Windows::Panes { key, .. }) => index != key,
        Some(Windows::Sessions { .. }) => *index < cells.keys - 2,
        None => true,
    };
    let column = |index: usize| -> Arc<dyn PhysicalExpr> {
        Arc::new(PhysicalColumn::new(cells.state_schema.field(index).name(), index))
    };
    (0..cells.keys).filter(is_beside).map(column).collect()
}

impl DisplayAs for WindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowExec: {:?}", self.cells.windows)
    }
}

impl ExecutionPlan for WindowExec {
    fn name(&self) -> &'static str {
        "WindowExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let by = keys_beside_windows(&self.cells);
        InputDistributionRequirements::new(vec![if by.is_empty() {
            Distribution::SinglePartition
        } else {
            Distribution::KeyPartitioned(by)
        }])
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("WindowExec has one input") };
        Ok(Arc::new(Self::new(self.cells.clone(), self.wanted.clone(), input)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut states = self.input.execute(partition, Arc::clone(&context))?;
        let held = MemoryConsumer::new("windows").register(context.memory_pool());
        let mut table = CellTable::with_plan(&self.cells)?;
        let wanted = self.wanted.clone();
        let schema: SchemaRef = Arc::clone(&self.cells.answer_schema);
        let answer = async move {
            while let Some(part) = states.next().await {
                table.try_merge(&part?)?;
                held.try_resize(table.memory_bytes())?;
            }
            table.answer_windows(&wanted, |bytes| held.try_resize(bytes))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(answer))))
    }
}
