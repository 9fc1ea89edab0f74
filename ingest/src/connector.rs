//! A topic of others as a stream: reads it, and lets its records in exactly once.
//!
//! ```text
//!  topic ─► read_committed ─► same topic still? ─► decode ─► dead letters, durable ─► admission ─► log
//!                                                              (topic, partition, offset)   rows carry (epoch, offset)
//! ```
//!
//! Partition `p` of the topic is partition `p` of the stream. A row carries the epoch (which incarnation of the
//! topic) and the offset that it was read from, so how far a partition has been read is durable in the same write
//! as what was read: after a crash the log's last record says where to go on. What leaves no row (duplicates, bad
//! records) is read again from there: a duplicate is found to be one again, a bad record is known by its dead letter.
//! Why so: `docs/adr/0004-kafka-log.md`.

mod ahead;
mod book;
mod intake;
mod places;
mod session;
mod way;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{Cut, Limits, Problem, StreamDef};
use storage::StorageError;
use storage::clock::Clock;
use storage::kafka::KafkaConfig;
use storage::layers::{Backlogs, SourceStatus};
use storage::log::Log;
use storage::source::SourceStore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::book::Book;
use crate::admission::{Admission, Memory};
use crate::backlog::Backlog;
use crate::dead_letters::DeadLetters;
use crate::frozen::Lookup;
use crate::receipts::Receipts;

/// Pause after a session that could not go on.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Asked of `cli`: a topic has got partitions.
#[async_trait]
pub trait Grow: Send + Sync {
    /// Gives a stream partitions, up to so many, everywhere.
    ///
    /// # Errors
    /// The catalogue could not be written.
    async fn grow(&self, stream: Uuid, partitions: u32) -> Result<(), Problem>;
}

/// What a connector works with.
pub struct ConnectorParts {
    /// The stream, which has a topic.
    pub stream: Arc<StreamDef>,
    /// Its log. Nobody else appends to it.
    pub log: Arc<dyn Log>,
    /// Its dead letters, likewise.
    pub dead_letters: Arc<dyn Log>,
    /// Its receipts, likewise.
    pub receipts: Arc<dyn Log>,
    /// What is stored about the topic.
    pub sources: SourceStore,
    /// How to reach the topic.
    pub kafka: KafkaConfig,
    /// For added partitions.
    pub grow: Arc<dyn Grow>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub limits: Limits,
    /// Whether the layers behind the log keep up; none: nobody asks.
    pub backlogs: Option<Arc<dyn Backlogs>>,
    /// Where the ids go that memory has no room for; nobody else uses it.
    pub ids_folder: Option<PathBuf>,
    /// The table that the stream looks values up in, if it does.
    pub lookup: Lookup,
}

/// The way from one topic into one stream.
pub struct Connector {
    parts: ConnectorParts,
    topic: String,
    admission: Arc<Admission>,
    letters: DeadLetters,
    receipts: Receipts,
    backlog: Backlog,
    book: tokio::sync::Mutex<Book>,
    status: Mutex<SourceStatus>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector that reads nothing until it is run. What is known to be lost is known at once.
    ///
    /// # Errors
    /// The documents about the topic are damaged, or the store failed.
    pub async fn open(parts: ConnectorParts) -> Result<Arc<Self>, StorageError> {
        let topic = parts.stream.transport.source.as_ref().map(|source| source.topic.clone()).unwrap_or_default();
        let book = Book::open(parts.sources.clone(), &topic).await?;
        let status = SourceStatus {
            topic: topic.clone(),
            brokers: parts.kafka.brokers.clone(),
            topic_id: book.epoch().map(|epoch| epoch.topic_id),
            holes: book.holes().to_vec(),
            ..SourceStatus::default()
        };
        let clock = || Arc::clone(&parts.clock);
        let (stream, log) = (Arc::clone(&parts.stream), Arc::clone(&parts.log));
        let memory = Memory {
            ids_in_memory_max: parts.limits.dedup_ids_in_memory_max,
            ids_max: parts.limits.dedup_ids_max,
            folder: parts.ids_folder.clone(),
        };
        Ok(Arc::new(Self {
            topic,
            admission: Arc::new(Admission::new(stream, log, clock(), memory)),
            receipts: Receipts::new(
                Arc::clone(&parts.log),
                Arc::clone(&parts.dead_letters),
                Arc::clone(&parts.receipts),
            ),
            letters: DeadLetters::new(Arc::clone(&parts.dead_letters), clock(), &parts.limits),
            backlog: Backlog::new(parts.backlogs.clone(), &parts.limits),
            book: tokio::sync::Mutex::new(book),
            status: Mutex::new(status),
            parts,
        }))
    }

    /// How it stands.
    pub fn status(&self) -> SourceStatus {
        self.status.lock().clone()
    }

    /// Reads the topic until stopped, over every failure: of the broker, of the topic, of the log.
    ///
    /// # Errors
    /// Never: what keeps it from reading is in [`Connector::status`].
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), Problem> {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = self.session() => ended,
            };
            if let Err(problem) = ended {
                self.note_problem(&problem);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    fn note_problem(&self, problem: &Problem) {
        let mut status = self.status.lock();
        if status.problem.as_deref() != Some(problem.detail.as_str()) {
            tracing::warn!(stream = %self.parts.stream.name, topic = self.topic, %problem, "the topic is not read");
        }
        status.problem = Some(problem.detail.clone());
        status.lag_records = None;
    }

    fn note_progress(&self, next: &[u64]) {
        let mut status = self.status.lock();
        status.problem = None;
        status.next = Cut(next.to_vec());
    }
}
