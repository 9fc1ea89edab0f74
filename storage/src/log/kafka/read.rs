//! Reads frames from the topic, where the tail does not reach back far enough.
//!
//! A frame says which of our offsets it begins at; where it is in the topic is found by halving, and remembered.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::SchemaRef;
use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList, TopicPartitionListElem};
use schemas::limits::LOG_READ_BYTES;
use schemas::{Offset, Partition};

use super::topic::{TIMEOUT, Topic};
use crate::error::StorageError;
use crate::kafka::Quiet;
use crate::log::Frame;
use crate::log::embedded::frame::{Header, decode, whole_header};

/// Halving ends where so many records of the topic are left to look through.
const NEAR: i64 = 64;
/// Places that are remembered, over all partitions.
const PLACES_MAX: usize = 16_384;
/// Records before the end that are looked at first for the last frame: there may be markers behind it.
const BACK_FIRST: i64 = 16;
/// How long a broker holds a fetch back when there is nothing, milliseconds.
const FETCH_WAIT_MS: &str = "5";
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(200);

/// A frame as it is in the topic.
struct Stored {
    header: Header,
    bytes: Buffer,
    /// Its place in the topic.
    at: i64,
}

/// What a topic keeps of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Our offsets.
    pub(super) range: Range<Offset>,
    /// Checksum of the last frame: whose it is.
    pub(super) last_crc: Option<u32>,
}

/// A consumer of the log's topic.
pub(super) struct Reader {
    consumer: BaseConsumer<Quiet>,
    topic: Topic,
    /// What the consumer gives next.
    next: Option<(Partition, i64)>,
    /// Where frames are: by partition and base offset.
    places: BTreeMap<(Partition, Offset), i64>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("topic", &self.topic.name).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn open(topic: &Topic) -> Result<Self, StorageError> {
        let mut config = topic.cluster.consumer(&topic.name);
        // a fetch that waits at the end of one partition holds up the next one, of another place
        config.set("fetch.wait.max.ms", FETCH_WAIT_MS).set("queued.max.messages.kbytes", "16384");
        let consumer = BaseConsumer::from_config_and_context(&config, Quiet)
            .map_err(|cause| StorageError::io(format!("opening the log {}", topic.name), cause))?;
        Ok(Self { consumer, topic: topic.clone(), next: None, places: BTreeMap::new() })
    }

    /// What the topic keeps of a partition.
    pub(super) fn kept(&mut self, partition: Partition) -> Result<Kept, StorageError> {
        let bounds = self.bounds(partition)?;
        let mut back = BACK_FIRST;
        let last = loop {
            let from = bounds.start.max(bounds.end - back);
            let mut last = None;
            self.go_to(partition, from)?;
            while let Some(frame) = self.next_frame(partition)? {
                last = Some(frame.header);
            }
            if last.is_some() || from == bounds.start {
                break last;
            }
            back = back.saturating_mul(16);
        };
        let Some(last) = last else {
            if bounds.start > 0 {
                return Err(self.topic.damaged("the frames of a partition were removed by somebody else"));
            }
            return Ok(Kept { range: 0..0, last_crc: None });
        };
        self.go_to(partition, bounds.start)?;
        let first = self.next_frame(partition)?.map_or(last.base, |first| first.header.base);
        self.rest()?;
        Ok(Kept { range: first..last.end(), last_crc: Some(last.crc) })
    }

    /// Frames of `range` (not empty, its end is durable), about `rows_max` rows.
    pub(super) fn read(
        &mut self,
        schema: &SchemaRef,
        partition: Partition,
        range: Range<Offset>,
        rows_max: usize,
    ) -> Result<Vec<Frame>, StorageError> {
        let near = self.near(partition, range.start)?;
        self.go_to(partition, near)?;
        let (mut frames, mut rows, mut bytes, mut next) = (vec![], 0, 0, range.start);
        let until = Instant::now() + TIMEOUT;
        while next < range.end && (frames.is_empty() || (rows < rows_max && bytes < LOG_READ_BYTES)) {
            let Some(stored) = self.next_frame(partition)? else {
                // A transaction is committed before its markers are in the topic: until they are, what can be
                // read ends before what is durable.
                if frames.is_empty() && Instant::now() < until {
                    continue;
                }
                break;
            };
            if stored.header.end() <= next {
                continue;
            }
            if stored.header.base > next {
                let reason = format!("partition {partition} goes on at {}, not {next}", stored.header.base);
                return Err(self.topic.damaged(&reason));
            }
            let decoded = decode(&stored.header, &stored.bytes, schema);
            let decoded = decoded.map_err(|cause| self.topic.damaged(&format!("frame at {}: {cause}", stored.at)))?;
            let frame = Frame { partition, base: stored.header.base, rows: decoded };
            if let Some(frame) = frame.clip(&(next..range.end)) {
                rows += frame.rows.num_rows();
                bytes += stored.bytes.len();
                next = frame.end();
                frames.push(frame);
            }
        }
        if frames.is_empty() {
            return Err(self.topic.damaged(&format!("partition {partition} has no offset {next}")));
        }
        if next == range.end {
            self.rest()?;
        }
        Ok(frames)
    }

