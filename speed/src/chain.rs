//! The chain of a stream's durable deltas, as held in memory, and what each view needs of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::documents::delta::{DeltaHeader, FailedView};
use schemas::documents::manifest::Manifest;
use schemas::{Cut, LedgerCounts, Problem};
use storage::snapshot::{RangeStates, ViewSnapshot};
use uuid::Uuid;

/// A durable delta. States of views that no reader needs any more are dropped from memory.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) header: Arc<DeltaHeader>,
    pub(crate) views: BTreeMap<Uuid, Arc<RangeStates>>,
}

/// What is durable of one view.
#[derive(Debug, Clone)]
pub(crate) struct ViewState {
    pub(crate) semantic_hash: String,
    pub(crate) from: Cut,
    pub(crate) manifest: Option<Arc<Manifest>>,
    /// Cuts of the batch views that are kept, the current one included: merges do not cross them.
    pub(crate) kept_cuts: Vec<Cut>,
    /// Why it can no longer be folded: a record's value cannot be computed.
    pub(crate) failed: Option<Problem>,
}

impl ViewState {
    /// Where its ranges begin: the published cut, or the view's own start.
    pub(crate) fn cut(&self) -> &Cut {
        self.manifest.as_ref().map_or(&self.from, |manifest| &manifest.cut)
    }

    /// Nothing below it is folded for this view.
    pub(crate) fn start(&self) -> Cut {
        self.from.join(self.cut())
    }
}

/// Chain, views and what is being checkpointed: all that a snapshot is made of, under one lock.
#[derive(Debug, Default)]
pub(crate) struct Base {
    pub(crate) links: Vec<Link>,
    pub(crate) views: BTreeMap<Uuid, ViewState>,
    /// End of the chain.
    pub(crate) durable: Cut,
    /// Ranges that a checkpoint is writing, from `durable` to `sealed`.
    pub(crate) in_flight: BTreeMap<Uuid, Arc<RangeStates>>,
    /// Where the tail begins.
    pub(crate) sealed: Cut,
    /// Cuts of runs that are not published yet: merges do not cross them.
    pub(crate) barriers: Vec<Cut>,
    /// The checkpoint that this process took as its claim: it is never removed.
    pub(crate) claim: Option<u64>,
    /// Number of the next checkpoint.
    pub(crate) next_checkpoint: u64,
    /// Grows with every change, so that a cached snapshot can be told to be old.
    pub(crate) version: u64,
}

impl Base {
    /// A view in a snapshot: its batch view, its deltas, what is in flight, and the tail up to `to`.
    pub(crate) fn view_snapshot(&self, id: Uuid, tail: Option<Arc<RangeStates>>, to: &Cut) -> Option<ViewSnapshot> {
        let state = self.views.get(&id)?;
        let mut ranges: Vec<Arc<RangeStates>> = self.links.iter().filter_map(|link| needed(state, id, link)).collect();
        ranges.extend(self.in_flight.get(&id).cloned());
        ranges.extend(tail);
        Some(ViewSnapshot {
            view: id,
            semantic_hash: state.semantic_hash.clone(),
            from: state.from.clone(),
            manifest: state.manifest.clone(),
            ranges,
            to: to.join(&state.start()),
            failed: state.failed.clone(),
        })
    }

    /// Bytes of the states in memory that are durable as deltas, or are just being written.
    pub(crate) fn chain_bytes(&self) -> usize {
        let durable = self.links.iter().flat_map(|link| link.views.values());
        durable.chain(self.in_flight.values()).map(|range| range.bytes()).sum()
    }

    /// Drops states from memory that lie below every view's cut.
    pub(crate) fn forget_covered(&mut self) {
        for link in &mut self.links {
            let views = &self.views;
            link.views.retain(|id, range| views.get(id).is_some_and(|state| state.cut().is_at_most(&range.from)));
        }
        self.version += 1;
    }

    /// True if no merge of deltas may cross this position.
    pub(crate) fn is_boundary(&self, cut: &Cut) -> bool {
        self.barriers.iter().any(|barrier| barrier.same_position(cut))
            || self
                .views
                .values()
                .any(|view| view.from.same_position(cut) || view.kept_cuts.iter().any(|kept| kept.same_position(cut)))
    }

    /// The views that cannot be folded any more, for a delta: a restart must not take them for whole.
    pub(crate) fn failed_views(&self) -> Vec<FailedView> {
        let failed = self.views.iter().filter_map(|(id, state)| Some((id, state.failed.as_ref()?)));
        failed.map(|(id, why)| FailedView { view: *id, code: why.code, detail: why.detail.clone() }).collect()
    }

    /// Everything below it is needed by no kept batch view: where the chain may be cut off.
    pub(crate) fn retained_from(&self) -> Option<Cut> {
        let oldest = |view: &ViewState| {
            let mut cuts = view.kept_cuts.iter().chain([view.cut()]).cloned();
            let first = cuts.next()?;
            Some(cuts.fold(first, |a, b| a.meet(&b)))
        };
        self.views.values().filter_map(oldest).reduce(|a, b| a.meet(&b))
    }
}

/// A delta's states of a view, unless its batch view has them.
fn needed(state: &ViewState, id: Uuid, link: &Link) -> Option<Arc<RangeStates>> {
    let range = link.views.get(&id)?;
    state.cut().is_at_most(&range.from).then(|| Arc::clone(range))
}

/// Ledger by partition, as a vector.
pub(crate) fn ledger_vector(by_partition: &BTreeMap<u32, LedgerCounts>, partitions: u32) -> Vec<LedgerCounts> {
    (0..partitions).map(|p| by_partition.get(&p).copied().unwrap_or_default()).collect()
}
