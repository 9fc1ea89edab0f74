//! What is known of the topic that a stream is read from: its incarnations, and what of it is lost.
//!
//! Numbered, create-only, each one the whole state: who writes the next number goes on, a second writer loses.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::position::{Offset, Partition};

/// Why offsets of a topic will never be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoleReason {
    /// The broker had given the records up before they were read: retention, or `DeleteRecords`.
    Retention,
    /// The topic was deleted and made again before its end had been read.
    Recreated,
}

impl HoleReason {
    /// As JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Recreated => "recreated",
        }
    }
}

/// Records of a topic that are not in the stream and never will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// Of which incarnation of the topic.
    pub epoch: u32,
    /// The topic's id then.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: Partition,
    /// The first offset that is missing.
    pub from: Offset,
    /// The first one that is not; none: nobody knows how far the topic went.
    pub to: Option<Offset>,
    /// Why.
    pub reason: HoleReason,
    /// When that was noticed, microseconds.
    pub found_at_us: i64,
}

/// A span of time in which an offset of the topic meant one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 0; part of every record's position in the topic (`_source_epoch`).
    pub number: u32,
    /// What tells the topic from another one of its name.
    pub topic_id: Uuid,
    /// Per partition, the first offset that belongs to it.
    pub starts: Vec<Offset>,
    /// Dead letters from this offset on may be of it.
    pub letters_from: Offset,
    /// When it began, microseconds.
    pub began_at_us: i64,
}

/// Everything that is known of a stream's topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDocument {
    /// Format of this document: 1.
    pub format: u32,
    /// Its topic.
    pub topic: String,
    /// In their order; the last one is the current one.
    pub epochs: Vec<Epoch>,
    /// In the order in which they were found.
    pub holes: Vec<Hole>,
}

/// How far a topic has been read. Written now and then: what the log holds beyond counts, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    /// Format of this document: 1.
    pub format: u32,
    /// Of which incarnation of the topic.
    pub epoch: u32,
    /// Per partition: everything of the topic below it is durable, as a record, a duplicate or a dead letter.
    pub next: Vec<Offset>,
    /// Head of the dead letters at that time.
    pub letters: Offset,
    /// Head of the log at that time, per partition: of use only to a log that reaches so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<Offset>,
}

/// The topic that a log was made in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTopic {
    /// Format of this document: 1.
    pub format: u32,
    /// Its name.
    pub topic: String,
    /// What tells it from another one of its name.
    pub topic_id: Uuid,
}
