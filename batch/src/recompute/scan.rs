//! The scan: units → folders → runs of states, on all threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::record_batch::RecordBatch;
use operators::{Folder, evidence};
use parking_lot::Mutex;
use schemas::{Cut, LedgerCounts, Offset, Partition, Problem};

use super::{Job, Scanned, StateRuns, Unit};
use crate::internal;

/// A folder's table is emptied at the latest at this size: a batch of states stays well below the
/// 2 GiB that a column of bytes can address.
const FOLDER_BYTES_MAX: usize = 1 << 30;
/// Of the memory, what the tables of all threads may take together; the rest is for runs and merge.
const FOLDERS_SHARE: (usize, usize) = (2, 5);

/// Folds every record in `[job.from, job.cut)`. Blocks; uses `job.threads` threads.
///
/// # Errors
/// A record is not in exactly one unit; the view cannot be computed; `cancelled`.
pub fn scan(job: &Job) -> Result<Scanned, Problem> {
    let units = wanted_units(job)?;
    let states = StateRuns::new(&job.view, job.memory_bytes, job.spill.clone());
    let shared = Shared { job, units: &units, next: AtomicUsize::new(0), failure: Mutex::new(None), states: &states };
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..job.threads.clamp(1, units.len().max(1)) {
            scope.spawn(|| {
                // the work first, then the lock: the other way round one thread does it all
                let done = shared.work();
                results.lock().push(done);
            });
        }
    });
    let mut total = Counts::new(job);
    let mut late = Vec::new();
    for result in results.into_inner() {
        let (counts, dropped) = result?;
        total.add(&counts);
        late.extend(dropped);
    }
    late.sort_unstable();
    job.check_stopped()?;
    Ok(Scanned { ledger: total.all, since_base: total.since_base, late, states })
}

/// Units that meet `[from, cut)`, clipped to it. What does not cover the range exactly is refused.
fn wanted_units(job: &Job) -> Result<Vec<(Unit, std::ops::Range<Offset>)>, Problem> {
    let mut units: Vec<&Unit> = job.records.units().iter().collect();
    units.sort_by_key(|unit| (unit.partition, unit.offsets.start));
    let mut wanted = Vec::new();
    let mut reached = Cut(job.from.0.clone());
    for unit in units {
        let (from, to) = (job.from.offset(unit.partition), job.cut.offset(unit.partition));
        let clipped = unit.offsets.start.max(from)..unit.offsets.end.min(to);
        if clipped.start >= clipped.end {
            continue;
        }
        let due = reached.offset(unit.partition);
        if clipped.start != due {
            return Err(internal(format!(
                "master: partition {}: offset {due} is due, {} found",
                unit.partition, clipped.start
            )));
        }
        reached.set(unit.partition, clipped.end);
        wanted.push((unit.clone(), clipped));
    }
    if !job.cut.is_at_most(&reached) {
        return Err(internal(format!(
            "master: holds the records below {reached}, the run needs those below {}",
            job.cut
        )));
    }
    // the largest first, so that no thread starts a large one when the others are done
    wanted.sort_by_key(|(unit, clipped)| (u64::MAX - (clipped.end - clipped.start), unit.partition, clipped.start));
    Ok(wanted)
}

/// Ledgers per partition.
struct Counts {
    all: Vec<LedgerCounts>,
    since_base: Vec<LedgerCounts>,
}

impl Counts {
    fn new(job: &Job) -> Self {
        let partitions = job.cut.0.len().max(job.base_cut.0.len());
        Self { all: vec![LedgerCounts::default(); partitions], since_base: vec![LedgerCounts::default(); partitions] }
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.all.iter_mut().zip(&other.all) {
            mine.add(theirs);
        }
        for (mine, theirs) in self.since_base.iter_mut().zip(&other.since_base) {
            mine.add(theirs);
        }
    }
}

