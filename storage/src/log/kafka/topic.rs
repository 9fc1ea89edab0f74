//! The topic of a log: makes it, and makes sure that it is still the one that was made.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::FromClientConfigAndContext;
use uuid::Uuid;

use super::KafkaLogConfig;
use crate::error::StorageError;
use crate::kafka::{KafkaConfig, Quiet, id_of};

/// How long a broker may take to answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a frame, at most: what a broker takes in one request by default, less some room.
pub(super) const FRAME_BYTES_MAX: &str = "100000000";
/// Bifold gives up old frames itself, once they have landed: the broker must not. A frame is never too large for
/// the topic. It takes as many replicas as the broker's default says.
const SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("max.message.bytes", FRAME_BYTES_MAX),
];
/// A topic that was just made is not known everywhere at once.
const MADE_WITHIN: Duration = Duration::from_secs(10);
/// A topic that no broker knows for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// A log's topic.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) cluster: KafkaConfig,
    pub(super) name: String,
    pub(super) id: Uuid,
}

impl Topic {
    pub(super) fn open(config: &KafkaLogConfig, partitions: u32) -> Result<Self, StorageError> {
        let KafkaLogConfig { cluster, topic: name, topic_id, .. } = config;
        let admin = AdminClient::from_config_and_context(&cluster.client(), Quiet)
            .map_err(|cause| StorageError::io(format!("opening the log {name}"), cause))?;
        let client = admin.inner();
        let found = id(client, cluster, name)?;
        let id = match (found, topic_id) {
            (Some(found), Some(known)) if found == *known => found,
            (Some(found), None) => found,
            (None, None) => make(&admin, cluster, name, partitions)?,
            (Some(_), Some(_)) => return Err(damaged(name, "it is another topic than the log was written to")),
            (None, Some(_)) => return Err(damaged(name, "the topic of the log is gone")),
        };
        let count = partition_count(client, name)?;
        if count != partitions {
            return Err(damaged(name, &format!("it has {count} partitions, not {partitions}")));
        }
        Ok(Self { cluster: cluster.clone(), name: name.clone(), id })
    }

    /// Fails if another topic has the name, or none. A broker that has just come back may not know its topics yet: only
    /// one that does not know this one for a while says that it is gone, which nothing undoes.
    pub(super) fn check<C: ClientContext>(&self, client: &Client<C>) -> Result<(), StorageError> {
        let began = Instant::now();
        loop {
            match id(client, &self.cluster, &self.name)? {
                Some(found) if found == self.id => return Ok(()),
                None if began.elapsed() < GONE_AFTER => std::thread::sleep(LOOK_PAUSE),
                _ => return Err(damaged(&self.name, "the topic of the log was removed: its records are gone")),
            }
        }
    }

    pub(super) fn damaged(&self, reason: &str) -> StorageError {
        damaged(&self.name, reason)
    }
}

fn damaged(topic: &str, reason: &str) -> StorageError {
    StorageError::Damaged { path: format!("log in topic {topic}"), reason: reason.to_owned() }
}

fn id<C: ClientContext>(client: &Client<C>, cluster: &KafkaConfig, topic: &str) -> Result<Option<Uuid>, StorageError> {
    id_of(client, cluster, topic).map_err(|cause| StorageError::io(format!("looking at the log {topic}"), cause))
}

fn make(admin: &AdminClient<Quiet>, cluster: &KafkaConfig, topic: &str, partitions: u32) -> Result<Uuid, StorageError> {
    let failed = |cause: String| StorageError::io(format!("making the topic {topic}"), cause);
    let mut new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(-1));
    for (name, value) in SETTINGS {
        new = new.set(name, value);
    }
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
    let made = block_on(admin.create_topics([&new], &options)).map_err(|cause| failed(cause.to_string()))?;
    if let Some((topic, code)) = made.into_iter().find_map(Result::err) {
        return Err(failed(format!("{topic}: {code}")));
    }
    let began = Instant::now();
    loop {
        if let Some(id) = id(admin.inner(), cluster, topic)?
            && partition_count(admin.inner(), topic)? == partitions
        {
            return Ok(id);
        }
        if began.elapsed() > MADE_WITHIN {
            return Err(failed("it does not appear".to_owned()));
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

fn partition_count<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<u32, StorageError> {
    let metadata = client.fetch_metadata(Some(topic), TIMEOUT);
    let metadata = metadata.map_err(|cause| StorageError::io(format!("looking at the log {topic}"), cause))?;
    let found = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
    Ok(found.map_or(0, |known| known.partitions().len() as u32))
}
