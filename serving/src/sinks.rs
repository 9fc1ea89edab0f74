//! Sinks: the changes of views, delivered.
//!
//! ```text
//!  catalogue ──► one task a sink: target says where it stands ──► changes from there on ──► rows, then cursor
//!                     ▲                                                                        │
//!                     └──────────── backoff ◄── it fails ◄─────────────────────────────────────┘
//! ```
//! A sink never holds up anything else: it reads views as everybody does, and what it has not read takes no room.

mod book;
mod deliver;
mod file;
mod kafka;
mod lines;
mod postgres;
mod stdout;
mod target;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemas::{Problem, SinkDef};
use storage::kafka::KafkaConfig;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use book::{SinkBook, SinkState, SinkStatus};

use crate::engine::QueryEngine;

/// How often the catalogue is looked at for sinks that are new or gone.
const LOOK: Duration = Duration::from_millis(100);

/// Says how to reach a cluster of Kafka: the one with these brokers, or the configured one.
pub type Clusters = Arc<dyn Fn(Option<&str>) -> Result<KafkaConfig, Problem> + Send + Sync>;

/// What sinks work with.
#[derive(Clone)]
pub struct SinkParts {
    /// Answers queries.
    pub engine: Arc<QueryEngine>,
    /// Where file sinks have their folders.
    pub exports: PathBuf,
    /// How to reach Kafka.
    pub clusters: Clusters,
}

impl std::fmt::Debug for SinkParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkParts").field("exports", &self.exports).finish_non_exhaustive()
    }
}

/// Runs the sinks of the catalogue.
#[derive(Debug)]
pub struct SinkService {
    parts: SinkParts,
}

/// A sink that runs.
struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl SinkService {
    /// No sink runs yet.
    pub fn new(parts: SinkParts) -> Self {
        Self { parts }
    }

    /// Runs every sink of the catalogue until `stopped` is done.
    ///
    /// # Errors
    /// None: a sink that fails is tried again, alone.
    pub async fn run(self, stopped: impl Future<Output = ()> + Send) -> Result<(), Problem> {
        let mut running: BTreeMap<Uuid, Running> = BTreeMap::new();
        let mut stopped = std::pin::pin!(stopped);
        loop {
            self.follow_catalogue(&mut running).await;
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        for sink in running.into_values() {
            end(sink).await;
        }
        Ok(())
    }

    /// Starts what is new, and ends what is gone.
    async fn follow_catalogue(&self, running: &mut BTreeMap<Uuid, Running>) {
        let catalog = self.parts.engine.parts.catalogs.current();
        let gone: Vec<Uuid> =
            running.keys().filter(|id| !catalog.sinks.iter().any(|sink| sink.id == **id)).copied().collect();
        for id in gone {
            if let Some(sink) = running.remove(&id) {
                end(sink).await;
            }
            self.forget(id).await;
        }
        for sink in &catalog.sinks {
            running.entry(sink.id).or_insert_with(|| self.start(sink.clone()));
        }
    }

    fn start(&self, sink: SinkDef) -> Running {
        let (stop, stopped) = watch::channel(false);
        self.parts.engine.sinks.begin(sink.id);
        let parts = self.parts.clone();
        Running { stop, task: tokio::spawn(deliver::deliver(parts, sink, stopped)) }
    }

    /// The position of a sink that was dropped is of no use; one that cannot be removed does no harm.
    async fn forget(&self, id: Uuid) {
        self.parts.engine.sinks.forget(id);
        let position = storage::sinks::SinkStore::new(self.parts.engine.parts.store.clone(), id);
        if let Err(error) = position.remove().await {
            tracing::warn!(sink = %id, %error, "the position of a dropped sink was not removed");
        }
    }
}

async fn end(sink: Running) {
    sink.stop.send_replace(true);
    if let Err(error) = sink.task.await {
        tracing::error!(%error, "a sink stopped abnormally");
    }
}
