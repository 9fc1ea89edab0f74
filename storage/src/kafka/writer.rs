//! Writing records to a topic of others: each one arrives once while the writer lives, in the order of its key.

use std::time::Duration;

use futures::future::try_join_all;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use super::config::{KafkaConfig, Quiet};
use super::topic::{TopicError, unreachable};

/// Records that are on their way at a time.
const UNDERWAY_MAX: usize = 10_000;
/// The client's queue is full: it is asked again after so long.
const QUEUE_PAUSE: Duration = Duration::from_millis(2);

/// A writer.
pub struct TopicWriter {
    config: KafkaConfig,
    producer: FutureProducer<Quiet>,
    underway: Vec<DeliveryFuture>,
}

impl std::fmt::Debug for TopicWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicWriter").field("underway", &self.underway.len()).finish_non_exhaustive()
    }
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct TopicRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// What decides on its partition.
    pub key: &'a str,
    /// None: the key is gone.
    pub value: Option<&'a str>,
    /// Names and values.
    pub headers: &'a [(&'a str, String)],
}

impl TopicWriter {
    /// A writer for a cluster; nothing is connected yet.
    ///
    /// # Errors
    /// The configuration is none.
    pub fn open(config: &KafkaConfig) -> Result<Self, TopicError> {
        let mut client = config.client();
        client.set("enable.idempotence", "true").set("acks", "all").set("compression.type", "lz4");
        client.set("linger.ms", "5").set("message.timeout.ms", "30000");
        let producer = FutureProducer::from_config_and_context(&client, Quiet)
            .map_err(|error| TopicError::Configuration(error.to_string()))?;
        Ok(Self { config: config.clone(), producer, underway: vec![] })
    }

    /// Sends a record; it has arrived when [`TopicWriter::flush`] has returned.
    ///
    /// # Errors
    /// Records that were sent before did not arrive.
    pub async fn send(&mut self, record: TopicRecord<'_>) -> Result<(), TopicError> {
        if self.underway.len() >= UNDERWAY_MAX {
            self.flush().await?;
        }
        loop {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |all, (name, value)| {
                all.insert(Header { key: name, value: Some(value.as_str()) })
            });
            let mut message: FutureRecord<'_, str, str> =
                FutureRecord::to(record.topic).key(record.key).headers(headers);
            message.payload = record.value;
            match self.producer.send_result(message) {
                Ok(underway) => {
                    self.underway.push(underway);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(QUEUE_PAUSE).await;
                }
                Err((error, _)) => return Err(unreachable(&self.config, error)),
            }
        }
    }

    /// Waits until everything has arrived.
    ///
    /// # Errors
    /// Something did not.
    pub async fn flush(&mut self) -> Result<(), TopicError> {
        let arrived = try_join_all(std::mem::take(&mut self.underway)).await;
        let arrived = arrived.map_err(|_| unreachable(&self.config, "the client was closed"))?;
        for one in arrived {
            one.map_err(|(error, _)| unreachable(&self.config, error))?;
        }
        Ok(())
    }
}
