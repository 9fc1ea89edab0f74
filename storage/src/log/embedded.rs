//! The embedded log: segment files in one folder.
//!
//! ```text
//!  append (any thread)          commit thread                            readers
//!  ───────────────────          ─────────────                            ───────
//!  compact, encode, crc ─► queue ─► offsets ─► write ─► fdatasync ─► tail ─► head ─► acknowledgement
//!                           (bounded)          (one of each per group)   └─► or the file, from a sparse index
//! ```
//!
//! Frames of all partitions are interleaved in one sequence of segments: `docs/adr/0001-log-frame.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{Cut, Offset, Partition};
use tokio::sync::watch;
use uuid::Uuid;

use crate::error::StorageError;
use crate::ipc;
use crate::log::{Epoch, Frame, Log, Pending};

pub(super) mod commit;
pub(super) mod frame;
pub(super) mod queue;
mod read;
mod recover;
mod segment;
mod state;
pub(crate) mod tail;

use frame::{EncodedFrame, FrameEncoder};
use queue::{Queue, Request};
use state::State;
use tail::{Tail, TailShares};

/// Bounds of an embedded log.
#[derive(Debug, Clone)]
pub struct EmbeddedLogConfig {
    /// Bytes of a segment before the next one is begun.
    pub segment_bytes: u64,
    /// Bytes of recent rows kept in memory for readers.
    pub tail_bytes_max: usize,
    /// Bytes that wait for the commit thread; more are refused.
    pub queue_bytes_max: usize,
    /// What all logs together keep in memory; none: each for itself.
    pub tails: Option<Arc<TailShares>>,
}

impl Default for EmbeddedLogConfig {
    fn default() -> Self {
        const MIB: usize = 1_048_576;
        Self { segment_bytes: 128 * MIB as u64, tail_bytes_max: 64 * MIB, queue_bytes_max: 256 * MIB, tails: None }
    }
}

/// What a log is: its files are of no use to one that differs.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) folder: PathBuf,
    pub(crate) schema: SchemaRef,
    pub(crate) incarnation: Uuid,
    /// Grows, never shrinks: segments that were begun before have fewer.
    partitions: AtomicU32,
}

impl Identity {
    pub(crate) fn partitions(&self) -> u32 {
        self.partitions.load(Ordering::Acquire)
    }
}

/// A log in a local folder.
#[derive(Debug)]
pub struct EmbeddedLog {
    identity: Arc<Identity>,
    encoder: FrameEncoder,
    queue: Arc<Queue>,
    state: Arc<State>,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as the log is open: no second process writes here.
    _lock: std::fs::File,
}

impl EmbeddedLog {
    /// Opens the log in `folder`, or makes it. Reads the newest segment as a whole and cuts a torn
    /// tail; of older segments it walks the frame headers (their rows are verified when they are read).
    /// Blocks.
    ///
    /// # Errors
    /// `Damaged` when stored frames do not fit, or belong to another incarnation, schema or number of
    /// partitions; `Io` when the folder is in use or the disk fails.
    pub fn open(
        folder: &Path,
        schema: SchemaRef,
        incarnation: Uuid,
        partitions: u32,
        config: &EmbeddedLogConfig,
    ) -> Result<Arc<Self>, StorageError> {
        let partitions = AtomicU32::new(partitions);
        let identity = Arc::new(Identity { folder: folder.to_owned(), schema, incarnation, partitions });
        let failed = |cause| StorageError::io(format!("opening the log {}", folder.display()), cause);
        crate::store::durable::create_folder(folder).map_err(failed)?;
        let lock = lock(folder)?;
        let recovered = recover::recover(&identity)?;
        let tail = Tail::new(recovered.next.0.len(), config.tail_bytes_max, config.tails.clone());
        let state = Arc::new(State::new(recovered.segments, recovered.next, tail));
        if let Some(tails) = &config.tails {
            tails.join(&state);
        }
        let queue = Arc::new(Queue::new(config.queue_bytes_max));
        let committer = commit::Committer {
            identity: Arc::clone(&identity),
            queue: Arc::clone(&queue),
            state: Arc::clone(&state),
            writer: recovered.writer,
            group: recovered.group,
            segment_bytes: config.segment_bytes,
        };
        let encoder = FrameEncoder::new(&identity.schema);
        let encoder = encoder.map_err(|cause| StorageError::io("preparing to write frames", cause))?;
        let thread = std::thread::Builder::new().name("log commit".into());
        let thread = thread.spawn(move || committer.run()).map_err(failed)?;
        Ok(Arc::new(Self { identity, encoder, queue, state, committer: Mutex::new(Some(thread)), _lock: lock }))
    }

