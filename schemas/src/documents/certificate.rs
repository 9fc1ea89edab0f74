//! The certificate: the record that proves a run equal to what it replaces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ledger::{IntakeCounts, LedgerCounts};
use crate::position::{Cut, Offset, Partition};

/// What a run's certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Both layers agree byte for byte, and nothing was left out.
    Exact,
    /// Both layers agree byte for byte on what they counted; every event left out is listed with its reason.
    Explained,
    /// A declared approximation differs within its bound.
    Tolerated,
    /// They differ and nothing explains it: not published.
    Violation,
}

impl Verdict {
    /// As JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Explained => "explained",
            Self::Tolerated => "tolerated",
            Self::Violation => "violation",
        }
    }
}

/// The proof of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Format of this document: 1.
    pub format: u32,
    /// The run.
    pub run: u64,
    /// The view's name.
    pub view: String,
    /// The view.
    pub view_id: Uuid,
    /// What its states mean.
    pub semantic_hash: String,
    /// What it says.
    pub verdict: Verdict,
    /// The run that this one replaces.
    pub base_run: Option<u64>,
    /// The cut of the base, where the deltas begin.
    pub base_cut: CutByPartition,
    /// This run's cut.
    pub cut: CutByPartition,
    /// Per partition: what landed beside what speed folded.
    pub inputs: Vec<InputCheck>,
    /// Everything below the cut, by class.
    pub ledger: LedgerCheck,
    /// Cell by cell: new = old ⊕ Σ deltas.
    pub cells: CellCheck,
    /// Sampled cells by plain SQL with other code.
    pub oracle: OracleCheck,
    /// Every event that is missing from the view, by reason.
    pub explanations: Vec<Explanation>,
    /// What is wrong, in words; empty unless the verdict is a violation.
    pub violations: Vec<String>,
    /// Microseconds since the epoch.
    pub created_at_us: i64,
    /// How long the audit took, milliseconds.
    pub audit_ms: u64,
}

/// A cut as JSON shows it: partition → offset.
pub type CutByPartition = BTreeMap<Partition, Offset>;

/// [`Cut`] in the shape of a certificate or a freshness block.
pub fn by_partition(cut: &Cut) -> CutByPartition {
    cut.iter().collect()
}

/// One partition's input, seen by both layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputCheck {
    /// The partition.
    pub partition: Partition,
    /// First offset that both looked at.
    pub from: Offset,
    /// First offset beyond.
    pub to: Offset,
    /// Records that landed, and the hash of their positions.
    pub landed: Digest,
    /// Records that speed folded, and the hash of their positions.
    pub folded: Digest,
    /// True if both are equal and have `to - from` records.
    pub equal: bool,
}

/// A count and an additive 128-bit hash of positions, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many.
    pub records: u64,
    /// 32 hex digits.
    pub hash: String,
}

/// Everything below the cut, by class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCheck {
    /// Appended to the log below the cut.
    pub appended: u64,
    /// By class, from the scan of the master.
    pub batch: LedgerCounts,
    /// By class, from the base's ledger plus the deltas; none where there is no base.
    pub speed: Option<LedgerCounts>,
    /// Appended minus all classes: 0.
    pub balance: i64,
    /// What came in by the time of the audit, over the whole stream; none in certificates older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake: Option<IntakeCheck>,
}

/// The stream's intake, from the first record to the time of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeCheck {
    /// By class.
    #[serde(flatten)]
    pub counts: IntakeCounts,
    /// Accepted records that have landed in the master.
    pub landed: u64,
    /// Accepted records that are only in the log yet.
    pub tail: u64,
    /// Records that were taken out of the master and of every view.
    pub erased: u64,
    /// Received and replayed minus all classes: 0.
    pub balance: i64,
}

/// The comparison of the cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellCheck {
    /// Cells in the new batch view or in what it replaces.
    pub compared: u64,
    /// Cells whose states are not byte for byte equal.
    pub differing: u64,
    /// The first differing cells.
    pub samples: Vec<CellDifference>,
    /// Why nothing was compared, if so.
    pub skipped: Option<String>,
}

/// One cell on which the layers do not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellDifference {
    /// The cell's key, column by column, as text.
    pub key: Vec<String>,
    /// Names of the state columns that differ (`_n`, `_fp_hi`, `s0`, …).
    pub columns: Vec<String>,
    /// Records counted by batch; none if it has no such cell.
    pub batch_records: Option<u64>,
    /// Records counted by what it replaces; none if it has no such cell.
    pub speed_records: Option<u64>,
    /// The position of the one record that explains the difference, where one record does.
    pub record: Option<RecordReference>,
}

/// A record named by an auditor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordReference {
    /// Partition.
    pub partition: Partition,
    /// Offset.
    pub offset: Offset,
    /// `missing_in_speed`, `extra_in_speed`: which layer counted it once too few or too often.
    pub what: String,
}

/// Sampled cells computed by other code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OracleCheck {
    /// Cells computed with plain SQL over the raw Parquet.
    pub sampled: u64,
    /// Of those, cells that differ.
    pub differing: u64,
    /// Why nothing was sampled, if so.
    pub skipped: Option<String>,
    /// The first differences in words.
    pub samples: Vec<String>,
}

/// Events that are missing from the view for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `late`
    pub reason: String,
    /// How many.
    pub events: u64,
    /// The Parquet file that lists every one of them: partition, offset, event time, primary key.
    pub list: Option<String>,
}
