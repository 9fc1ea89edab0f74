//! How records get into a stream, and where its log is.

use serde::{Deserialize, Serialize};

use crate::frozen::Frozen;

/// Where a stream's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// Segment files in the data folder.
    #[default]
    Embedded,
    /// Topics of the stream's own, which nobody else writes to.
    Kafka,
}

impl LogKind {
    /// The word in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
        }
    }
}

/// How the bytes of a topic's records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormat {
    /// One JSON object a record.
    #[default]
    Json,
}

impl RecordFormat {
    /// The word in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
        }
    }
}

/// A topic that others write to and the stream is read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TopicSource {
    /// Its name.
    pub topic: String,
    /// How its records are read.
    pub format: RecordFormat,
}

/// How records get into a stream, and where its log is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Transport {
    /// The topic that it is read from; none: events come over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<TopicSource>,
    /// Where its log is.
    #[serde(default)]
    pub log: LogKind,
    /// Brokers of the topic or of the log, `host:port,…`; none: those of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<String>,
    /// What is looked up when a record comes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Frozen>,
}

impl Transport {
    /// True where nothing differs from a stream that says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