struct Shared<'a> {
    job: &'a Job,
    units: &'a [(Unit, std::ops::Range<Offset>)],
    next: AtomicUsize,
    /// What went wrong first; the other threads stop.
    failure: Mutex<Option<Problem>>,
    states: &'a StateRuns,
}

impl Shared<'_> {
    /// One thread's work: takes units until there are none.
    fn work(&self) -> Result<(Counts, Vec<(Partition, Offset)>), Problem> {
        let result = self.fold_units();
        result.map_err(|problem| self.failure.lock().get_or_insert(problem).clone())
    }

    fn fold_units(&self) -> Result<(Counts, Vec<(Partition, Offset)>), Problem> {
        let mut folder = Folder::new(&self.job.view)?;
        if self.job.view.late_policy().leaves_out() {
            folder.keep_late();
        }
        let mut counts = Counts::new(self.job);
        let budget = folder_budget(self.job);
        while let Some((unit, clipped)) = self.units.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.check_stopped()?;
            self.fold_unit(&mut folder, &mut counts, unit, clipped, budget)?;
        }
        if let Some(states) = folder.take()? {
            self.states.push_last(states)?;
        }
        Ok((counts, folder.take_late()))
    }

    fn fold_unit(
        &self,
        folder: &mut Folder,
        counts: &mut Counts,
        unit: &Unit,
        clipped: &std::ops::Range<Offset>,
        budget: usize,
    ) -> Result<(), Problem> {
        let mut offset = unit.offsets.start;
        let base = self.job.base_cut.offset(unit.partition);
        self.job.records.read(unit, self.job.view.input_columns(), &mut |rows| {
            let end = offset + rows.num_rows() as u64;
            // the part below the base's cut, then the part above it
            for part in [
                offset.max(clipped.start)..end.min(clipped.end).min(base),
                offset.max(clipped.start).max(base)..end.min(clipped.end),
            ] {
                if part.start < part.end {
                    let slice = rows.slice((part.start - offset) as usize, (part.end - part.start) as usize);
                    let found = fold(folder, unit.partition, part.start, &slice)?;
                    counts.all[unit.partition as usize].add(&found);
                    if part.start >= base {
                        counts.since_base[unit.partition as usize].add(&found);
                    }
                    self.job.progress.add(found.records);
                }
            }
            offset = end;
            self.empty_if_large(folder, budget)
        })?;
        if offset == unit.offsets.end {
            return Ok(());
        }
        Err(internal(format!(
            "master: partition {}: rows end at offset {offset}, the file says {}",
            unit.partition, unit.offsets.end
        )))
    }

    fn empty_if_large(&self, folder: &mut Folder, budget: usize) -> Result<(), Problem> {
        self.check_stopped()?;
        if folder.memory_bytes() < budget {
            return Ok(());
        }
        match folder.take()? {
            Some(states) => self.states.push(states),
            None => Ok(()),
        }
    }

    fn check_stopped(&self) -> Result<(), Problem> {
        if let Some(problem) = self.failure.lock().clone() {
            return Err(problem);
        }
        self.job.check_stopped()
    }
}

/// Folds rows and fills the whole ledger, the position hash too.
fn fold(folder: &mut Folder, partition: Partition, base: Offset, rows: &RecordBatch) -> Result<LedgerCounts, Problem> {
    let mut counts = folder.fold_columns(partition, base, rows.columns(), rows.num_rows())?;
    let mut positions = LedgerCounts::default();
    evidence::count_positions(&mut positions, partition, base..base + rows.num_rows() as u64);
    counts.positions_hi = positions.positions_hi;
    counts.positions_lo = positions.positions_lo;
    Ok(counts)
}

fn folder_budget(job: &Job) -> usize {
    let (numerator, denominator) = FOLDERS_SHARE;
    (job.memory_bytes / denominator * numerator / job.threads.max(1)).clamp(1, FOLDER_BYTES_MAX)
}
