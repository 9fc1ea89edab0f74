//! One stream as it is in the store: the batch views that are current, and the chain of deltas after them.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::documents::delta::DeltaHeader;
use schemas::documents::manifest::Manifest;
use schemas::position::assert_chain;
use schemas::{Code, Cut, Problem, StreamDef, ViewDef};
use storage::deltas::{Delta, DeltaStore};
use storage::error::StorageError;
use storage::manifests::ManifestStore;
use storage::snapshot::{RangeStates, StreamSnapshot, ViewSnapshot};
use uuid::Uuid;

/// How often a reading is begun anew because deltas were merged or retired under it.
const ATTEMPTS_MAX: usize = 8;

/// A delta, decoded.
#[derive(Debug)]
pub(super) struct StoredDelta {
    header: DeltaHeader,
    ranges: BTreeMap<Uuid, Arc<RangeStates>>,
}

impl StoredDelta {
    fn of(delta: Delta) -> Self {
        let parts = delta.header.views.iter().zip(delta.states).map(|(part, states)| {
            let range = RangeStates {
                from: part.from.clone(),
                to: delta.header.to.join(&part.from),
                states,
                sorted: true,
                ledger: part.ledger.clone(),
            };
            (part.view, Arc::new(range))
        });
        let ranges = parts.collect();
        Self { header: delta.header, ranges }
    }

    fn name(&self) -> (u64, u64) {
        (self.header.first_checkpoint, self.header.last_checkpoint)
    }
}

/// One reading of a stream.
#[derive(Debug)]
pub(super) struct StoredStream {
    pub(super) stream: StreamDef,
    pub(super) views: Vec<ViewDef>,
    manifests: BTreeMap<Uuid, Arc<Manifest>>,
    chain: Vec<Arc<StoredDelta>>,
}

impl StoredStream {
    /// Reads a stream. Deltas that an earlier reading has are not read again.
    ///
    /// In this order: every manifest's cut is the end of a delta that was durable before it, so a chain that is
    /// listed after the manifests were read reaches beyond all their cuts.
    pub(super) async fn read(
        deltas: &DeltaStore,
        manifests: &ManifestStore,
        stream: &StreamDef,
        views: Vec<ViewDef>,
        known: Option<Arc<Self>>,
    ) -> Result<Self, Problem> {
        let mut attempt = 1;
        loop {
            let read = Self::read_once(deltas, manifests, stream, &views, known.as_deref()).await;
            match read {
                Ok(read) => return Ok(read),
                Err(StorageError::NotFound { .. } | StorageError::Damaged { .. }) if attempt < ATTEMPTS_MAX => {}
                Err(error) => return Err(error.problem()),
            }
            attempt += 1;
        }
    }

    async fn read_once(
        deltas: &DeltaStore,
        manifests: &ManifestStore,
        stream: &StreamDef,
        views: &[ViewDef],
        known: Option<&Self>,
    ) -> Result<Self, StorageError> {
        let mut current = BTreeMap::new();
        for view in views {
            if let Some(manifest) = manifests.current(view.id).await? {
                current.insert(view.id, manifest);
            }
        }
        let mut chain: Vec<Arc<StoredDelta>> = vec![];
        for name in deltas.chain_names(stream.id, None).await? {
            let had = known.and_then(|known| known.chain.iter().find(|delta| delta.name() == name));
            chain.push(match had {
                Some(delta) => Arc::clone(delta),
                None => Arc::new(StoredDelta::of(deltas.read(stream.id, name.0, name.1).await?)),
            });
        }
        let read = Self { stream: stream.clone(), views: views.to_vec(), manifests: current, chain };
        read.assert_whole()?;
        Ok(read)
    }

    /// The deltas meet, are of this log, and reach back to the cuts: a list that was read while deltas were merged may
    /// lack some.
    fn assert_whole(&self) -> Result<(), StorageError> {
        let damaged = |reason: String| StorageError::Damaged { path: storage::paths::deltas(self.stream.id), reason };
        let Some(first) = self.chain.first() else { return Ok(()) };
        let ranges = self.chain.iter().map(|delta| (&delta.header.from, &delta.header.to));
        assert_chain(&first.header.from, ranges).map_err(|broken| damaged(broken.to_string()))?;
        if let Some(foreign) = self.chain.iter().find(|delta| delta.header.incarnation != self.stream.incarnation) {
            return Err(damaged(format!("a delta is of log {}", foreign.header.incarnation)));
        }
        if let Some(view) = self.views.iter().find(|view| !first.header.from.is_at_most(self.start(view))) {
            let (begin, start) = (&first.header.from, self.start(view));
            return Err(damaged(format!("they begin at {begin}, view {} needs them from {start} on", view.name)));
        }
        Ok(())
    }

    /// Where the deltas of a view begin to be needed.
    fn start<'a>(&'a self, view: &'a ViewDef) -> &'a Cut {
        self.manifests.get(&view.id).map_or(&view.from, |manifest| &manifest.cut)
    }

    /// Where the chain ends.
    pub(super) fn end(&self) -> Cut {
        self.chain.last().map(|delta| delta.header.to.clone()).unwrap_or_default()
    }

    /// The ranges of a view in the chain.
    pub(super) fn ranges(&self, view: Uuid) -> impl Iterator<Item = &Arc<RangeStates>> {
        self.chain.iter().filter_map(move |delta| delta.ranges.get(&view))
    }

    /// What the store alone says.
    pub(super) fn snapshot(&self, now_us: i64) -> StreamSnapshot {
        let views = self.views.iter().map(|view| (view.id, Arc::new(self.view(view)))).collect();
        // before the stream was made, nothing was acknowledged
        let as_of_us = self.chain.iter().rev().find_map(|delta| delta.header.as_of_us);
        let as_of_us = as_of_us.unwrap_or(self.stream.created_at_us);
        StreamSnapshot {
            stream: self.stream.id,
            to: self.end(),
            taken_at_us: now_us,
            oldest_missing_us: Some(as_of_us),
            tail_unknown: true,
            max_event_time_us: self.chain.last().map(|l| l.header.max_event_time_us.clone()).unwrap_or_default(),
            views,
        }
    }

    fn view(&self, def: &ViewDef) -> ViewSnapshot {
        let manifest = self.manifests.get(&def.id).cloned();
        let start = self.start(def).clone();
        let ranges = self.ranges(def.id).filter(|range| start.is_at_most(&range.from)).cloned().collect();
        let mut view = ViewSnapshot {
            view: def.id,
            semantic_hash: def.semantic_hash.clone(),
            from: def.from.clone(),
            manifest,
            ranges,
            to: self.end().join(&start),
            failed: None,
        };
        let stopped = self.chain.iter().flat_map(|delta| &delta.header.failed).find(|failed| failed.view == def.id);
        if let Some(failed) = stopped {
            view.failed = Some(Problem::new(failed.code, failed.detail.clone()));
        } else if let Err(broken) = view.assert_coverage() {
            let what = format!(
                "view {}: its deltas end at {}: its owner could not fold what follows",
                def.name, broken.expected
            );
            view.failed = Some(Problem::new(Code::ComputationFailed, what));
        }
        view
    }
}
