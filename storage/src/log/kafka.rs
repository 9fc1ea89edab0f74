//! The log in a topic of its own: a broker keeps what the embedded log keeps in segment files.
//!
//! ```text
//!  append (any thread)          commit thread                                  readers
//!  ───────────────────          ─────────────                                  ───────
//!  compact, encode, crc ─► queue ─► offsets ─► one transaction, acks=all ─► tail ─► head ─► acknowledgement
//!                           (bounded)                                        └─► or the topic, read_committed
//! ```
//!
//! One record of the topic is one frame, byte for byte as in a segment file (`docs/adr/0001-log-frame.md`). A frame
//! has its base offset in it, so positions are ours: consecutive, and the same for ever, whatever gaps the markers of
//! transactions leave in the topic's own offsets. Why so: `docs/adr/0004-kafka-log.md`.

mod commit;
mod cut_off;
mod read;
mod topic;

use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use schemas::{Cut, Offset, Partition};
use tokio::sync::watch;
use uuid::Uuid;

use self::commit::Committer;
use self::read::Reader;
use self::topic::Topic;
use super::embedded::frame::{EncodedFrame, FrameEncoder};
use super::embedded::queue::{Queue, Request};
use super::embedded::tail::{Shrink, Tail, TailShares};
use crate::error::StorageError;
use crate::ipc;
use crate::kafka::KafkaConfig;
use crate::log::{Epoch, Frame, Log, Pending};

/// Where a log is, and its bounds.
#[derive(Debug, Clone)]
pub struct KafkaLogConfig {
    /// The cluster.
    pub cluster: KafkaConfig,
    /// The topic: nobody else writes to it.
    pub topic: String,
    /// The id that the topic was made with; none: it is made if it is not there.
    pub topic_id: Option<Uuid>,
    /// Bytes of recent rows kept in memory for readers.
    pub tail_bytes_max: usize,
    /// Bytes that wait for the commit thread; more are refused.
    pub queue_bytes_max: usize,
    /// What all logs together keep in memory; none: each for itself.
    pub tails: Option<Arc<TailShares>>,
}

/// A log in a topic.
#[derive(Debug)]
pub struct KafkaLog {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    encoder: FrameEncoder,
    reader: Arc<Mutex<Reader>>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// What the commit thread publishes and readers read.
#[derive(Debug)]
struct Shared {
    topic: Topic,
    schema: SchemaRef,
    incarnation: Uuid,
    partitions: u32,
    start: RwLock<Cut>,
    tail: RwLock<Tail>,
    head: watch::Sender<Cut>,
}

impl Shrink for Shared {
    fn shrink(&self) {
        self.tail.write().shrink();
    }
}

impl KafkaLog {
    /// Opens the log, or makes its topic. Ends what an earlier writer has begun: from then on it can write no more.
    /// Blocks.
    ///
    /// # Errors
    /// `Damaged` when the topic is not the log's: another one of its name, emptied, or of other frames. `Io` when no
    /// broker answers.
    pub fn open(
        config: &KafkaLogConfig,
        schema: SchemaRef,
        incarnation: Uuid,
        partitions: u32,
    ) -> Result<Arc<Self>, StorageError> {
        let topic = Topic::open(config, partitions)?;
        let producer = commit::open_producer(&topic)?;
        let mut reader = Reader::open(&topic)?;
        let (mut start, mut head) = (Cut::zero(partitions), Cut::zero(partitions));
        for partition in 0..partitions {
            let kept = reader.kept(partition)?.range;
            start.set(partition, kept.start);
            head.set(partition, kept.end);
        }
        let failed = |cause| StorageError::io(format!("opening the log {}", config.topic), cause);
        let encoder = FrameEncoder::new(&schema).map_err(failed)?;
        let tail = RwLock::new(Tail::new(partitions as usize, config.tail_bytes_max, config.tails.clone()));
        let (start, head) = (RwLock::new(start), watch::Sender::new(head));
        let shared = Arc::new(Shared { topic, schema, incarnation, partitions, start, tail, head });
        if let Some(tails) = &config.tails {
            tails.join(&shared);
        }
        let queue = Arc::new(Queue::new(config.queue_bytes_max));
        let reader = Arc::new(Mutex::new(reader));
        let committer = Committer::new(Arc::clone(&shared), Arc::clone(&queue), producer);
        let thread = std::thread::Builder::new().name("log commit".into()).spawn(move || committer.run());
        let thread = thread.map_err(|cause| StorageError::io("starting the commit thread", cause))?;
        Ok(Arc::new(Self { shared, queue, encoder, reader, committer: Mutex::new(Some(thread)) }))
    }

