//! What a topic is: its id, its partitions, whether it is compacted.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use schemas::{Code, Problem};
use uuid::Uuid;

use super::config::{KafkaConfig, Quiet};

/// How long a broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A topic that was just created is not known everywhere at once.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
/// Between two looks at a topic that is not known yet.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Why a topic cannot be read, by what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Fix the name, or make the topic.
    #[error("topic {topic}: not found at {brokers}")]
    Missing {
        /// The topic.
        topic: String,
        /// Where it was looked for.
        brokers: String,
    },
    /// Another topic is needed.
    #[error("topic {topic}: is compacted (cleanup.policy = {policy}): Kafka removes records of it that were counted")]
    Compacted {
        /// The topic.
        topic: String,
        /// As the broker has it.
        policy: String,
    },
    /// Try again.
    #[error("kafka at {brokers}: {reason}")]
    Unreachable {
        /// Who was asked.
        brokers: String,
        /// In the client's words.
        reason: String,
    },
    /// Fix the configuration.
    #[error("kafka: configuration: {0}")]
    Configuration(String),
}

impl TopicError {
    /// What a client is told.
    pub fn problem(&self) -> Problem {
        let code = match self {
            Self::Missing { .. } => Code::NotFound,
            Self::Compacted { .. } => Code::Unsupported,
            Self::Unreachable { .. } => Code::StorageUnavailable,
            Self::Configuration(_) => Code::InvalidSql,
        };
        let problem = Problem::new(code, self.to_string());
        match self {
            Self::Compacted { .. } => problem.with_hint("read a topic with cleanup.policy = delete"),
            Self::Unreachable { .. } => problem.with_hint("is the address right, and does the broker run?"),
            Self::Missing { .. } | Self::Configuration(_) => problem,
        }
    }
}

/// A topic as it is at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    /// What tells it from another one of its name.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: u32,
}

/// Looks at a topic that is to be read.
///
/// # Errors
/// It is missing or compacted; no broker answers.
pub async fn describe(config: &KafkaConfig, topic: &str) -> Result<TopicFacts, TopicError> {
    let admin = AdminClient::from_config_and_context(&config.client(), Quiet)
        .map_err(|error| TopicError::Configuration(error.to_string()))?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let (looked_up, place) = (topic.to_owned(), config.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let facts = facts(admin.inner(), &place, &looked_up);
        (admin, facts)
    });
    let (admin, facts) = looked.await.map_err(|error| unreachable(config, error))?;
    let facts = facts?;
    let resource = ResourceSpecifier::Topic(topic);
    let answers = admin.describe_configs([&resource], &options).await.map_err(|error| unreachable(config, error))?;
    for answer in answers {
        let settings = answer.map_err(|error| unreachable(config, error))?;
        let policy = settings.get("cleanup.policy").and_then(|entry| entry.value.clone()).unwrap_or_default();
        if policy.contains("compact") {
            return Err(TopicError::Compacted { topic: topic.to_owned(), policy });
        }
    }
    Ok(facts)
}

fn facts<C: ClientContext>(client: &Client<C>, config: &KafkaConfig, topic: &str) -> Result<TopicFacts, TopicError> {
    let began = Instant::now();
    loop {
        if let Some(id) = id_of(client, config, topic)? {
            // only now: asking for the partitions of a topic that is missing may create it
            let metadata = client.fetch_metadata(Some(topic), TIMEOUT).map_err(|error| unreachable(config, error))?;
            let found = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
            let partitions = found.map_or(0, |known| known.partitions().len() as u32);
            if partitions > 0 {
                return Ok(TopicFacts { id, partitions });
            }
        }
        if began.elapsed() > UNKNOWN_FOR {
            return Err(TopicError::Missing { topic: topic.to_owned(), brokers: config.brokers.clone() });
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// The id that a topic has at this moment; none while there is no such topic. Blocks.
pub(crate) fn id_of<C: ClientContext>(
    client: &Client<C>,
    config: &KafkaConfig,
    topic: &str,
) -> Result<Option<Uuid>, TopicError> {
    let id = topic_id::topic_id(client, topic, TIMEOUT).map_err(|reason| unreachable(config, reason))?;
    Ok(id.map(Uuid::from_bytes))
}

pub(super) fn unreachable(config: &KafkaConfig, reason: impl std::fmt::Display) -> TopicError {
    TopicError::Unreachable { brokers: config.brokers.clone(), reason: reason.to_string() }
}

/// Removes topics; those that are missing are fine.
///
/// # Errors
/// No broker answers.
pub async fn delete_topics(config: &KafkaConfig, topics: &[&str]) -> Result<(), TopicError> {
    let admin = AdminClient::from_config_and_context(&config.client(), Quiet)
        .map_err(|error| TopicError::Configuration(error.to_string()))?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let answers = admin.delete_topics(topics, &options).await.map_err(|error| unreachable(config, error))?;
    for (topic, code) in answers.into_iter().filter_map(Result::err) {
        if code != RDKafkaErrorCode::UnknownTopicOrPartition {
            return Err(unreachable(config, format!("removing topic {topic}: {code}")));
        }
    }
    Ok(())
}
