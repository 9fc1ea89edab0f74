//! A manifest: which run's batch view is the current one. Immutable; publishing writes the next
//! number, create-only (invariant I4); the highest number is the current one.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ledger::LedgerCounts;
use crate::position::Cut;

/// One published batch view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this document: 1.
    pub format: u32,
    /// Grows by one with every publication of the view.
    pub sequence: u64,
    /// The view.
    pub view: Uuid,
    /// What its states mean.
    pub semantic_hash: String,
    /// The run that made the batch view.
    pub run: u64,
    /// Everything below it is in the batch view.
    pub cut: Cut,
    /// The batch view's files, in order of the key; keys of two files do not overlap.
    pub files: Vec<BatchFile>,
    /// Cells over all files.
    pub cells: u64,
    /// Ledger per partition of everything below the cut.
    pub ledger: Vec<LedgerCounts>,
    /// `exact`, `explained`, …: the certificate's verdict.
    pub verdict: super::certificate::Verdict,
    /// Microseconds since the epoch.
    pub published_at_us: i64,
    /// The run whose place this one took, if it was a rollback.
    pub rolled_back_from: Option<u64>,
}

/// One Parquet file of a batch view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchFile {
    /// Path in the store.
    pub path: String,
    /// Length, bytes.
    pub bytes: u64,
    /// Cells in it.
    pub cells: u64,
    /// XXH3-64 of every mebibyte of it, 16 hexadecimal digits each; empty if they are not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub checksums: String,
}
