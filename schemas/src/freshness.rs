//! What an answer was made from: the `freshness` block and the rest of a query's answer.

use serde::{Deserialize, Serialize};

use crate::documents::certificate::{CutByPartition, Verdict};

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerColumn {
    /// Name.
    pub name: String,
    /// SQL type.
    #[serde(rename = "type")]
    pub sql_type: String,
}

/// What a query cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Wall time in the server, milliseconds.
    pub elapsed_ms: f64,
    /// Cells read from batch views, deltas and tail, before the merge.
    pub cells_read: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Unique.
    pub query_id: String,
}

/// How fresh and how complete an answer is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Freshness {
    /// Nothing older than this is missing: when it was asked for, less the lag; for a batch view alone at most
    /// the start of its run. RFC 3339.
    pub as_of: String,
    /// False if a part is missing: a table of the system or of dead letters was cut off at its bound, records of
    /// a topic were lost before they were read (`holes`), or a node that only answers queries could not ask for
    /// what is newer than the last delta (`as_of` says what is in).
    pub complete: bool,
    /// Every view that the query read.
    pub views: Vec<ViewFreshness>,
    /// Records of topics that are missing in what was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<HoleFreshness>,
    /// How far the topics are read that the views' streams come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceFreshness>,
}

/// Offsets of a topic that are in no answer: they were gone before they were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoleFreshness {
    /// The stream.
    pub stream: String,
    /// Its topic.
    pub topic: String,
    /// The incarnation of the topic.
    pub topic_id: String,
    /// Partition of the topic.
    pub partition: u32,
    /// First offset that is missing.
    pub from: u64,
    /// First offset that is not; none: it is not known how far the topic went.
    pub to: Option<u64>,
    /// `retention` or `recreated`.
    pub reason: String,
}

/// A topic that a stream is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFreshness {
    /// The stream.
    pub stream: String,
    /// Its topic.
    pub topic: String,
    /// Records of the topic that are not read yet; none: not known.
    pub lag_records: Option<u64>,
    /// Why it cannot be read at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The coverage of one view in an answer (I7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewFreshness {
    /// Name.
    pub view: String,
    /// Version of its definition.
    pub version: u32,
    /// The batch view, if one is published and was read.
    pub batch: Option<BatchFreshness>,
    /// The deltas and the tail, if they were read.
    pub speed: Option<SpeedFreshness>,
}

/// The batch side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchFreshness {
    /// Which run.
    pub run: u64,
    /// RFC 3339.
    pub published_at: String,
    /// Everything below it is in the batch view.
    pub cut: CutByPartition,
    /// The verdict.
    pub certificate: Verdict,
}

/// The speed side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeedFreshness {
    /// Where it starts: the batch view's cut.
    pub from: CutByPartition,
    /// Everything below it is counted.
    pub to: CutByPartition,
    /// RFC 3339; none while no event time was seen.
    pub watermark: Option<String>,
    /// Age of the oldest acknowledged record that is not in the answer; 0 if all are.
    pub lag_ms: u64,
    /// Late events counted since the cut.
    pub late_since_cut: u64,
}

/// The answer of `POST …/events`: what became of a request. Fields may be added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestAnswer {
    /// Records in the request: `accepted + duplicates + quarantined`, always.
    pub received: u64,
    /// New events, durable.
    pub accepted: u64,
    /// Events that an earlier record of the same id already stands for, durable.
    pub duplicates: u64,
    /// Of the duplicates, those whose values are not the earlier record's.
    #[serde(default)]
    pub conflicts: u64,
    /// Bad records, kept raw in `dlq.<stream>`, durable.
    pub quarantined: u64,
    /// Position token: a query with it as `at_least` sees all of it.
    pub position: String,
    /// The first 100 bad records; always present, also when there are none.
    #[serde(default)]
    pub errors: Vec<crate::problem::RecordError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingest_answer_always_lists_its_errors() {
        let answer = IngestAnswer {
            received: 3,
            accepted: 2,
            duplicates: 1,
            conflicts: 0,
            quarantined: 0,
            position: "p".into(),
            errors: vec![],
        };
        let text =
            r#"{"received":3,"accepted":2,"duplicates":1,"conflicts":0,"quarantined":0,"position":"p","errors":[]}"#;
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        assert_eq!(serde_json::from_str::<IngestAnswer>(text).unwrap(), answer);
    }
}
