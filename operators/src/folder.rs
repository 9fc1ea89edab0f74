//! The fold: records in, states out. The one piece of code that both layers run.

mod pieces;

use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::executor::block_on;
use futures::{FutureExt, TryStreamExt};
use parking_lot::Mutex;
use schemas::limits::MICRO_BATCH_ROWS;
use schemas::{Code, LedgerCounts, Offset, Partition, Problem};

use crate::cells::{CellTable, compute_problem};
use crate::view::{FEED, View, feed_table};

/// Every execution of a plan leaks about 1.2 KB of metrics until its states are reset.
const EXECUTIONS_BEFORE_RESET: u32 = 1_000;

/// Counts the rows of each record: they stand together, in the order that the row program gives them.
#[derive(Debug, Default)]
struct Ordinals {
    offset: Option<i64>,
    next: i32,
}

impl Ordinals {
    fn next(&mut self, offset: i64) -> i32 {
        if self.offset != Some(offset) {
            *self = Self { offset: Some(offset), next: 0 };
        }
        self.next += 1;
        self.next - 1
    }
}

/// Folds records of one view into a table of cells. One per thread.
#[derive(Debug)]
pub struct Folder {
    view: Arc<View>,
    program: RowProgram,
    table: CellTable,
    late: Option<Vec<(Partition, Offset)>>,
}

impl Folder {
    /// An empty fold of the view.
    pub fn new(view: &Arc<View>) -> Result<Self, Problem> {
        let program = RowProgram::new(view).map_err(|e| compute_problem(&e))?;
        Ok(Self { view: Arc::clone(view), program, table: CellTable::new(view)?, late: None })
    }

    /// Folds rows in the stream's log schema; the first has offset `base`.
    ///
    /// Returns how many records went into which class. The ledger's position hash is not filled:
    /// it is the same for all views of a stream, see `evidence::count_positions`.
    ///
    /// # Errors
    /// `computation_failed`, with the position of the first record whose value cannot be computed. The
    /// folder is of no use any more then.
    pub fn fold(&mut self, partition: Partition, base: Offset, rows: &RecordBatch) -> Result<LedgerCounts, Problem> {
        let columns: Vec<ArrayRef> =
            self.view.input_columns().iter().map(|index| Arc::clone(rows.column(*index))).collect();
        self.fold_columns(partition, base, &columns, rows.num_rows())
    }

    /// Folds rows that have only [`View::input_columns`], in that order.
    pub fn fold_columns(
        &mut self,
        partition: Partition,
        base: Offset,
        columns: &[ArrayRef],
        rows: usize,
    ) -> Result<LedgerCounts, Problem> {
        if rows == 0 {
            return Ok(LedgerCounts::default());
        }
        let folded = self.try_fold(partition, base, columns.to_vec(), rows);
        folded.map_err(|error| self.located(&error, (partition, base), columns, rows))
    }

