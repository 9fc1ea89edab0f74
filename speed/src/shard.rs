//! A shard: the partitions of a stream that one fold loop works on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::max;
use arrow::datatypes::TimestampMicrosecondType;
use operators::{Folder, View, evidence, states};
use schemas::{Cut, LedgerCounts, Offset, Partition, Problem};
use storage::log::Frame;
use uuid::Uuid;

/// Tail batches are merged when the older is at most so many times as large: a reader then sees a few.
const TIER_RATIO: usize = 2;

/// What one shard folds.
pub(crate) struct Shard {
    /// Next offset of each of its partitions.
    next: BTreeMap<Partition, Offset>,
    /// Largest event time of each, microseconds.
    max_event_time_us: BTreeMap<Partition, Option<i64>>,
    /// Index of the event-time column in the log schema.
    time_column: Option<usize>,
    views: BTreeMap<Uuid, ShardView>,
}

struct ShardView {
    view: Arc<View>,
    folder: Folder,
    /// Records below are not this view's: they lie before it, or in its batch view or deltas.
    start: Cut,
    /// States since the last checkpoint, in tiers.
    sealed: Vec<RecordBatch>,
    ledger: BTreeMap<Partition, LedgerCounts>,
    /// Why it can no longer be folded.
    failed: Option<Problem>,
}

/// The states of one view since the last checkpoint.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sealed {
    pub(crate) states: Vec<RecordBatch>,
    pub(crate) ledger: BTreeMap<Partition, LedgerCounts>,
}

impl Shard {
    pub(crate) fn new(next: BTreeMap<Partition, Offset>, time_column: Option<usize>) -> Self {
        Self { next, max_event_time_us: BTreeMap::new(), time_column, views: BTreeMap::new() }
    }

    pub(crate) fn add_view(&mut self, id: Uuid, view: &Arc<View>, start: &Cut) -> Result<(), Problem> {
        let folder = Folder::new(view)?;
        let view = ShardView {
            view: Arc::clone(view),
            folder,
            start: start.clone(),
            sealed: vec![],
            ledger: BTreeMap::new(),
            failed: None,
        };
        self.views.insert(id, view);
        Ok(())
    }

    /// A partition to fold from its beginning; one that is known stays as it is.
    pub(crate) fn add_partition(&mut self, partition: Partition) {
        self.next.entry(partition).or_insert(0);
        self.max_event_time_us.entry(partition).or_insert(None);
    }

    pub(crate) fn remove_view(&mut self, id: Uuid) {
        self.views.remove(&id);
    }

    pub(crate) fn next(&self, partition: Partition) -> Offset {
        self.next.get(&partition).copied().unwrap_or(0)
    }

    /// Everything below it is folded, in the shard's own partitions.
    pub(crate) fn positions(&self) -> &BTreeMap<Partition, Offset> {
        &self.next
    }

    pub(crate) fn max_event_time_us(&self) -> &BTreeMap<Partition, Option<i64>> {
        &self.max_event_time_us
    }

    pub(crate) fn set_max_event_time(&mut self, partition: Partition, time_us: Option<i64>) {
        self.max_event_time_us.insert(partition, time_us);
    }