    /// What tells the log's topic from another one of its name: to be kept, and given to [`KafkaLog::open`].
    pub fn topic_id(&self) -> Uuid {
        self.shared.topic.id
    }

    fn encode(&self, rows: Vec<(Partition, RecordBatch)>) -> Result<Vec<EncodedFrame>, StorageError> {
        let mut frames = Vec::with_capacity(rows.len());
        for (partition, rows) in rows {
            if partition >= self.shared.partitions {
                let reason = format!("there are {} partitions", self.shared.partitions);
                return Err(StorageError::io(format!("appending to partition {partition}"), reason));
            }
            let encoded = ipc::with_schema(&rows, &self.shared.schema)
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

    /// Runs what asks the broker where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reader, &Shared) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (reader, shared) = (Arc::clone(&self.reader), Arc::clone(&self.shared));
        let working = tokio::task::spawn_blocking(move || work(&mut reader.lock(), &shared));
        working.await.map_err(|cause| StorageError::io("reading the log", cause))?
    }
}

#[async_trait]
impl Log for KafkaLog {
    fn incarnation(&self) -> Uuid {
        self.shared.incarnation
    }

    fn partitions(&self) -> u32 {
        self.shared.partitions
    }

    fn epoch(&self) -> Epoch {
        self.queue.epoch()
    }

    fn append(&self, epoch: Epoch, rows: Vec<(Partition, RecordBatch)>) -> Result<Pending, StorageError> {
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
        self.shared.start.read().clone()
    }

    fn head(&self) -> Cut {
        self.shared.head.borrow().clone()
    }

    fn watch_head(&self) -> watch::Receiver<Cut> {
        self.shared.head.subscribe()
    }

    async fn read(&self, partition: Partition, from: Offset, rows_max: usize) -> Result<Vec<Frame>, StorageError> {
        let range = from..self.head().offset(partition);
        if range.is_empty() {
            return Ok(vec![]);
        }
        if let Some(frames) = self.shared.tail.read().read(partition, from, rows_max) {
            return Ok(frames);
        }
        if from < self.start().offset(partition) {
            return Err(StorageError::NotFound { path: format!("partition {partition}, offset {from} of the log") });
        }
        self.blocking(move |reader, shared| reader.read(&shared.schema, partition, range, rows_max)).await
    }

    async fn truncate(&self, below: &Cut) -> Result<(), StorageError> {
        let (below, head) = (below.clone(), self.head());
        self.blocking(move |reader, shared| {
            for partition in 0..shared.partitions {
                // the last frame stays: it says where the log goes on
                let wanted = below.offset(partition).min(head.offset(partition).saturating_sub(1));
                if wanted > shared.start.read().offset(partition) {
                    let start = reader.truncate(partition, wanted)?;
                    shared.start.write().set(partition, start);
                }
            }
            Ok(())
        })
        .await
    }

    async fn close(&self) {
        let Some(thread) = self.stop() else { return };
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::error!("the log's commit thread could not be joined");
        }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        if let Some(thread) = self.stop() {
            // its panic was reported when it happened; every waiter got an error
            let _ = thread.join();
        }
    }
}
