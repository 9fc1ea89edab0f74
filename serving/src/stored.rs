//! Snapshots for a node that folds nothing itself: batch views and deltas from the store, the tail from the
//! stream's owner.
//!
//! ```text
//!  store   manifests, then deltas ──► chain, kept in memory ─┐ 0 … E
//!  owner   one snapshot, without what ends at E or before ───┴► [cut, E) from the chain + [E, now) from the owner
//! ```
//!
//! The owner's snapshot is one moment (H5), and deltas never change, so both together are that moment. If
//! the owner does not answer, the chain alone is a moment too, an older one, and says so.

mod chain;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{Catalog, Code, Cut, Problem, StreamDef};
use storage::clock::Clock;
use storage::deltas::DeltaStore;
use storage::layers::Snapshots;
use storage::manifests::ManifestStore;
use storage::snapshot::{RangeStates, StreamSnapshot, ViewSnapshot};
use storage::store::Store;
use tokio::time::Instant;
use uuid::Uuid;

use self::chain::StoredStream;

/// How often the store is read while a query waits for a position that is not there yet.
const POLL: Duration = Duration::from_millis(100);
/// After an owner did not answer, so long nobody waits for it again.
const OWNER_PAUSE: Duration = Duration::from_secs(1);

/// Why the owner's tail could not be had.
#[derive(Debug, Clone)]
pub enum NoTail {
    /// It does not answer.
    Unreachable(String),
    /// It answers that it cannot, and why.
    Refused(Problem),
}

/// Asked of the process that owns the streams.
#[async_trait]
pub trait Tails: Send + Sync {
    /// A snapshot as [`Snapshots::snapshot`] takes it, without the ranges that end at `after` or before.
    ///
    /// # Errors
    /// [`NoTail`]
    async fn tail(
        &self,
        stream: &StreamDef,
        after: &Cut,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<StreamSnapshot, NoTail>;
}

/// What the snapshots are made of.
#[derive(Clone)]
pub struct StoredParts {
    /// Where everything is.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The owner, if one is configured.
    pub owner: Option<Arc<dyn Tails>>,
}

/// Snapshots of the streams of a store.
pub struct StoredSnapshots {
    deltas: DeltaStore,
    manifests: ManifestStore,
    parts: StoredParts,
    streams: Mutex<BTreeMap<Uuid, Arc<StoredStream>>>,
    /// When the owner may be asked again.
    owner_after: Mutex<Option<Instant>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for StoredSnapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSnapshots").field("store", &self.parts.store).finish_non_exhaustive()
    }
}

