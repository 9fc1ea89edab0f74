//! A shard: the states that one core folds records into.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use operators::{Folder, View, evidence, states};
use schemas::{Cut, LedgerCounts, Offset, Partition, Problem};
use storage::log::Frame;
use uuid::Uuid;

/// Tail batches are merged when the older is at most so many times as large: a reader then sees a few.
const TIER_RATIO: usize = 2;

/// What one shard folds: any records of the stream, each record in one shard. States add up, so which one it was
/// does not matter.
#[derive(Default)]
pub(crate) struct Shard {
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
    failed: Option<Failure>,
}

/// Where a frame that cannot be folded begins, and why it cannot be.
pub(crate) type Failure = ((Partition, Offset), Problem);

/// The states of one view since the last checkpoint.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sealed {
    pub(crate) states: Vec<RecordBatch>,
    pub(crate) ledger: BTreeMap<Partition, LedgerCounts>,
}

impl Sealed {
    /// Adds what another shard has; both may have records of one partition.
    pub(crate) fn add(&mut self, other: Self) {
        self.states.extend(other.states);
        for (partition, counts) in other.ledger {
            self.ledger.entry(partition).or_default().add(&counts);
        }
    }
}

impl Shard {
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

    pub(crate) fn remove_view(&mut self, id: Uuid) {
        self.views.remove(&id);
    }

    /// Folds a frame into every view. A view that fails does so alone.
    pub(crate) fn fold(&mut self, frame: &Frame) {
        let mut positions = Positions::default();
        for view in self.views.values_mut().filter(|view| view.failed.is_none()) {
            if let Err(problem) = view.fold(frame, &mut positions) {
                view.fail((frame.partition, frame.base), problem);
            }
        }
    }

    /// Views that can no longer be folded: at which frame, and why.
    pub(crate) fn failures(&self) -> Vec<(Uuid, Failure)> {
        self.views.iter().filter_map(|(id, view)| Some((*id, view.failed.clone()?))).collect()
    }

    /// Folds a view no longer.
    pub(crate) fn fail_view(&mut self, id: Uuid, problem: &Problem) {
        if let Some(view) = self.views.get_mut(&id).filter(|view| view.failed.is_none()) {
            view.fail((0, 0), problem.clone());
        }
    }

    /// Moves what every view folded into its tail.
    pub(crate) fn seal(&mut self) {
        for view in self.views.values_mut().filter(|view| view.failed.is_none()) {
            if let Err(problem) = view.seal() {
                view.fail((0, 0), problem);
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
    fn fail(&mut self, at: (Partition, Offset), problem: Problem) {
        self.failed = Some((at, problem));
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
