//! Reading a topic of others from given offsets on: committed records only, and never those of another topic
//! of the same name.

use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use schemas::{Offset, Partition};
use uuid::Uuid;

use super::config::{KafkaConfig, Quiet};
use super::topic::{TopicError, id_of, unreachable};

/// How long a broker may take to say where a partition begins and ends.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(5);

/// How much one [`TopicReader::fetch`] takes.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Records.
    pub records_max: usize,
    /// Bytes of their values.
    pub bytes_max: usize,
    /// How long the first one is waited for.
    pub wait: Duration,
}

/// Records of one partition, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicRecords {
    /// The partition.
    pub partition: Partition,
    /// All values, one after the other.
    pub payload: Vec<u8>,
    /// Where each value is in the payload; a record without value is empty.
    pub values: Vec<Range<usize>>,
    /// The offset of each: ascending, not always consecutive.
    pub offsets: Vec<Offset>,
}

/// What a fetch found.
#[derive(Debug)]
pub enum Fetched {
    /// Records; none if none came in time.
    Records(Vec<TopicRecords>),
    /// Another topic has the name, or none: nothing that was fetched may be used.
    Replaced(Option<Uuid>),
    /// The place to read from is not there (any more).
    OutOfRange,
}

/// A consumer of a whole topic, at places of ours: nothing is kept in a consumer group.
pub struct TopicReader {
    consumer: BaseConsumer<Quiet>,
    config: KafkaConfig,
    topic: String,
    id: Uuid,
    /// Per partition the next offset.
    next: Vec<Offset>,
    /// Per partition: everything there was had been read at the last look.
    at_end: Vec<bool>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader").field("topic", &self.topic).field("next", &self.next).finish_non_exhaustive()
    }
}

impl TopicReader {
    /// A reader of the topic with that id, one place a partition. Nothing is read yet.
    ///
    /// # Errors
    /// The configuration is no good.
    pub fn open(config: &KafkaConfig, topic: &str, id: Uuid, next: Vec<Offset>) -> Result<Self, TopicError> {
        let refused = |error: KafkaError| TopicError::Configuration(error.to_string());
        let client = config.consumer(&format!("bifold-{topic}"));
        let consumer = BaseConsumer::from_config_and_context(&client, Quiet).map_err(refused)?;
        let mut places = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(&next) {
            places.add_partition_offset(topic, partition, KafkaOffset::Offset(*offset as i64)).map_err(refused)?;
        }
        consumer.assign(&places).map_err(refused)?;
        let at_end = vec![false; next.len()];
        Ok(Self { consumer, config: config.clone(), topic: topic.to_owned(), id, next, at_end })
    }

    /// The next offset of each partition.
    pub fn next(&self) -> &[Offset] {
        &self.next
    }

    /// Whether everything there was of each partition had been read at the last look.
    pub fn at_end(&self) -> &[bool] {
        &self.at_end
    }

    /// The first offset that the broker keeps, and the first one that is not committed yet. Blocks.
    ///
    /// # Errors
    /// No broker answers.
    pub fn bounds(&self, partition: Partition) -> Result<Range<Offset>, TopicError> {
        let bounds = self.consumer.fetch_watermarks(&self.topic, partition as i32, BOUNDS_TIMEOUT);
        let (low, high) = bounds.map_err(|error| unreachable(&self.config, error))?;
        Ok(low.max(0) as Offset..high.max(0) as Offset)
    }

    /// Takes what has come. Blocks.
    ///
    /// The topic's id is asked for after the records have come, so they are of the topic with that id: an id
    /// that is given up is never given again.
    ///
    /// # Errors
    /// No broker answers: nothing of this fetch may be used, nor of this reader.
    pub fn fetch(&mut self, limits: &ReadLimits) -> Result<Fetched, TopicError> {
        let mut taken = Taken::default();
        let until = Instant::now() + limits.wait;
        while taken.records < limits.records_max && taken.bytes < limits.bytes_max {
            let wait =
                if taken.records == 0 { until.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            let Some(polled) = self.consumer.poll(wait) else { break };
            match polled {
                Ok(message) => {
                    let partition = message.partition() as Partition;
                    taken.add(partition, message.offset() as Offset, message.payload().unwrap_or_default());
                    self.next[partition as usize] = message.offset() as Offset + 1;
                    self.at_end[partition as usize] = false;
                }
                Err(KafkaError::PartitionEOF(partition)) => self.at_end[partition as usize] = true,
                Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)) => {
                    return Ok(self.replaced()?.unwrap_or(Fetched::OutOfRange));
                }
                // librdkafka goes on by itself; whether the topic is still there is asked below
                Err(error) => tracing::debug!(topic = self.topic, %error, "reading a topic"),
            }
        }
        Ok(self.replaced()?.unwrap_or(Fetched::Records(taken.by_partition)))
    }

    /// That another topic has the name now, or that there is none; none while it is ours.
    fn replaced(&self) -> Result<Option<Fetched>, TopicError> {
        let id = id_of(self.consumer.client(), &self.config, &self.topic)?;
        Ok(if id == Some(self.id) { None } else { Some(Fetched::Replaced(id)) })
    }
}

#[derive(Default)]
struct Taken {
    by_partition: Vec<TopicRecords>,
    records: usize,
    bytes: usize,
}

impl Taken {
    fn add(&mut self, partition: Partition, offset: Offset, value: &[u8]) {
        let known = self.by_partition.iter().position(|records| records.partition == partition);
        let index = known.unwrap_or_else(|| {
            self.by_partition.push(TopicRecords { partition, ..TopicRecords::default() });
            self.by_partition.len() - 1
        });
        let records = &mut self.by_partition[index];
        let from = records.payload.len();
        records.payload.extend_from_slice(value);
        records.values.push(from..records.payload.len());
        records.offsets.push(offset);
        self.records += 1;
        self.bytes += value.len();
    }
}