impl StoredSnapshots {
    /// Nothing is read yet.
    pub fn new(parts: StoredParts) -> Self {
        Self {
            deltas: DeltaStore::new(parts.store.clone()),
            manifests: ManifestStore::new(parts.store.clone()),
            parts,
            streams: Mutex::default(),
            owner_after: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// Reads what has changed in the store of every stream of the catalogue.
    ///
    /// # Errors
    /// The store failed, or what it holds does not fit together; what was read before stays in use.
    pub async fn refresh(&self, catalog: &Catalog) -> Result<(), Problem> {
        let _one_at_a_time = self.refreshing.lock().await;
        for stream in &catalog.streams {
            let views = catalog.views_of(stream.id).cloned().collect();
            let known = self.streams.lock().get(&stream.id).cloned();
            let read = StoredStream::read(&self.deltas, &self.manifests, stream, views, known).await?;
            self.streams.lock().insert(stream.id, Arc::new(read));
        }
        self.streams.lock().retain(|id, _| catalog.stream_by_id(*id).is_some());
        Ok(())
    }

    /// Reads what has changed of one stream that is known.
    async fn refresh_one(&self, known: &Arc<StoredStream>) -> Result<Arc<StoredStream>, Problem> {
        let _one_at_a_time = self.refreshing.lock().await;
        let (stream, views) = (&known.stream, known.views.clone());
        let read =
            Arc::new(StoredStream::read(&self.deltas, &self.manifests, stream, views, Some(Arc::clone(known))).await?);
        self.streams.lock().insert(stream.id, Arc::clone(&read));
        Ok(read)
    }

    fn known(&self, stream: Uuid) -> Result<Arc<StoredStream>, Problem> {
        let known = self.streams.lock().get(&stream).cloned();
        known.ok_or_else(|| Problem::new(Code::NotReady, "the stream is not read from the store yet"))
    }

    fn owner(&self) -> Option<&Arc<dyn Tails>> {
        let paused = self.owner_after.lock().is_some_and(|after| Instant::now() < after);
        self.parts.owner.as_ref().filter(|_| !paused)
    }

    /// The owner's moment; none if the owner does not answer.
    async fn with_tail(
        &self,
        owner: &Arc<dyn Tails>,
        stored: &StoredStream,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<Option<StreamSnapshot>, Problem> {
        // the chain as it is known; and everything, should the owner have merged over its end or retired it
        for after in [stored.end(), Cut::default()] {
            let tail = match owner.tail(&stored.stream, &after, at_least, timeout).await {
                Ok(tail) => tail,
                Err(NoTail::Refused(problem)) => return Err(problem),
                Err(NoTail::Unreachable(why)) => {
                    tracing::warn!(stream = %stored.stream.name, %why, "the owner does not answer");
                    *self.owner_after.lock() = Some(Instant::now() + OWNER_PAUSE);
                    return Ok(None);
                }
            };
            let joined = joined(stored, tail);
            if joined.views.values().all(|view| view.failed.is_some() || view.assert_coverage().is_ok()) {
                return Ok(Some(joined));
            }
        }
        Err(Problem::new(Code::Internal, format!("stream {}: its owner's ranges leave a hole", stored.stream.name)))
    }

    /// The store's own moment, not before `at_least`.
    async fn without_tail(
        &self,
        mut stored: Arc<StoredStream>,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<StreamSnapshot, Problem> {
        let deadline = Instant::now() + timeout;
        while let Some(wanted) = at_least.filter(|wanted| !wanted.is_at_most(&stored.end())) {
            if Instant::now() + POLL > deadline {
                let name = &stored.stream.name;
                let what = format!("stream {name}: the store has {}, and not yet {wanted}", stored.end());
                return Err(Problem::new(Code::Stale, what).with_hint("its owner does not answer"));
            }
            tokio::time::sleep(POLL).await;
            stored = self.refresh_one(&stored).await?;
        }
        Ok(stored.snapshot(self.parts.clock.now_us()))
    }
}

/// What the owner has sent, and before it what is in the chain.
fn joined(stored: &StoredStream, mut tail: StreamSnapshot) -> StreamSnapshot {
    for view in tail.views.values_mut() {
        let begin = view.ranges.first().map_or(&view.to, |range| &range.from);
        let is_before = |range: &&Arc<RangeStates>| view.cut().is_at_most(&range.from) && range.to.is_at_most(begin);
        let before: Vec<Arc<RangeStates>> = stored.ranges(view.view).filter(is_before).cloned().collect();
        if !before.is_empty() {
            let ranges = before.into_iter().chain(view.ranges.iter().cloned()).collect();
            *view = Arc::new(ViewSnapshot { ranges, ..ViewSnapshot::clone(view) });
        }
    }
    tail
}

#[async_trait]
impl Snapshots for StoredSnapshots {
    async fn snapshot(
        &self,
        stream: Uuid,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<Arc<StreamSnapshot>, Problem> {
        let stored = self.known(stream)?;
        if let Some(owner) = self.owner()
            && let Some(snapshot) = self.with_tail(owner, &stored, at_least, timeout).await?
        {
            return Ok(Arc::new(snapshot));
        }
        Ok(Arc::new(self.without_tail(stored, at_least, timeout).await?))
    }
}
