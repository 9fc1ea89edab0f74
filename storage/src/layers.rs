//! What the layers ask of each other. They do not see each other: `cli` hands each the others'
//! implementations of these traits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::documents::ledger::IntakeBucket;
use schemas::documents::manifest::Manifest;
use schemas::documents::run::{RunDocument, RunKind, RunTrigger};
use schemas::documents::source::Hole;
use schemas::{Certificate, Cut, Offset, Problem};
use uuid::Uuid;

use crate::log::Log;
use crate::snapshot::StreamSnapshot;

/// Asked of the speed layer, by serving.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// A snapshot that includes everything durable when it was asked for, and everything below
    /// `at_least`; waits for it as long as `timeout`.
    ///
    /// # Errors
    /// `stale` when `at_least` was not reached in time; `not_found` for an unknown stream.
    async fn snapshot(
        &self,
        stream: Uuid,
        at_least: Option<&Cut>,
        timeout: Duration,
    ) -> Result<Arc<StreamSnapshot>, Problem>;
}

/// Asked of the speed layer, by batch.
#[async_trait]
pub trait Speed: Send + Sync {
    /// Makes everything durable in the log at this moment a checkpoint, lets no merge of deltas
    /// cross its end from then on, and returns that end: the cut of a run.
    ///
    /// # Errors
    /// The checkpoint could not be written.
    async fn barrier(&self, stream: Uuid) -> Result<Cut, Problem>;

    /// Takes a barrier back, once its run was published or has ended otherwise.
    fn release_barrier(&self, stream: Uuid, cut: &Cut);

    /// The current snapshot, without waiting for anything.
    fn current(&self, stream: Uuid) -> Option<Arc<StreamSnapshot>>;

    /// Swaps in a published batch view: from this moment on every reader sees it, and the deltas
    /// below its cut no longer.
    ///
    /// # Errors
    /// The cut is no boundary of the view's ranges (I1), and for a rollback, deltas that are needed
    /// again could not be read.
    async fn publish(&self, stream: Uuid, manifest: Arc<Manifest>) -> Result<(), Problem>;
}

/// Asked of the batch layer, by serving.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Queues a run.
    ///
    /// # Errors
    /// `not_found` for an unknown view, `overloaded` when the queue is full, `invalid_sql` for a view
    /// that is never refreshed.
    async fn start(&self, view: &str, kind: RunKind, trigger: RunTrigger) -> Result<RunDocument, Problem>;

    /// One run, as it stands now; with `wait`, as soon as it is final, at the latest after `wait`.
    ///
    /// # Errors
    /// `not_found`
    async fn run(&self, id: u64, wait: Option<Duration>) -> Result<RunDocument, Problem>;

    /// Runs, the newest first, of one view or of all.
    ///
    /// # Errors
    /// The store failed.
    async fn runs(&self, view: Option<&str>, limit: usize) -> Result<Vec<RunDocument>, Problem>;

    /// Cancels a run that is not final yet.
    ///
    /// # Errors
    /// `not_found`; `in_use` when it is final already.
    async fn cancel(&self, id: u64) -> Result<RunDocument, Problem>;

    /// A run's certificate; the newest of the view when no run is named.
    ///
    /// # Errors
    /// `not_found`
    async fn certificate(&self, view: &str, run: Option<u64>) -> Result<Certificate, Problem>;

    /// Certificates of a view, the newest first.
    ///
    /// # Errors
    /// The store failed.
    async fn certificates(&self, view: &str, limit: usize) -> Result<Vec<Certificate>, Problem>;

    /// Makes an older run's batch view the current one again.
    ///
    /// # Errors
    /// `not_found` when that run's batch view is no longer kept.
    async fn rollback(&self, view: &str, run: u64) -> Result<Manifest, Problem>;
}

/// A topic that a stream is read from, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceStatus {
    /// Its name.
    pub topic: String,
    /// Its cluster.
    pub brokers: String,
    /// What tells it from another one of its name; none before it was looked at first.
    pub topic_id: Option<Uuid>,
    /// Per partition, the next offset of the topic that is read.
    pub next: Cut,
    /// Records that are there and not read yet; none while that is not known.
    pub lag_records: Option<u64>,
    /// Why it cannot be read at the moment.
    pub problem: Option<String>,
    /// Records that were lost before they were read.
    pub holes: Vec<Hole>,
}

/// Asked of `cli`, by every layer: the open logs of the streams.
pub trait Logs: Send + Sync {
    /// The log of a stream's records.
    fn log(&self, stream: Uuid) -> Option<Arc<dyn Log>>;

    /// The log of a stream's dead letters.
    fn dead_letters(&self, stream: Uuid) -> Option<Arc<dyn Log>>;

    /// The topic that a stream is read from; none for one whose events come over HTTP.
    fn source(&self, _stream: Uuid) -> Option<SourceStatus> {
        None
    }

    /// The log of what became of records that were not simply appended; it has one partition.
    fn receipts(&self, _stream: Uuid) -> Option<Arc<dyn Log>> {
        None
    }
}

/// What of a stream the log has to keep, as it has not landed or is in no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogSize {
    /// About how many bytes of records.
    pub bytes: u64,
    /// How long nothing of it has become less.
    pub stands_for: Duration,
}

/// Asked of `cli`, by ingest: whether the layers behind the log keep up.
pub trait Backlogs: Send + Sync {
    /// The backlog of a stream; none if it is not open.
    fn backlog(&self, stream: Uuid) -> Option<BacklogSize>;

    /// Bytes of states of a stream that are in memory because no batch view has them yet.
    fn chain_bytes(&self, stream: Uuid) -> u64;
}

/// Asked of ingest, by batch and serving: what came in, and what became of it.
#[async_trait]
pub trait Intake: Send + Sync {
    /// The ledger of a stream's intake, by partition and ten minutes of append time, in that order.
    ///
    /// # Errors
    /// `not_found`; the log failed.
    async fn intake(&self, stream: Uuid) -> Result<Vec<IntakeBucket>, Problem>;

    /// Dead letters that were replayed, by offset, with the time of the replay in microseconds.
    ///
    /// # Errors
    /// As above.
    async fn replayed(&self, stream: Uuid) -> Result<BTreeMap<Offset, i64>, Problem>;
}
