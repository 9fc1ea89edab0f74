//! Kafka as others see it: its configuration, what a topic is, reading one.

pub mod config;
mod reader;
mod topic;
mod writer;

pub(crate) use config::Quiet;
pub(crate) use topic::id_of;

pub use config::KafkaConfig;
pub use reader::{Fetched, ReadLimits, TopicReader, TopicRecords};
pub use topic::{TopicError, TopicFacts, delete_topics, describe};
pub use writer::{TopicRecord, TopicWriter};