    fn encode(&self, rows: Vec<(Partition, RecordBatch)>) -> Result<Vec<EncodedFrame>, StorageError> {
        let mut frames = Vec::with_capacity(rows.len());
        for (partition, rows) in rows {
            if partition >= self.identity.partitions() {
                let reason = format!("there are {} partitions", self.identity.partitions());
                return Err(StorageError::io(format!("appending to partition {partition}"), reason));
            }
            let encoded = ipc::with_schema(&rows, &self.identity.schema)
                .and_then(|rows| ipc::compact(&rows))
                .and_then(|rows| self.encoder.encode(partition, rows));
            frames.push(encoded.map_err(|cause| StorageError::io("encoding rows for the log", cause))?);
        }
        Ok(frames)
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        self.queue.close();
        self.committer.lock().take()
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    fn incarnation(&self) -> Uuid {
        self.identity.incarnation
    }

    fn partitions(&self) -> u32 {
        self.identity.partitions()
    }

    fn grow(&self, partitions: u32) -> Result<(), StorageError> {
        self.identity.partitions.fetch_max(partitions, Ordering::AcqRel);
        self.state.grow(partitions);
        Ok(())
    }

    fn epoch(&self) -> Epoch {
        self.queue.epoch()
    }

    fn append(&self, epoch: Epoch, rows: Vec<(Partition, RecordBatch)>) -> Result<Pending, StorageError> {
        // A look before the work: what would be refused is not encoded.
        self.queue.check(epoch)?;
        let frames = self.encode(rows)?;
        let (done, pending) = Pending::new();
        self.queue.push(epoch, Request { frames, done })?;
        Ok(pending)
    }

    fn check_progress(&self) -> Result<(), StorageError> {
        self.queue.check_progress()
    }

    fn start(&self) -> Cut {
        self.state.start()
    }

    fn head(&self) -> Cut {
        self.state.head()
    }

    fn watch_head(&self) -> watch::Receiver<Cut> {
        self.state.watch_head()
    }

    async fn read(&self, partition: Partition, from: Offset, rows_max: usize) -> Result<Vec<Frame>, StorageError> {
        let head = self.state.head().offset(partition);
        if from >= head {
            return Ok(vec![]);
        }
        if let Some(frames) = self.state.read_tail(partition, from, rows_max) {
            return Ok(frames);
        }
        let (state, identity) = (Arc::clone(&self.state), Arc::clone(&self.identity));
        let read = move || read::read(&state, &identity, partition, from..head, rows_max);
        tokio::task::spawn_blocking(read).await.map_err(|cause| StorageError::io("reading the log", cause))?
    }

    async fn truncate(&self, below: &Cut) -> Result<(), StorageError> {
        let removed = self.state.take_below(below);
        if removed.is_empty() {
            return Ok(());
        }
        let folder = self.identity.folder.clone();
        let remove = move || segment::remove(&folder, &removed);
        tokio::task::spawn_blocking(remove).await.map_err(|cause| StorageError::io("truncating the log", cause))?
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.state.bytes())
    }

    async fn close(&self) {
        let Some(thread) = self.stop() else { return };
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::error!("the log's commit thread could not be joined");
        }
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        if let Some(thread) = self.stop() {
            // Its panic was reported when it happened; every waiter got an error.
            let _ = thread.join();
        }
    }
}

fn lock(folder: &Path) -> Result<std::fs::File, StorageError> {
    let path = folder.join("lock");
    let failed = |cause: std::io::Error| StorageError::io(format!("locking {}", path.display()), cause);
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    file.try_lock().map_err(|cause| failed(cause.into()))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
