//! What the oracle is asked: some cells of the new batch view, or, of a large master, some whole row groups.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use operators::{Folder, View};
use schemas::Problem;
use schemas::documents::certificate::OracleCheck;
use tokio::runtime::Handle;

use super::{Made, Plan, blocking};
use crate::audit::{self, Oracle, OracleInput};
use crate::internal;
use crate::master_records::MasterRecords;
use crate::recompute::{Records, Unit};
use crate::runs::RunService;
use crate::runs::live::LiveRun;

/// Cells that are computed again.
const CELLS: u64 = 20;
/// A master up to this size is read as a whole.
const WHOLE_RECORDS_MAX: u64 = 2_000_000;
/// Of a larger one, about so many records.
const PART_RECORDS_MAX: u64 = 500_000;
/// Panes, sessions or rows that are compared, all of them: some alone do not make whole windows, and rows have
/// no names.
const WHOLE_CELLS_MAX: u64 = 100_000;

/// Sampled states.
pub(super) type Sampled = RecordBatch;

/// Takes every n-th cell that passes, from a start that depends on the run.
pub(super) struct Sampler {
    stride: u64,
    next: u64,
    seen: u64,
    taken: Vec<RecordBatch>,
}

impl Sampler {
    pub(super) fn new(run: u64, cells: u64) -> Self {
        let stride = (cells / CELLS).max(1);
        Self { stride, next: run.wrapping_mul(0x9E37_79B9) % stride, seen: 0, taken: vec![] }
    }

    /// For a view's new batch view: all cells where some are of no use, none where all are too many.
    pub(super) fn of_view(run: u64, cells: u64, view: &View) -> Self {
        match (view.is_compared_whole(), cells <= WHOLE_CELLS_MAX) {
            (false, _) => Self::new(run, cells),
            (true, true) => Self { stride: 1, next: 0, seen: 0, taken: vec![] },
            (true, false) => Self { stride: 1, next: u64::MAX, seen: 0, taken: vec![] },
        }
    }

    pub(super) fn look_at(&mut self, chunk: &RecordBatch) -> Result<(), Problem> {
        let end = self.seen + chunk.num_rows() as u64;
        while self.next < end {
            let row = (self.next - self.seen) as u32;
            let row = arrow::array::UInt32Array::from(vec![row]);
            self.taken.push(arrow::compute::take_record_batch(chunk, &row).map_err(internal)?);
            self.next += self.stride;
        }
        self.seen = end;
        Ok(())
    }

    pub(super) fn finish(self, view: &View) -> Result<Sampled, Problem> {
        concat_batches(view.state_schema(), &self.taken).map_err(internal)
    }
}

impl RunService {
    pub(super) async fn ask_oracle(
        &self,
        live: &Arc<LiveRun>,
        plan: &Arc<Plan>,
        made: &Made,
        sampled: Sampled,
    ) -> Result<OracleCheck, Problem> {
        let (plan, live, records, cells) = (Arc::clone(plan), Arc::clone(live), Arc::clone(&made.records), made.cells);
        let is_incremental = !plan.from().same_position(&schemas::Cut::default());
        let handle = Handle::current();
        blocking(move || {
            let view = &plan.view;
            let oracle = Oracle { view: &view.view, sql: &view.def.sql, stream: &view.stream, tables: &view.tables };
            let fits = plan.cut.total() <= WHOLE_RECORDS_MAX / view.view.windows_per_record()
                && (!view.view.is_compared_whole() || cells <= WHOLE_CELLS_MAX);
            let input = if !is_incremental && fits {
                OracleInput { rows: whole(&oracle, &records, &plan)?, states: sampled }
            } else {
                match part(&oracle, &records, &plan, live.id)? {
                    Some(input) => input,
                    None => return Ok(audit::not_sampled("no file is small enough to be checked alone")),
                }
            };
            handle.block_on(oracle.check(input))
        })
        .await
    }
}

/// Every record below the cut, with the oracle's columns.
fn whole(oracle: &Oracle<'_>, records: &MasterRecords, plan: &Plan) -> Result<Vec<RecordBatch>, Problem> {
    let mut all = Vec::new();
    for unit in records.units() {
        let mut left = plan.cut.offset(unit.partition).saturating_sub(unit.offsets.start);
        records.read(unit, &oracle.columns(), &mut |rows| {
            let take = left.min(rows.num_rows() as u64);
            left -= take;
            if take > 0 {
                all.push(rows.slice(0, take as usize));
            }
            Ok(())
        })?;
    }
    Ok(all)
}

/// Whole row groups below the cut, folded on their own.
fn part(oracle: &Oracle<'_>, records: &MasterRecords, plan: &Plan, run: u64) -> Result<Option<OracleInput>, Problem> {
    let Some(unit) = chosen(records, plan, run) else { return Ok(None) };
    let mut folder = Folder::new(oracle.view)?;
    let mut rows = Vec::new();
    let mut offset = unit.offsets.start;
    let columns = oracle.columns();
    let most = PART_RECORDS_MAX / oracle.view.windows_per_record();
    records.read(unit, &columns, &mut |batch| {
        let left = (unit.offsets.start + most).saturating_sub(offset) as usize;
        let batch = batch.slice(0, left.min(batch.num_rows()));
        let inputs = if oracle.view.input_columns().is_empty() { &[] } else { batch.columns() };
        folder.fold_columns(unit.partition, offset, inputs, batch.num_rows())?;
        offset += batch.num_rows() as u64;
        rows.push(batch);
        Ok(())
    })?;
    let Some(states) = folder.take()? else { return Ok(None) };
    let states = operators::states::sort(oracle.view, &states)?;
    if oracle.view.is_compared_whole() {
        return Ok(Some(OracleInput { rows, states }));
    }
    let mut sampler = Sampler::new(run, states.num_rows() as u64);
    sampler.look_at(&states)?;
    Ok(Some(OracleInput { rows, states: sampler.finish(oracle.view)? }))
}

/// A row group that lies below the cut, another one in every run.
fn chosen<'a>(records: &'a MasterRecords, plan: &Plan, run: u64) -> Option<&'a Unit> {
    let is_below = |unit: &&Unit| {
        unit.offsets.end <= plan.cut.offset(unit.partition) && plan.from().offset(unit.partition) <= unit.offsets.start
    };
    let units: Vec<&Unit> = records.units().iter().filter(is_below).collect();
    let index = run.wrapping_mul(0x9E37_79B9).checked_rem(units.len() as u64)?;
    units.get(index as usize).copied()
}