    /// Folds frames of the shard's partitions into every view. A view that fails does so alone.
    pub(crate) fn fold(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.fold_frame(frame);
        }
    }

    fn fold_frame(&mut self, frame: &Frame) {
        let next = self.next(frame.partition);
        let Some(frame) = frame.clip(&(next..Offset::MAX)) else { return };
        assert!(frame.base == next, "partition {}: {} follows {next}", frame.partition, frame.base);
        let mut positions = Positions::default();
        for view in self.views.values_mut().filter(|view| view.failed.is_none()) {
            if let Err(problem) = view.fold(&frame, &mut positions) {
                view.fail(problem);
            }
        }
        self.note_event_time(&frame);
        self.next.insert(frame.partition, frame.end());
    }

    /// Views that can no longer be folded, and why.
    pub(crate) fn failures(&self) -> Vec<(Uuid, Problem)> {
        self.views.iter().filter_map(|(id, view)| Some((*id, view.failed.clone()?))).collect()
    }

    /// Folds a view no longer.
    pub(crate) fn fail_view(&mut self, id: Uuid, problem: &Problem) {
        if let Some(view) = self.views.get_mut(&id).filter(|view| view.failed.is_none()) {
            view.fail(problem.clone());
        }
    }

    fn note_event_time(&mut self, frame: &Frame) {
        let Some(column) = self.time_column else { return };
        let times = frame.rows.column(column).as_primitive::<TimestampMicrosecondType>();
        let largest = self.max_event_time_us.entry(frame.partition).or_default();
        *largest = (*largest).max(max(times));
    }

    /// Moves what every view folded into its tail.
    pub(crate) fn seal(&mut self) {
        for view in self.views.values_mut().filter(|view| view.failed.is_none()) {
            if let Err(problem) = view.seal() {
                view.fail(problem);
            }
        }
    }

    /// The tail of a view.
    pub(crate) fn tail(&self, id: Uuid) -> Sealed {
        let view = self.views.get(&id);
        view.map(|v| Sealed { states: v.sealed.clone(), ledger: v.ledger.clone() }).unwrap_or_default()
    }

    /// Moves the tails of all views out: the range of a checkpoint.
    pub(crate) fn take_tails(&mut self) -> BTreeMap<Uuid, Sealed> {
        let take = |view: &mut ShardView| Sealed {
            states: std::mem::take(&mut view.sealed),
            ledger: std::mem::take(&mut view.ledger),
        };
        self.views.iter_mut().map(|(id, view)| (*id, take(view))).collect()
    }

    /// Bytes of states that are in no checkpoint yet.
    pub(crate) fn memory_bytes(&self) -> usize {
        let of = |view: &ShardView| {
            view.folder.memory_bytes() + view.sealed.iter().map(RecordBatch::get_array_memory_size).sum::<usize>()
        };
        self.views.values().map(of).sum()
    }
}

impl ShardView {
    /// What was folded lacks the record that cannot be: nothing of it is kept.
    fn fail(&mut self, problem: Problem) {
        self.failed = Some(problem);
        self.sealed.clear();
        self.ledger.clear();
        let _ = self.folder.take();
    }

    fn fold(&mut self, frame: &Frame, positions: &mut Positions) -> Result<(), Problem> {
        let start = self.start.offset(frame.partition);
        let Some(frame) = frame.clip(&(start..Offset::MAX)) else { return Ok(()) };
        let mut counts = self.folder.fold(frame.partition, frame.base, &frame.rows)?;
        let hashed = positions.of(frame.partition, frame.base..frame.end());
        counts.positions_hi = hashed.positions_hi;
        counts.positions_lo = hashed.positions_lo;
        self.ledger.entry(frame.partition).or_default().add(&counts);
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Problem> {
        let Some(states) = self.folder.take()? else { return Ok(()) };
        self.sealed.push(states);
        while let [.., older, newer] = self.sealed.as_slice()
            && older.num_rows() <= TIER_RATIO * newer.num_rows()
        {
            let merged = states::merge(&self.view, &[older.clone(), newer.clone()])?;
            self.sealed.truncate(self.sealed.len() - 2);
            self.sealed.push(merged);
        }
        Ok(())
    }
}

/// The position hash of a frame, computed once for all views.
#[derive(Default)]
struct Positions(Option<(Range<Offset>, LedgerCounts)>);

impl Positions {
    fn of(&mut self, partition: Partition, range: Range<Offset>) -> LedgerCounts {
        if let Some((known, counts)) = &self.0
            && *known == range
        {
            return *counts;
        }
        let mut counts = LedgerCounts::default();
        evidence::count_positions(&mut counts, partition, range.clone());
        self.0 = Some((range, counts));
        counts
    }
}
