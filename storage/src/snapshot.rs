//! The snapshot: cut, deltas and tail of every view of a stream, read as one (precondition H5).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use schemas::documents::manifest::Manifest;
use schemas::position::{CoverageBroken, assert_chain};
use schemas::{Cut, LedgerCounts, Problem};
use uuid::Uuid;

pub mod wire;

/// The states of one view over an exact range of offsets.
#[derive(Debug, Clone)]
pub struct RangeStates {
    /// Where it starts.
    pub from: Cut,
    /// Where it ends.
    pub to: Cut,
    /// The states, in the view's state schema.
    pub states: Vec<RecordBatch>,
    /// True if there is one batch, sorted by key with each key once.
    pub sorted: bool,
    /// Ledger per partition of `[from, to)`.
    pub ledger: Vec<LedgerCounts>,
}

impl RangeStates {
    /// Rows over all batches.
    pub fn cells(&self) -> usize {
        self.states.iter().map(RecordBatch::num_rows).sum()
    }

    /// What its states take in memory.
    pub fn bytes(&self) -> usize {
        self.states.iter().map(crate::footprint::bytes_of).sum()
    }
}

/// One view in a snapshot. Immutable.
#[derive(Debug, Clone)]
pub struct ViewSnapshot {
    /// The view.
    pub view: Uuid,
    /// What its states mean.
    pub semantic_hash: String,
    /// Where its deltas begin when no batch view is published.
    pub from: Cut,
    /// The published batch view.
    pub manifest: Option<Arc<Manifest>>,
    /// Deltas and tail from the cut to `to`: a chain. Durable ones first.
    pub ranges: Vec<Arc<RangeStates>>,
    /// Everything below it is in the batch view or in the ranges.
    pub to: Cut,
    /// Why the view can no longer be folded; nothing can be answered from it then.
    pub failed: Option<Problem>,
}

impl ViewSnapshot {
    /// Where the ranges begin: the published cut, or the view's own start.
    pub fn cut(&self) -> &Cut {
        self.manifest.as_ref().map_or(&self.from, |manifest| &manifest.cut)
    }

    /// True if everything below `to` is in here: a view made over history lacks it until its first run.
    pub fn has_history(&self) -> bool {
        self.manifest.is_some() || self.from.total() == 0
    }

    /// Precondition H1, invariant I7: the ranges are a chain from the cut to `to`.
    ///
    /// # Errors
    /// The offsets that no range has, or that two have, at the first place where the chain is broken.
    pub fn assert_coverage(&self) -> Result<(), CoverageBroken> {
        let end = assert_chain(self.cut(), self.ranges.iter().map(|r| (&r.from, &r.to)))?;
        if end.same_position(&self.to) {
            return Ok(());
        }
        Err(CoverageBroken { expected: end, found: self.to.clone() })
    }

    /// Ledger of the ranges, over all partitions.
    pub fn speed_ledger(&self) -> LedgerCounts {
        LedgerCounts::sum(self.ranges.iter().flat_map(|r| &r.ledger))
    }
}

/// All views of a stream at one position. Immutable.
#[derive(Debug, Clone)]
pub struct StreamSnapshot {
    /// The stream.
    pub stream: Uuid,
    /// Everything below it is counted, in every view.
    pub to: Cut,
    /// Microseconds since the epoch.
    pub taken_at_us: i64,
    /// Append time of the oldest durable record that is not in it; none if all are.
    pub oldest_missing_us: Option<i64>,
    /// True if the stream's owner could not be asked for what is newer than its last delta: how much that
    /// is is not known, and nothing acknowledged before `oldest_missing_us` is among it.
    pub tail_unknown: bool,
    /// Largest event time per partition below `to`, microseconds.
    pub max_event_time_us: Vec<Option<i64>>,
    /// By view id.
    pub views: BTreeMap<Uuid, Arc<ViewSnapshot>>,
}

impl StreamSnapshot {
    /// The watermark that all partitions have passed: what comes with a time before it is late, in whatever partition.
    /// None while there is a partition without an event: it may bring any time, and no clock decides otherwise.
    pub fn watermark_us(&self, delay_us: i64) -> Option<i64> {
        let partitions = self.max_event_time_us.len().max(self.to.0.len());
        let of = |partition: usize| self.max_event_time_us.get(partition).copied().flatten();
        let all: Option<Vec<i64>> = (0..partitions).map(of).collect();
        all?.into_iter().min().map(|time_us| time_us.saturating_sub(delay_us))
    }
}
