//! The speed layer of all streams: what the other layers ask of it, and its background work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use schemas::documents::manifest::Manifest;
use schemas::{Code, Cut, Limits, Problem, StreamDef};
use storage::clock::Clock;
use storage::deltas::DeltaStore;
use storage::layers::{Snapshots, Speed};
use storage::log::Log;
use storage::snapshot::StreamSnapshot;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::recover;
use crate::stream::{Parts, StreamSpeed, ViewInput};

/// How long a run's barrier waits for the fold to reach the log's head.
const BARRIER_TIMEOUT: Duration = Duration::from_mins(10);

/// The speed layer.
pub struct SpeedService {
    deltas: DeltaStore,
    clock: Arc<dyn Clock>,
    limits: Limits,
    shards: usize,
    streams: RwLock<BTreeMap<Uuid, Open>>,
    opened: mpsc::UnboundedSender<Open>,
    to_start: Mutex<Option<mpsc::UnboundedReceiver<Open>>>,
}

#[derive(Clone)]
struct Open {
    stream: Arc<StreamSpeed>,
    stop: CancellationToken,
}

impl std::fmt::Debug for SpeedService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpeedService").field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl SpeedService {
    /// A speed layer without streams; a stream is folded on so many `shards` (one per core).
    pub fn new(deltas: DeltaStore, clock: Arc<dyn Clock>, limits: Limits, shards: usize) -> Arc<Self> {
        // bounded by the number of streams: one message for each
        let (opened, to_start) = mpsc::unbounded_channel();
        let to_start = Mutex::new(Some(to_start));
        Arc::new(Self { deltas, clock, limits, shards, streams: RwLock::default(), opened, to_start })
    }

    /// Opens a stream: recovers its views from their deltas and begins to fold its log.
    ///
    /// # Errors
    /// Stored deltas are damaged or belong to another definition.
    pub async fn open(
        &self,
        stream: StreamDef,
        log: Arc<dyn Log>,
        views: &[ViewInput],
    ) -> Result<Arc<StreamSpeed>, Problem> {
        let id = stream.id;
        let (deltas, clock, limits) = (self.deltas.clone(), Arc::clone(&self.clock), self.limits.clone());
        let stream = recover::recover(Parts { stream, log, deltas, clock, limits }, views, self.shards).await?;
        let open = Open { stream: Arc::clone(&stream), stop: CancellationToken::new() };
        self.streams.write().insert(id, open.clone());
        // a closed channel means that the platform is stopping: nothing will be folded any more
        let _ = self.opened.send(open);
        Ok(stream)
    }

    /// Stops folding a stream and forgets it.
    pub fn close(&self, stream: Uuid) {
        if let Some(open) = self.streams.write().remove(&stream) {
            open.stop.cancel();
        }
    }

    /// The speed layer of a stream.
    pub fn stream(&self, stream: Uuid) -> Option<Arc<StreamSpeed>> {
        self.streams.read().get(&stream).map(|open| Arc::clone(&open.stream))
    }

    /// Everything below it is in durable deltas: replay never needs the log below.
    pub fn durable(&self, stream: Uuid) -> Option<Cut> {
        self.stream(stream).map(|speed| speed.base.lock().durable.clone())
    }

    fn known(&self, stream: Uuid) -> Result<Arc<StreamSpeed>, Problem> {
        self.stream(stream).ok_or_else(|| Problem::new(Code::NotFound, format!("stream {stream} is not open")))
    }

    /// Folds and checkpoints all streams until `stop`; then writes one last checkpoint of each.
    ///
    /// # Errors
    /// The first failure of any stream: the process must stop.
    ///
    /// # Panics
    /// If called twice.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), Problem> {
        let opened = self.to_start.lock().take();
        let Some(mut opened) = opened else {
            return Err(Problem::new(Code::Internal, "the speed layer runs already"));
        };
        let mut tasks: JoinSet<Result<(), Problem>> = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(open) = opened.recv() => start(&mut tasks, &open),
                Some(ended) = tasks.join_next() => {
                    ended.map_err(|e| Problem::new(Code::Internal, format!("a fold loop stopped: {e}")))??;
                }
            }
        }
        let streams: Vec<Open> = self.streams.read().values().cloned().collect();
        for open in &streams {
            open.stop.cancel();
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|e| Problem::new(Code::Internal, format!("a fold loop stopped: {e}")))??;
        }
        for open in streams {
            // what is not checkpointed is replayed from the log, so a slow store must not hold up the end
            let _ = tokio::time::timeout(Duration::from_secs(5), open.stream.checkpoint()).await;
        }
        Ok(())
    }
}

fn start(tasks: &mut JoinSet<Result<(), Problem>>, open: &Open) {
    tasks.spawn(Arc::clone(&open.stream).fold_loop(open.stop.clone()));
    tasks.spawn(Arc::clone(&open.stream).checkpoint_loop(open.stop.clone()));
    tasks.spawn(Arc::clone(&open.stream).merge_loop(open.stop.clone()));
}

#[async_trait]
impl Snapshots for SpeedService {
    async fn snapshot(
        &self,
        stream: Uuid,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<Arc<StreamSnapshot>, Problem> {
        self.known(stream)?.snapshot(at_least, timeout).await
    }
}

#[async_trait]
impl Speed for SpeedService {
    async fn barrier(&self, stream: Uuid) -> Result<Cut, Problem> {
        let speed = self.known(stream)?;
        let head = speed.parts.log.head();
        if !speed.wait_folded(&head, BARRIER_TIMEOUT).await {
            let detail = format!("stream {}: the fold did not reach {head} in time", speed.name());
            return Err(Problem::new(Code::Stale, detail));
        }
        let cut = speed.barrier().await?;
        assert!(head.is_at_most(&cut), "the barrier {cut} leaves out what was durable before it ({head})");
        Ok(cut)
    }

    fn release_barrier(&self, stream: Uuid, cut: &Cut) {
        if let Some(speed) = self.stream(stream) {
            let mut base = speed.base.lock();
            if let Some(index) = base.barriers.iter().position(|barrier| barrier.same_position(cut)) {
                base.barriers.remove(index);
            }
        }
    }

    fn current(&self, stream: Uuid) -> Option<Arc<StreamSnapshot>> {
        self.stream(stream).map(|speed| speed.take_snapshot(None))
    }

    async fn publish(&self, stream: Uuid, manifest: Arc<Manifest>) -> Result<(), Problem> {
        self.known(stream)?.publish(manifest).await
    }
}
