//! The full recomputation of a view: records below a cut → states, sorted by key.
//!
//! ```text
//!  units ──► N threads, a Folder each ──► runs of states ──► key ranges ──► ⊕ and sort ──► sink
//!  (file,     reads only the columns      (in memory; on     (sampled       (N threads,     (one, in
//!  row groups) of the view                disk if too much)   quantiles)     one range each)  key order)
//! ```
//! The result depends on the records alone: not on threads, memory, or which unit came first (H3).

mod merge;
mod ranges;
mod runs;
mod scan;
mod spill;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use operators::View;
use schemas::{Code, Cut, LedgerCounts, Offset, Partition, Problem};
use tokio_util::sync::CancellationToken;

pub use merge::{Sink, write_sorted};
pub use runs::StateRuns;
pub use scan::scan;

/// A piece of the records that one thread reads at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Index of the file, as the [`Records`] number them.
    pub file: usize,
    /// Row groups of the file.
    pub row_groups: Range<usize>,
    /// The partition that its records belong to.
    pub partition: Partition,
    /// Their offsets, consecutive, in the order of the rows.
    pub offsets: Range<Offset>,
}

/// Takes the rows of a unit, in order.
pub type Each<'a> = &'a mut dyn FnMut(RecordBatch) -> Result<(), Problem>;

/// Where a recomputation reads records from.
pub trait Records: Send + Sync {
    /// All units. Together they hold every offset once.
    fn units(&self) -> &[Unit];

    /// Reads some columns of a unit (indexes into `StreamDef::log_schema`, the order is kept) and
    /// hands on its rows in order. With no columns, the rows still have their number. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or what `each` returned.
    fn read(&self, unit: &Unit, columns: &[usize], each: Each<'_>) -> Result<(), Problem>;
}

/// What a recomputation computes, and with how much.
#[derive(Clone)]
pub struct Job {
    /// The view.
    pub view: Arc<View>,
    /// The records.
    pub records: Arc<dyn Records>,
    /// Records below it are left out: zero for a full run, the base's cut for an incremental one.
    pub from: Cut,
    /// The auditor wants the ledger above it apart.
    pub base_cut: Cut,
    /// Records from it on are left out.
    pub cut: Cut,
    /// Threads.
    pub threads: usize,
    /// Bytes that states may take before they are spilled.
    pub memory_bytes: usize,
    /// A folder of its own for spilled states; made when needed, removed at the end.
    pub spill: PathBuf,
    /// Counts records.
    pub progress: Arc<Progress>,
    /// Ends the work between two units.
    pub stop: CancellationToken,
}

impl Job {
    fn check_stopped(&self) -> Result<(), Problem> {
        if self.stop.is_cancelled() {
            return Err(Problem::new(Code::Cancelled, "the run was cancelled"));
        }
        Ok(())
    }
}

/// How far a recomputation is. Read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
}

impl Progress {
    /// Records read so far.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn add(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

/// What a scan found.
#[derive(Debug)]
pub struct Scanned {
    /// Per partition, everything in `[from, cut)`.
    pub ledger: Vec<LedgerCounts>,
    /// Per partition, the part of it in `[base_cut, cut)`.
    pub since_base: Vec<LedgerCounts>,
    /// Positions that `late = 'drop'` left out, in order.
    pub late: Vec<(Partition, Offset)>,
    /// The states, in runs that overlap.
    pub states: StateRuns,
}

/// Bytes of a batch of states, as far as one can see.
fn bytes_of(states: &RecordBatch) -> usize {
    states.get_array_memory_size()
}
