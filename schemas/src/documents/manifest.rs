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
    /// Number of the owner that wrote it; 0 where a store has only one.
    #[serde(default, skip_serializing_if = "super::catalog::is_zero")]
    pub epoch: u64,
}

impl Manifest {
    /// What an owner that takes over writes where it found this: the same batch view under the next sequence, so that
    /// an older owner cannot take that one.
    #[must_use]
    pub fn claimed(&self, epoch: u64) -> Self {
        Self { sequence: self.sequence.saturating_add(1), epoch, ..self.clone() }
    }

    /// The same for a view that has no batch view yet: it names none.
    #[must_use]
    pub fn empty_claim(view: Uuid, sequence: u64, epoch: u64) -> Self {
        Self {
            format: 1,
            sequence,
            view,
            semantic_hash: String::new(),
            run: 0,
            cut: Cut::default(),
            files: vec![],
            cells: 0,
            ledger: vec![],
            verdict: super::certificate::Verdict::Exact,
            published_at_us: 0,
            rolled_back_from: None,
            epoch,
        }
    }

    /// False for a claim of a view that has no batch view yet: runs are numbered from 1.
    pub fn has_batch_view(&self) -> bool {
        self.run > 0
    }

    /// True if both are one publication: the other is a claim on it, or it on the other.
    pub fn is_same_publication(&self, other: &Self) -> bool {
        (self.run, self.published_at_us) == (other.run, other.published_at_us)
    }
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
