//! Runs of states: what the folders gave, in memory, and on disk when there is too much of it.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use operators::{View, states};
use parking_lot::Mutex;
use schemas::Problem;

use super::bytes_of;
use super::spill::{SpillFolder, SpilledRun};

/// Tenths of the memory that runs may take while records are folded.
const TENTHS_WHILE_FOLDING: usize = 3;
/// Tenths of it when the folders' tables are gone.
const TENTHS_AT_THE_END: usize = 7;

/// States in runs: a key is in a run at most once, but in several runs.
pub struct StateRuns {
    pub(super) view: Arc<View>,
    pub(super) memory_bytes: usize,
    folder: SpillFolder,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    memory: Vec<RecordBatch>,
    bytes: usize,
    spilled: Vec<SpilledRun>,
    spilled_bytes: u64,
}

impl std::fmt::Debug for StateRuns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("StateRuns")
            .field("memory", &inner.memory.len())
            .field("spilled", &inner.spilled.len())
            .finish_non_exhaustive()
    }
}

impl StateRuns {
    /// No runs yet. `folder` is made when the first run is spilled and removed with the runs.
    pub fn new(view: &Arc<View>, memory_bytes: usize, folder: PathBuf) -> Self {
        Self { view: Arc::clone(view), memory_bytes, folder: SpillFolder::new(folder), inner: Mutex::default() }
    }

    /// Adds a run, in any order, each key once. Past the budget, the runs in memory are spilled.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&self, run: RecordBatch) -> Result<(), Problem> {
        self.push_within(run, TENTHS_WHILE_FOLDING)
    }

    /// [`StateRuns::push`] for the last run of a folder.
    pub(super) fn push_last(&self, run: RecordBatch) -> Result<(), Problem> {
        self.push_within(run, TENTHS_AT_THE_END)
    }

    fn push_within(&self, run: RecordBatch, tenths: usize) -> Result<(), Problem> {
        let to_spill = {
            let mut inner = self.inner.lock();
            inner.bytes += bytes_of(&run);
            inner.memory.push(run);
            if inner.bytes <= self.memory_bytes / 10 * tenths {
                return Ok(());
            }
            inner.bytes = 0;
            std::mem::take(&mut inner.memory)
        };
        for run in to_spill {
            let spilled = self.spill(&run)?;
            let mut inner = self.inner.lock();
            inner.spilled_bytes += spilled.bytes;
            inner.spilled.push(spilled);
        }
        Ok(())
    }

    fn spill(&self, run: &RecordBatch) -> Result<SpilledRun, Problem> {
        let sorted = states::sort(&self.view, run)?;
        self.folder.write(&self.view, &sorted)
    }

    /// Bytes of states that went to disk.
    pub fn spilled_bytes(&self) -> u64 {
        self.inner.lock().spilled_bytes
    }

    /// All runs: those in memory, those on disk.
    pub(super) fn into_parts(self) -> (Vec<RecordBatch>, Vec<SpilledRun>, SpillFolder) {
        let inner = self.inner.into_inner();
        (inner.memory, inner.spilled, self.folder)
    }
}
