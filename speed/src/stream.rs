//! One stream's speed layer: its shards, its chain of deltas, its snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use schemas::documents::manifest::Manifest;
use schemas::{Code, Cut, Limits, Problem, StreamDef};
use storage::clock::Clock;
use storage::deltas::DeltaStore;
use storage::log::Log;
use storage::snapshot::{RangeStates, StreamSnapshot};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::chain::{Base, ViewState, ledger_vector};
use crate::fold::Reached;
use crate::shard::{Sealed, Shard};

/// A reader that names no position waits at most so long for the fold to catch up with the log.
const CATCH_UP: Duration = Duration::from_millis(250);

/// A view as the speed layer needs it.
#[derive(Debug, Clone)]
pub struct ViewInput {
    /// The view.
    pub id: Uuid,
    /// Compiled.
    pub view: Arc<operators::View>,
    /// Where its deltas begin.
    pub from: Cut,
    /// Its published batch views that are kept, the current one last.
    pub manifests: Vec<Arc<Manifest>>,
}

/// What the speed layer of a stream works with.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) stream: StreamDef,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) deltas: DeltaStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
}

/// The speed layer of one stream.
pub struct StreamSpeed {
    pub(crate) parts: Parts,
    pub(crate) shards: Vec<Mutex<Shard>>,
    /// Locked while a round is folded, before the shards are: between two rounds every shard is at these positions.
    pub(crate) reached: Mutex<Reached>,
    /// How long each shard has folded, microseconds: a small round goes to the one that has least.
    pub(crate) busy_us: Vec<AtomicU64>,
    pub(crate) base: Mutex<Base>,
    /// One checkpoint at a time.
    pub(crate) checkpointing: tokio::sync::Mutex<()>,
    /// Everything below it is folded, over all shards.
    pub(crate) folded: watch::Sender<Cut>,
    pub(crate) checkpoint_wanted: Notify,
    /// One merge of deltas at a time.
    pub(crate) merging: tokio::sync::Mutex<()>,
    /// There is a delta that was not there when deltas were merged last.
    pub(crate) merge_wanted: Notify,
    /// The compiled views.
    views: Mutex<BTreeMap<Uuid, Arc<operators::View>>>,
    /// Bytes of the chain's states in memory, and the version of the base that they were counted at.
    chain_bytes: Mutex<(Option<u64>, usize)>,
    /// The last snapshot, and the version of the base that it was made from.
    last: ArcSwapOption<(u64, Arc<StreamSnapshot>)>,
}

impl std::fmt::Debug for StreamSpeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamSpeed").field("stream", &self.parts.stream.name).finish_non_exhaustive()
    }
}

impl StreamSpeed {
    pub(crate) fn new(
        parts: Parts,
        base: Base,
        starts: &Cut,
        max_event_time_us: &[Option<i64>],
        shards: usize,
    ) -> Self {
        let partitions = parts.log.partitions();
        let time_column = parts.stream.time_column.as_ref().and_then(|name| parts.stream.column_index(name));
        let mut next = starts.clone();
        next.0.resize(next.0.len().max(partitions as usize), 0);
        let mut times = max_event_time_us.to_vec();
        times.resize(next.0.len(), None);
        Self {
            shards: (0..shards.max(1)).map(|_| Mutex::default()).collect(),
            reached: Mutex::new(Reached { next, max_event_time_us: times, time_column }),
            busy_us: (0..shards.max(1)).map(|_| AtomicU64::default()).collect(),
            base: Mutex::new(base),
            checkpointing: tokio::sync::Mutex::new(()),
            folded: watch::Sender::new(starts.clone()),
            checkpoint_wanted: Notify::new(),
            merging: tokio::sync::Mutex::new(()),
            merge_wanted: Notify::new(),
            views: Mutex::default(),
            chain_bytes: Mutex::default(),
            last: ArcSwapOption::empty(),
            parts,
        }
    }

    /// The name, for metrics and messages.
    pub fn name(&self) -> &str {
        &self.parts.stream.name
    }

    pub(crate) fn for_each_shard<T>(&self, mut visit: impl FnMut(&mut Shard) -> T) -> Vec<T> {
        self.shards.iter().map(|shard| visit(&mut shard.lock())).collect()
    }

