//! Merging deltas: eight of a tier become one of the next, so that a reader merges tens of them,
//! whatever the time since the last run. No merge crosses a barrier (invariant I3).
//!
//! Checkpoints go on meanwhile: a merge of millions of cells takes seconds, and what is in no delta has to be folded again
//! after a crash. A checkpoint only adds a delta at the end, which is never among those that are being merged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use schemas::documents::delta::{DeltaHeader, DeltaView};
use schemas::{LedgerCounts, Problem};
use storage::StorageError;
use storage::snapshot::RangeStates;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::chain::{Base, Link};
use crate::checkpoint::{blocking, described, merged};
use crate::stream::StreamSpeed;

/// How many deltas of one tier are merged into one of the next.
const FAN_IN: usize = 8;
/// With more deltas than this, neighbours are merged whatever their tier.
const CROWDED: usize = 64;

impl StreamSpeed {
    /// Merges deltas after each checkpoint, until `stop`.
    pub(crate) async fn merge_loop(self: Arc<Self>, stop: CancellationToken) -> Result<(), Problem> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.merge_wanted.notified() => self.compact_chain(&stop).await?,
            }
        }
    }

    /// Merges deltas as long as a tier is full; a merge that was begun is ended.
    pub(crate) async fn compact_chain(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), Problem> {
        let _one_at_a_time = self.merging.lock().await;
        while !stop.is_cancelled() {
            let Some(links) = self.next_merge() else { return Ok(()) };
            let this = Arc::clone(self);
            let link = blocking(move || this.merge_links(&links)).await?;
            let states: Vec<_> = link.views.values().map(|range| range.states.clone()).collect();
            match self.parts.deltas.commit(&link.header, &states).await {
                // a crash between this commit and the removal leaves the merged object behind: it is as good
                Ok(_) | Err(StorageError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(stream = self.name(), %error, "merging deltas failed, trying again later");
                    return Ok(());
                }
            }
            self.swap_merged(link);
            let (chain, claim) = self.chain_names();
            if let Err(error) = self.parts.deltas.remove_merged(self.parts.stream.id, &chain, claim).await {
                tracing::warn!(stream = self.name(), %error, "merged deltas could not be removed");
            }
        }
        Ok(())
    }

    fn chain_names(&self) -> (Vec<(u64, u64)>, Option<u64>) {
        let base = self.base.lock();
        let names = base.links.iter().map(|link| (link.header.first_checkpoint, link.header.last_checkpoint));
        (names.collect(), base.claim)
    }

    fn next_merge(&self) -> Option<Vec<Link>> {
        let base = self.base.lock();
        full_tier(&base).map(|range| base.links[range].to_vec())
    }

    fn merge_links(&self, links: &[Link]) -> Link {
        let views = self.views_by_id();
        let (first, last) = (&links[0].header, &links[links.len() - 1].header);
        let mut ranges: BTreeMap<Uuid, Arc<RangeStates>> = BTreeMap::new();
        for (id, view) in &views {
            let parts: Vec<&RangeStates> =
                links.iter().filter_map(|link| link.views.get(id).map(AsRef::as_ref)).collect();
            // what ends before the last delta does is of a view that failed: merged, it would pass for the whole
            let whole = |end: &&&RangeStates| last.to.is_at_most(&end.to);
            if let (Some(start), Some(end)) = (parts.first(), parts.last().filter(whole)) {
                let range = RangeStates {
                    from: start.from.clone(),
                    to: end.to.clone(),
                    states: parts.iter().flat_map(|part| part.states.iter().cloned()).collect(),
                    sorted: false,
                    ledger: sum(&parts),
                };
                match merged(view, &range) {
                    Ok(range) => {
                        ranges.insert(*id, Arc::new(range));
                    }
                    Err(problem) => self.fail_view(*id, problem),
                }
            }
        }
        let header = DeltaHeader {
            first_checkpoint: first.first_checkpoint,
            from: first.from.clone(),
            views: ranges.iter().map(|(id, range)| described(*id, range, &views)).collect(),
            failed: self.failed_views(),
            ..DeltaHeader::clone(last)
        };
        Link { header: Arc::new(header), views: ranges }
    }

    fn swap_merged(&self, mut merged: Link) {
        let mut base = self.base.lock();
        let inside = |link: &Link| {
            merged.header.first_checkpoint <= link.header.first_checkpoint
                && link.header.last_checkpoint <= merged.header.last_checkpoint
        };
        let Some(at) = base.links.iter().position(inside) else { return };
        base.links.retain(|link| !inside(link));
        merged.views.retain(|id, _| base.views.contains_key(id));
        base.links.insert(at, merged);
        base.forget_covered();
    }
}

fn sum(parts: &[&RangeStates]) -> Vec<LedgerCounts> {
    let partitions = parts.iter().map(|part| part.ledger.len()).max().unwrap_or(0);
    let of = |partition: usize| LedgerCounts::sum(parts.iter().filter_map(|part| part.ledger.get(partition)));
    (0..partitions).map(of).collect()
}

/// All states of the link that anybody may still ask for are in memory: those of views that have them
/// in every batch view that is kept are not.
fn is_whole(base: &Base, link: &Link) -> bool {
    let needed = |part: &&DeltaView| {
        let state = base.views.get(&part.view);
        state.is_some_and(|view| !view.kept_cuts.iter().chain([view.cut()]).all(|cut| link.header.to.is_at_most(cut)))
    };
    link.header.views.iter().filter(needed).all(|part| link.views.contains_key(&part.view))
}

/// The oldest [`FAN_IN`] neighbours of one tier, with all their states in memory and no boundary between.
fn full_tier(base: &Base) -> Option<Range<usize>> {
    let tier = |link: &Link| (link.header.last_checkpoint - link.header.first_checkpoint + 1).ilog(FAN_IN as u64);
    let is_crowded = base.links.len() > CROWDED;
    (0..base.links.len().saturating_sub(FAN_IN - 1)).map(|start| start..start + FAN_IN).find(|range| {
        let links = &base.links[range.clone()];
        let inner = &links[..FAN_IN - 1];
        links.iter().all(|link| (is_crowded || tier(link) == tier(&links[0])) && is_whole(base, link))
            && !inner.iter().any(|link| base.is_boundary(&link.header.to))
    })
}