    /// An error with the record that it comes from: the last one of the shortest prefix of the rows that
    /// fails alone. How the rows are cut into batches makes no difference to it.
    fn located(
        &self,
        error: &DataFusionError,
        (partition, base): (Partition, Offset),
        columns: &[ArrayRef],
        rows: usize,
    ) -> Problem {
        let problem = compute_problem(error);
        if problem.code != Code::ComputationFailed {
            return problem;
        }
        let failure = |to: usize| {
            let part = columns.iter().map(|column| column.slice(0, to)).collect();
            Self::new(&self.view).ok()?.try_fold(partition, base, part, to).err()
        };
        let Some(mut found) = failure(rows) else {
            // no record fails alone: what was folded before has its part in it
            let last = base + rows as u64 - 1;
            let detail = format!("partition {partition}, offsets {base} to {last}: {}", problem.detail);
            return Problem { detail, ..problem };
        };
        let (mut good, mut bad) = (0, rows);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            match failure(middle) {
                Some(earlier) => (bad, found) = (middle, earlier),
                None => good = middle,
            }
        }
        let problem = compute_problem(&found);
        let detail = format!("partition {partition}, offset {}: {}", base + bad as u64 - 1, problem.detail);
        Problem { detail, ..problem }
    }

    fn try_fold(
        &mut self,
        partition: Partition,
        base: Offset,
        mut columns: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<LedgerCounts> {
        columns.push(Arc::new(Int32Array::from_value(partition as i32, rows)));
        columns.push(Arc::new(Int64Array::from_iter_values(base as i64..base as i64 + rows as i64)));
        if !self.view.unnests() {
            return self.fold_piece(partition, columns, rows);
        }
        let mut counts = LedgerCounts::default();
        for piece in pieces::by_items(&columns, rows, MICRO_BATCH_ROWS) {
            let part = columns.iter().map(|column| column.slice(piece.start, piece.len())).collect();
            counts.add(&self.fold_piece(partition, part, piece.len())?);
        }
        Ok(counts)
    }

    /// Folds consecutive records of a partition at once; their rows are all there before they are folded.
    fn fold_piece(&mut self, partition: Partition, columns: Vec<ArrayRef>, rows: usize) -> Result<LedgerCounts> {
        let mut counts = LedgerCounts { records: rows as u64, ..LedgerCounts::default() };
        let (mut last_kept, mut last_late) = (None, None);
        let mut ordinals = Ordinals::default();
        for output in self.program.run(columns)? {
            let output = self.numbered(output, &mut ordinals)?;
            let (kept, late) = self.split_late(output)?;
            counts.counted += self.records_in(&kept, &mut last_kept);
            if let Some(late) = late {
                counts.late += self.records_in(&late, &mut last_late);
                self.note_late(partition, &late);
            }
            if kept.num_rows() > 0 {
                self.table.update(&kept)?;
            }
        }
        counts.filtered = counts.records - counts.counted - counts.late;
        Ok(counts)
    }

    /// Rows that may be alike, each with its number among its record's rows.
    fn numbered(&self, rows: RecordBatch, ordinals: &mut Ordinals) -> Result<RecordBatch> {
        let Some(column) = self.view.cells.ordinal_column.filter(|_| self.view.fans_out()) else { return Ok(rows) };
        let offsets = rows.column(self.view.cells.offset_column).as_primitive::<Int64Type>().values();
        let numbers: Int32Array = offsets.iter().map(|offset| Some(ordinals.next(*offset))).collect();
        let mut columns = rows.columns().to_vec();
        columns[column] = Arc::new(numbers);
        Ok(RecordBatch::try_new(rows.schema(), columns)?)
    }

    /// Rows that are kept, and the late ones apart if the view leaves them out.
    fn split_late(&self, rows: RecordBatch) -> Result<(RecordBatch, Option<RecordBatch>)> {
        let Some(column) = self.view.cells.late_column.filter(|_| self.view.late_policy().leaves_out()) else {
            return Ok((rows, None));
        };
        let late: &BooleanArray = rows.column(column).as_boolean();
        assert!(late.null_count() == 0, "a row is late or it is not");
        if late.true_count() == 0 {
            return Ok((rows, None));
        }
        let dropped = filter_record_batch(&rows, late)?;
        Ok((filter_record_batch(&rows, &not(late)?)?, Some(dropped)))
    }

    /// Remembers which records were left out, if somebody asked for that.
    fn note_late(&mut self, partition: Partition, dropped: &RecordBatch) {
        let Some(list) = &mut self.late else { return };
        let offsets = dropped.column(self.view.cells.offset_column).as_primitive::<Int64Type>().values();
        list.extend(offsets.iter().map(|offset| (partition, *offset as Offset)));
        list.dedup();
    }

    /// How many records the rows come from: a join keeps the rows of one record together, but may cut
    /// its output between them, so `last` carries the last record from one batch to the next.
    fn records_in(&self, rows: &RecordBatch, last: &mut Option<i64>) -> u64 {
        if !self.view.fans_out() {
            return rows.num_rows() as u64;
        }
        let offsets = rows.column(self.view.cells.offset_column).as_primitive::<Int64Type>().values();
        let goes_on = last.is_some() && *last == offsets.first().copied();
        *last = offsets.last().copied().or(*last);
        offsets.chunk_by(|a, b| a == b).count() as u64 - u64::from(goes_on)
    }

    /// How many cells there are.
    pub fn cells(&self) -> usize {
        self.table.cells()
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }

    /// Moves the states out, in no order, each key once; none if there are none.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, Problem> {
        self.table.take()
    }

    /// From now on remembers the late records that are left out.
    pub fn keep_late(&mut self) {
        self.late.get_or_insert_default();
    }

    /// The records left out since the last call.
    pub fn take_late(&mut self) -> Vec<(Partition, Offset)> {
        self.late.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// The stateless part of a view, as a plan that is executed again for every micro-batch.
#[derive(Debug)]
struct RowProgram {
    feed: Feed,
    schema: SchemaRef,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    executions: u32,
}

impl RowProgram {
    fn new(view: &View) -> Result<Self> {
        let (program, planner, schema) = view.program();
        let feed = Feed { schema: Arc::clone(schema), rows: Arc::default() };
        let table = provider_as_source(feed_table(Arc::clone(schema), vec![Arc::new(feed.clone())])?);
        let bound = program.clone().transform_up(|node| match node {
            LogicalPlan::TableScan(mut scan) if scan.table_name.table() == FEED => {
                scan.source = Arc::clone(&table);
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let plan = block_on(planner.query_planner().create_physical_plan(&bound.data, planner))?;
        assert_feed_is_probed(&plan)?;
        Ok(Self { feed, schema: Arc::clone(schema), plan, context: planner.task_ctx(), executions: 0 })
    }

    fn run(&mut self, columns: Vec<ArrayRef>) -> Result<Vec<RecordBatch>> {
        if self.executions == EXECUTIONS_BEFORE_RESET {
            self.plan = reset_plan_states(Arc::clone(&self.plan))?;
            self.executions = 0;
        }
        self.executions += 1;
        *self.feed.rows.lock() = Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        drain(self.plan.execute(0, Arc::clone(&self.context))?)
    }
}

/// All of a stream that waits for nothing outside.
///
/// DataFusion's streams spend the budget of the tokio task in which they are polled. When it is spent they wait until
/// that task yields, which it cannot while it waits for them; a thread without a task has no budget to spend.
fn drain(output: SendableRecordBatchStream) -> Result<Vec<RecordBatch>> {
    let mut collected = pin!(output.try_collect());
    match collected.as_mut().now_or_never() {
        Some(all) => all,
        None => thread::scope(|scope| scope.spawn(|| block_on(collected)).join())
            .unwrap_or_else(|panic| resume_unwind(panic)),
    }
}

/// A join's build side is read once and cached, so it must not contain the feed.
fn assert_feed_is_probed(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    plan.apply(|node| {
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && join.left().exists(|n| Ok(n.name() == "StreamingTableExec"))?
        {
            return internal_err!("the stream is on the build side of a join");
        }
        let known = ["HashJoinExec", "FilterExec", "ProjectionExec", "StreamingTableExec"];
        if node.name().ends_with("JoinExec") && !known.contains(&node.name()) {
            return internal_err!("a join without an equality of columns ({})", node.name());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The leaf: yields whatever rows were put into it last.
#[derive(Debug, Clone)]
struct Feed {
    schema: SchemaRef,
    rows: Arc<Mutex<Option<RecordBatch>>>,
}

impl PartitionStream for Feed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().take();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(rows.map(Ok))))
    }
}
