//! The log: the only way in. Partitioned, offset-addressed, durable.
//!
//! ```text
//!  append ──► queue ──► group commit (one write, one fsync) ──► head moves ──► acknowledgement
//!                                                                 └──► readers: rows, not bytes
//! ```

use std::ops::Range;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use schemas::{Cut, Offset, Partition};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::error::StorageError;

pub mod conformance;
pub mod embedded;
pub mod kafka;
pub mod memory;

pub use embedded::tail::TailShares;
pub use embedded::{EmbeddedLog, EmbeddedLogConfig};
pub use kafka::{KafkaLog, KafkaLogConfig};
pub use memory::MemoryLog;

/// Rows of one partition with consecutive offsets, in the stream's log schema.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The partition.
    pub partition: Partition,
    /// Offset of the first row.
    pub base: Offset,
    /// The rows.
    pub rows: RecordBatch,
}

impl Frame {
    /// First offset beyond.
    pub fn end(&self) -> Offset {
        self.base + self.rows.num_rows() as u64
    }

    /// The part of the frame in `range`; none if they do not meet.
    #[must_use]
    pub fn clip(&self, range: &Range<Offset>) -> Option<Self> {
        let from = self.base.max(range.start);
        let to = self.end().min(range.end);
        if from >= to {
            return None;
        }
        if from == self.base && to == self.end() {
            return Some(self.clone());
        }
        let skip = usize::try_from(from - self.base).ok()?;
        let rows = usize::try_from(to - from).ok()?;
        Some(Self { partition: self.partition, base: from, rows: self.rows.slice(skip, rows) })
    }
}

/// The time between two failed appends. What is decided in an epoch is decided on top of appends that
/// stand or are on their way; the epoch ends when one of them fails.
pub type Epoch = u64;

/// The offsets that rows of one partition got.
pub type Placed = (Partition, Range<Offset>);

/// An append that was queued and is not durable yet.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Vec<Placed>, StorageError>>);

impl Pending {
    /// A pending append and the sender that completes it.
    pub fn new() -> (oneshot::Sender<Result<Vec<Placed>, StorageError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Waits until the rows are on disk. They are visible to readers before this returns.
    ///
    /// # Errors
    /// The write or the fsync failed, of this append or of one before it: nothing of it will ever be read.
    pub async fn durable(self) -> Result<Vec<Placed>, StorageError> {
        self.0.await.unwrap_or_else(|_| Err(StorageError::Closed { what: "log".into() }))
    }
}

/// A stream's log. `log::conformance` is what every implementation must pass.
#[async_trait]
pub trait Log: Send + Sync + std::fmt::Debug {
    /// What the offsets belong to.
    fn incarnation(&self) -> Uuid;

    /// How many partitions there are.
    fn partitions(&self) -> u32;

    /// Adds empty partitions, up to so many. Fewer than there are changes nothing.
    ///
    /// # Errors
    /// This log cannot.
    fn grow(&self, partitions: u32) -> Result<(), StorageError> {
        if partitions <= self.partitions() {
            return Ok(());
        }
        Err(StorageError::io(format!("adding partitions up to {partitions}"), "this log has a fixed number"))
    }

    /// The epoch that appends are taken in. It has ended before anybody learns of the append that failed.
    fn epoch(&self) -> Epoch;

    /// Queues rows that were decided in `epoch`. Per partition, offsets follow the order of the calls. All
    /// or nothing. An append that fails takes those that are queued behind it with it.
    ///
    /// # Errors
    /// [`StorageError::Full`] when the queue is at its bound; `Outdated` when `epoch` has ended; `Io` once
    /// the log has failed.
    fn append(&self, epoch: Epoch, rows: Vec<(Partition, RecordBatch)>) -> Result<Pending, StorageError>;

    /// Whether what is being written goes on: nothing new is taken while it does not.
    ///
    /// # Errors
    /// `Stalled`
    fn check_progress(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// First offset per partition that is still kept.
    fn start(&self) -> Cut;

    /// Everything below it is durable and readable.
    fn head(&self) -> Cut;

    /// [`Log::head`], as it moves.
    fn watch_head(&self) -> watch::Receiver<Cut>;

    /// Durable frames of one partition from `from` on, in order, the first clipped to start there;
    /// stops after about `rows_max` rows. Empty when `from` is the head.
    ///
    /// # Errors
    /// `NotFound` below the start; `Damaged` when a checksum does not fit.
    async fn read(&self, partition: Partition, from: Offset, rows_max: usize) -> Result<Vec<Frame>, StorageError>;

    /// Gives up whole segments below `below`. What is kept may start earlier.
    ///
    /// # Errors
    /// The files could not be removed.
    async fn truncate(&self, below: &Cut) -> Result<(), StorageError>;

    /// Bytes that it takes where it is kept; none where that is not known.
    fn bytes(&self) -> Option<u64> {
        None
    }

    /// Stops taking appends and waits until the queued ones are durable.
    async fn close(&self);
}
