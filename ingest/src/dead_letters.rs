//! Bad records, kept as they were sent: `dlq.<stream>`.

mod rows;

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::{Limits, Offset, Partition};
use storage::StorageError;
use storage::clock::Clock;
use storage::log::{Log, Pending};
use tokio::sync::OnceCell;

pub use self::rows::{Letter, dead_letter_schema};
pub(crate) use self::rows::{TOPIC_ID, TOPIC_OFFSET, TOPIC_PARTITION};
use crate::admission::last_append_time;
use crate::decode::BadRecord;
use crate::times::Timing;

/// What the dead letters of one request have in common.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) content_type: String,
    pub(crate) request_id: String,
    pub(crate) timing: Timing,
    /// None for a request.
    pub(crate) topic: Option<TopicPlace>,
}

/// Where bad records are in a topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicPlace {
    pub(crate) topic: String,
    pub(crate) topic_id: String,
    pub(crate) partition: Partition,
    /// Of each bad record.
    pub(crate) offsets: Vec<Offset>,
}

/// The dead-letter log of one stream. Nobody else appends to it.
///
/// A request that fails and is sent again leaves its dead letters twice, told apart by `request_id`.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    /// Kept of one record. A larger record is larger than any that is taken.
    raw_bytes_max: usize,
    /// Kept on disk; more are refused.
    bytes_max: u64,
    last_append_us: OnceCell<Mutex<i64>>,
}

impl DeadLetters {
    pub(crate) fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, limits: &Limits) -> Self {
        let (raw_bytes_max, bytes_max) = (limits.record_bytes_max, limits.dead_letters_bytes_max as u64);
        Self { log, clock, raw_bytes_max, bytes_max, last_append_us: OnceCell::new() }
    }

    /// Queues the bad records of a request; gives their append time.
    ///
    /// # Errors
    /// `Full` when the disk holds as many as it may; as the log's append.
    pub(crate) async fn queue(
        &self,
        payload: &[u8],
        bad: &[BadRecord],
        sender: &Sender,
    ) -> Result<(Pending, i64), StorageError> {
        if self.log.bytes().is_some_and(|bytes| bytes > self.bytes_max) {
            let what = format!("the log of dead letters (limits.dead_letters_bytes_max: {})", self.bytes_max);
            return Err(StorageError::Full { what });
        }
        let recover =
            || async { last_append_time(self.log.as_ref(), 0).await.map(|last| Mutex::new(last.unwrap_or(i64::MIN))) };
        let last_append_us = self.last_append_us.get_or_try_init(recover).await?;
        let mut last_append_us = last_append_us.lock();
        *last_append_us = self.clock.now_us().max(*last_append_us);
        let rows = rows::encode(payload, bad, sender, self.raw_bytes_max, *last_append_us)
            .map_err(|error| StorageError::io("writing dead letters", error))?;
        Ok((self.log.append(self.log.epoch(), vec![(0, rows)])?, *last_append_us))
    }

    /// The offsets that are kept.
    pub(crate) fn kept(&self) -> Range<Offset> {
        self.log.start().offset(0)..self.log.head().offset(0)
    }

    /// Letters from `from` on, in order, at most `letters_max` of them; of large ones fewer, but at least one
    /// unless there is none.
    ///
    /// # Errors
    /// The log failed.
    pub(crate) async fn read(&self, from: Offset, letters_max: usize) -> Result<Vec<Letter>, StorageError> {
        let kept = self.kept();
        let from = from.max(kept.start);
        let wanted = from..from.saturating_add(letters_max as u64).min(kept.end);
        if wanted.is_empty() {
            return Ok(vec![]);
        }
        let frames = self.log.read(0, from, letters_max).await?;
        let mut letters = vec![];
        for frame in frames.iter().filter_map(|frame| frame.clip(&wanted)) {
            letters.extend(rows::decode(&frame).ok_or_else(|| StorageError::Damaged {
                path: format!("dead letters of {}", self.log.incarnation()),
                reason: format!("nothing that can be read at offset {}", frame.base),
            })?);
        }
        Ok(letters)
    }
}