    /// Everything below it is folded.
    pub fn folded(&self) -> Cut {
        self.folded.borrow().clone()
    }

    /// [`StreamSpeed::folded`], as it moves.
    pub fn watch_folded(&self) -> watch::Receiver<Cut> {
        self.folded.subscribe()
    }

    /// Waits until everything below `target` is folded; false when that took longer than `timeout`.
    pub(crate) async fn wait_folded(&self, target: &Cut, timeout: Duration) -> bool {
        let mut folded = self.folded.subscribe();
        let reached = folded.wait_for(|cut| target.is_at_most(cut));
        tokio::time::timeout(timeout, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// A snapshot of everything durable when it was asked for, and of everything below `at_least`.
    pub(crate) async fn snapshot(
        self: &Arc<Self>,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<Arc<StreamSnapshot>, Problem> {
        if let Some(target) = at_least
            && !self.wait_folded(target, timeout).await
        {
            let folded = self.folded();
            let detail = format!("stream {}: the answer includes {folded}, and not yet {target}", self.name());
            return Err(Problem::new(Code::Stale, detail));
        }
        let head = self.parts.log.head();
        let caught_up = self.wait_folded(&head, CATCH_UP.min(timeout)).await;
        let oldest_missing_us = if caught_up { None } else { self.oldest_beyond(&self.folded()).await? };
        let this = Arc::clone(self);
        let taking = tokio::task::spawn_blocking(move || this.take_snapshot(oldest_missing_us));
        taking.await.map_err(|e| Problem::new(Code::Internal, format!("taking a snapshot stopped: {e}")))
    }

    /// Append time of the oldest record that does not lie below `cut`.
    pub(crate) async fn oldest_beyond(&self, cut: &Cut) -> Result<Option<i64>, Problem> {
        use arrow::array::AsArray;
        let head = self.parts.log.head();
        let mut oldest: Option<i64> = None;
        for (partition, end) in head.iter() {
            if cut.offset(partition) >= end {
                continue;
            }
            let frames = self.parts.log.read(partition, cut.offset(partition), 1).await.map_err(|e| e.problem())?;
            for frame in frames.iter().take(1) {
                let Some(column) = frame.rows.column_by_name(schemas::column::APPEND_TIME) else { continue };
                let first = column.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0);
                oldest = Some(oldest.map_or(first, |known| known.min(first)));
            }
        }
        Ok(oldest)
    }

    /// Bytes of the states that are in deltas and in no batch view yet: every reader has them in memory. Asked for every
    /// request: while the chain is being changed, it is what it was.
    pub fn chain_bytes(&self) -> usize {
        let mut counted = self.chain_bytes.lock();
        if let Some(base) = self.base.try_lock().filter(|base| counted.0 != Some(base.version)) {
            *counted = (Some(base.version), base.chain_bytes());
        }
        counted.1
    }

    /// The last snapshot that was taken, or a new one if something has changed since.
    pub(crate) fn take_snapshot(&self, oldest_missing_us: Option<i64>) -> Arc<StreamSnapshot> {
        let mut base = self.base.lock();
        if let Some(last) = self.last.load_full()
            && last.0 == base.version
            && last.1.to.same_position(&self.folded())
            && last.1.oldest_missing_us == oldest_missing_us
        {
            return Arc::clone(&last.1);
        }
        let (tails, to, max_event_time_us) = self.seal_shards(&base);
        self.note_failures(&mut base);
        let view_of = |id: &Uuid| base.view_snapshot(*id, tails.get(id).cloned(), &to).map(|v| (*id, Arc::new(v)));
        let snapshot = Arc::new(StreamSnapshot {
            stream: self.parts.stream.id,
            taken_at_us: self.parts.clock.now_us(),
            oldest_missing_us,
            tail_unknown: false,
            max_event_time_us,
            views: base.views.keys().filter_map(view_of).collect(),
            to,
        });
        self.last.store(Some(Arc::new((base.version, Arc::clone(&snapshot)))));
        snapshot
    }

    /// Empties every fold into its tail. Holding the base's lock keeps all views at one position.
    fn seal_shards(&self, base: &Base) -> (BTreeMap<Uuid, Arc<RangeStates>>, Cut, Vec<Option<i64>>) {
        let partitions = self.parts.log.partitions();
        let reached = self.reached.lock();
        let (to, times) = (reached.next.clone(), reached.max_event_time_us.clone());
        let mut tails: BTreeMap<Uuid, Sealed> = BTreeMap::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.seal();
            for id in base.views.keys() {
                tails.entry(*id).or_default().add(shard.tail(*id));
            }
        }
        let ranges = tails.into_iter().map(|(id, tail)| {
            let from = base.views[&id].start().join(&base.sealed);
            let end = to.join(&from);
            (id, Arc::new(range_of(tail, from, end, partitions)))
        });
        (ranges.collect(), to, times)
    }

    /// A view that cannot be folded fails alone: its readers are told why, the others go on.
    pub(crate) fn note_failures(&self, base: &mut Base) {
        let mut failures: Vec<_> = self.for_each_shard(|shard| shard.failures()).into_iter().flatten().collect();
        // of the frames that a round could not fold, the first one says why, whichever shard had it
        failures.sort_by_key(|(_, (at, _))| *at);
        for (id, (_, problem)) in failures {
            if let Some(state) = base.views.get_mut(&id).filter(|state| state.failed.is_none()) {
                tracing::error!(stream = self.name(), view = %id, error = %problem, "a view can no longer be folded");
                self.for_each_shard(|shard| shard.fail_view(id, &problem));
                state.failed = Some(problem);
                base.version += 1;
            }
        }
    }

    /// Folds partitions, too, that were added to the log: call it when the log has them.
    pub fn grow(&self, partitions: u32) {
        // with the base's lock held nobody is between asking for the number of partitions and using it
        let _base = self.base.lock();
        self.reached.lock().grow(partitions);
        self.folded.send_modify(|cut| cut.0.resize(cut.0.len().max(partitions as usize), 0));
    }

    /// Adds a view that is folded from this moment on, and returns that position.
    ///
    /// # Errors
    /// The fold could not be set up.
    pub fn add_view(&self, id: Uuid, view: &Arc<operators::View>) -> Result<Cut, Problem> {
        let mut base = self.base.lock();
        let reached = self.reached.lock();
        let from = reached.next.clone();
        for shard in &self.shards {
            shard.lock().add_view(id, view, &from)?;
        }
        let state = ViewState {
            semantic_hash: view.semantic_hash().to_owned(),
            from: from.clone(),
            manifest: None,
            kept_cuts: vec![],
            failed: None,
        };
        base.views.insert(id, state);
        self.views.lock().insert(id, Arc::clone(view));
        base.version += 1;
        Ok(from)
    }

    /// Puts a view back that the base knows already: its deltas were read by recovery.
    pub(crate) fn restore_view(&self, id: Uuid, view: &Arc<operators::View>, start: &Cut) -> Result<(), Problem> {
        self.views.lock().insert(id, Arc::clone(view));
        self.shards.iter().try_for_each(|shard| shard.lock().add_view(id, view, start))
    }

    /// Folds the views no longer that recovery found to have failed.
    pub(crate) fn stop_failed_views(&self) {
        let base = self.base.lock();
        for (id, problem) in base.views.iter().filter_map(|(id, state)| Some((*id, state.failed.as_ref()?))) {
            self.for_each_shard(|shard| shard.fail_view(id, problem));
        }
    }

    /// The compiled views, by id.
    pub(crate) fn views_by_id(&self) -> BTreeMap<Uuid, Arc<operators::View>> {
        self.views.lock().clone()
    }

    /// Forgets a view.
    pub fn remove_view(&self, id: Uuid) {
        let mut base = self.base.lock();
        base.views.remove(&id);
        self.views.lock().remove(&id);
        base.in_flight.remove(&id);
        base.links.iter_mut().for_each(|link| {
            link.views.remove(&id);
        });
        base.version += 1;
        self.shards.iter().for_each(|shard| shard.lock().remove_view(id));
    }
}

/// Sealed states as a range of a snapshot.
pub(crate) fn range_of(sealed: Sealed, from: Cut, to: Cut, partitions: u32) -> RangeStates {
    let ledger = ledger_vector(&sealed.ledger, partitions);
    RangeStates { from, to, states: sealed.states, sorted: false, ledger }
}
