//! Runs → cells sorted by key: every thread merges a piece of the key space, range by range.

use std::ops::Range;

use arrow::record_batch::RecordBatch;
use operators::cells::CellTable;
use operators::states;
use parking_lot::Mutex;
use schemas::Problem;

use super::ranges::KeyRanges;
use super::spill::SpilledRun;
use super::{Job, StateRuns, bytes_of};
use crate::internal;

/// State rows that are not worth a second range.
const RANGE_ROWS_MIN: usize = 65_536;
/// Ranges at most.
const RANGES_MAX: usize = 4_096;
/// A table of cells takes about this many times the bytes of its states.
const TABLE_FACTOR: usize = 3;

/// Takes states that are sorted by key; every key is above those of the call before.
pub trait Sink: Send {
    /// Takes the next states.
    ///
    /// # Errors
    /// The disk refuses.
    fn write(&mut self, states: RecordBatch) -> Result<(), Problem>;
}

impl Sink for Vec<RecordBatch> {
    fn write(&mut self, states: RecordBatch) -> Result<(), Problem> {
        self.push(states);
        Ok(())
    }
}

/// Merges the runs and writes every cell once, in key order, to sinks: one per thread, at least one.
/// `open` makes the sink of the i-th piece of the key space. Returns them in key order. Blocks.
///
/// # Errors
/// The disk refuses; `cancelled`; what a sink returned.
pub fn write_sorted<S: Sink>(job: &Job, runs: StateRuns, open: impl Fn(u32) -> S + Sync) -> Result<Vec<S>, Problem> {
    // the folder of spilled states is removed when it goes out of scope
    let (memory, spilled, _folder) = runs.into_parts();
    let ranges = KeyRanges::sample(&job.view, &memory, &spilled, range_count(job, &memory, &spilled))?;
    let parts = split(job, &ranges, memory)?;
    let merger = Merger { job, ranges: &ranges, parts, spilled: &spilled };
    let pieces = pieces(ranges.len(), job.threads.clamp(1, ranges.len()));
    std::thread::scope(|scope| {
        let work = |(part, piece): (u32, Range<usize>)| {
            let (merger, open) = (&merger, &open);
            scope.spawn(move || merger.write(piece, open(part)))
        };
        let threads: Vec<_> = (0u32..).zip(pieces).map(work).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(internal("a thread of the run panicked"))))
            .collect()
    })
}

/// Splits `0..ranges` evenly.
fn pieces(ranges: usize, count: usize) -> Vec<Range<usize>> {
    (0..count).map(|piece| piece * ranges / count..(piece + 1) * ranges / count).collect()
}

/// Enough ranges that the tables of all threads fit into memory together.
fn range_count(job: &Job, memory: &[RecordBatch], spilled: &[SpilledRun]) -> usize {
    let rows: usize = memory.iter().map(RecordBatch::num_rows).chain(spilled.iter().map(|run| run.rows)).sum();
    let bytes =
        memory.iter().map(bytes_of).sum::<usize>() + spilled.iter().map(|run| run.bytes as usize).sum::<usize>();
    let by_memory = (bytes * TABLE_FACTOR * 2).saturating_mul(job.threads) / job.memory_bytes.max(1);
    let by_threads = (job.threads * 4).min(rows / RANGE_ROWS_MIN);
    by_memory.max(by_threads).clamp(1, RANGES_MAX.min(rows.max(1)))
}

type Parts = Vec<Mutex<Vec<RecordBatch>>>;

/// Splits every run in memory by range, run by run, so that no more than one per thread is there twice.
fn split(job: &Job, ranges: &KeyRanges, memory: Vec<RecordBatch>) -> Result<Parts, Problem> {
    let parts: Parts = (0..ranges.len()).map(|_| Mutex::default()).collect();
    let threads = job.threads.clamp(1, memory.len().max(1));
    let queue = Mutex::new(memory);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                if let Err(problem) = split_from(&queue, job, ranges, &parts) {
                    *failure.lock() = Some(problem);
                }
            });
        }
    });
    failure.into_inner().map_or(Ok(parts), Err)
}

fn split_from(queue: &Mutex<Vec<RecordBatch>>, job: &Job, ranges: &KeyRanges, parts: &Parts) -> Result<(), Problem> {
    loop {
        job.check_stopped()?;
        let Some(run) = queue.lock().pop() else { return Ok(()) };
        if ranges.len() == 1 {
            parts[0].lock().push(run);
            continue;
        }
        for (part, states) in parts.iter().zip(ranges.split(&job.view, &run)?) {
            if states.num_rows() > 0 {
                part.lock().push(states);
            }
        }
    }
}

struct Merger<'a> {
    job: &'a Job,
    ranges: &'a KeyRanges,
    parts: Parts,
    spilled: &'a [SpilledRun],
}

impl Merger<'_> {
    /// One thread's piece of the key space.
    fn write<S: Sink>(&self, piece: Range<usize>, mut sink: S) -> Result<S, Problem> {
        for range in piece {
            if let Some(states) = self.merge(range)? {
                sink.write(states)?;
            }
        }
        Ok(sink)
    }

    fn merge(&self, range: usize) -> Result<Option<RecordBatch>, Problem> {
        self.job.check_stopped()?;
        let view = &self.job.view;
        let mut parts = std::mem::take(&mut *self.parts[range].lock());
        if let (1, true) = (parts.len(), self.spilled.is_empty()) {
            return parts.pop().map(|only| states::sort(view, &only)).transpose();
        }
        let mut table = CellTable::new(view)?;
        while let Some(part) = parts.pop() {
            table.merge(&part)?;
        }
        for run in self.spilled {
            run.read(view, self.ranges.bounds(range), &mut |block| table.merge(&block))?;
        }
        table.take()?.map(|states| states::sort(view, &states)).transpose()
    }
}