    /// Asks the broker for nothing more: at its end a partition would be asked for again and again.
    fn rest(&mut self) -> Result<(), StorageError> {
        self.next = None;
        self.consumer.unassign().map_err(|cause| self.failed(cause))
    }

    /// Gives up the frames before the one that holds `wanted`; returns where that one begins.
    pub(super) fn truncate(&mut self, partition: Partition, wanted: Offset) -> Result<Offset, StorageError> {
        let near = self.near(partition, wanted)?;
        self.go_to(partition, near)?;
        let frame = loop {
            let Some(frame) = self.next_frame(partition)? else {
                return Err(self.topic.damaged(&format!("partition {partition} has no offset {wanted}")));
            };
            if frame.header.end() > wanted {
                break frame;
            }
        };
        let failed = |cause: KafkaError| StorageError::io(format!("truncating the log {}", self.topic.name), cause);
        let mut places = TopicPartitionList::new();
        let place = KafkaOffset::Offset(frame.at);
        places.add_partition_offset(&self.topic.name, partition as i32, place).map_err(failed)?;
        let admin = AdminClient::from_config_and_context(&self.topic.cluster.client(), Quiet).map_err(failed)?;
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let done = block_on(admin.delete_records(&places, &options)).map_err(failed)?;
        done.elements().iter().try_for_each(TopicPartitionListElem::error).map_err(failed)?;
        self.places.retain(|(of, base), _| *of != partition || *base >= frame.header.base);
        Ok(frame.header.base)
    }

    /// A place in the topic at or before the frame that holds `offset`, and not far from it.
    fn near(&mut self, partition: Partition, offset: Offset) -> Result<i64, StorageError> {
        let below = self.places.range((partition, 0)..=(partition, offset)).next_back().map(|(_, at)| *at);
        let above = self.places.range((partition, offset + 1)..=(partition, Offset::MAX)).next().map(|(_, at)| *at);
        let bounds = self.bounds(partition)?;
        let (mut low, mut high) = (below.unwrap_or(bounds.start).max(bounds.start), above.unwrap_or(bounds.end));
        while high - low > NEAR {
            let middle = low + (high - low) / 2;
            self.go_to(partition, middle)?;
            match self.next_frame(partition)? {
                Some(frame) if frame.header.base <= offset => low = frame.at.max(middle),
                _ => high = middle,
            }
        }
        Ok(low)
    }

    fn bounds(&self, partition: Partition) -> Result<Range<i64>, StorageError> {
        let bounds = self.consumer.fetch_watermarks(&self.topic.name, partition as i32, TIMEOUT);
        let (low, high) = bounds.map_err(|cause| self.failed(cause))?;
        Ok(low..high)
    }

    fn go_to(&mut self, partition: Partition, at: i64) -> Result<(), StorageError> {
        if self.next == Some((partition, at)) {
            return Ok(());
        }
        let mut places = TopicPartitionList::new();
        let added = places.add_partition_offset(&self.topic.name, partition as i32, KafkaOffset::Offset(at));
        added.and_then(|()| self.consumer.assign(&places)).map_err(|cause| self.failed(cause))?;
        self.next = Some((partition, at));
        Ok(())
    }

    /// The next frame; none at the end of what is committed.
    fn next_frame(&mut self, partition: Partition) -> Result<Option<Stored>, StorageError> {
        let until = Instant::now() + TIMEOUT;
        // whatever goes wrong, the next reader begins anew
        self.next = None;
        while Instant::now() < until {
            let Some(polled) = self.consumer.poll(POLL) else { continue };
            let message = match polled {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(of)) if of == partition as i32 => return Ok(None),
                Err(error @ KafkaError::MessageConsumption(_)) if !is_passing(&error) => return Err(self.failed(error)),
                Err(_) => continue,
            };
            let (at, value) = (message.offset(), message.payload().unwrap_or_default());
            let mut bytes = MutableBuffer::with_capacity(value.len());
            bytes.extend_from_slice(value);
            let bytes = Buffer::from(bytes);
            let is_ours = |header: &Header| header.partition == partition;
            let Some(header) = whole_header(&bytes, partition + 1).filter(is_ours) else {
                let reason = format!("partition {partition} has something at {at} that is no frame of this log");
                return Err(self.topic.damaged(&reason));
            };
            self.next = Some((partition, at + 1));
            self.remember(partition, header.base, at);
            return Ok(Some(Stored { header, bytes, at }));
        }
        Err(StorageError::io(format!("reading the log {}", self.topic.name), "no broker answers"))
    }

    fn remember(&mut self, partition: Partition, base: Offset, at: i64) {
        if self.places.len() >= PLACES_MAX {
            // every other one: what is left is as good as halving
            let mut keep = false;
            self.places.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        self.places.insert((partition, base), at);
    }

    fn failed(&self, cause: KafkaError) -> StorageError {
        StorageError::io(format!("reading the log {}", self.topic.name), cause)
    }
}

/// True for what librdkafka recovers from by itself.
fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
        )
    )
}
