//! A delta: the states of an exact range of offsets, for all views of a stream. This is the header;
//! the states follow it as Arrow IPC (`storage::deltas` owns the bytes).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ledger::LedgerCounts;
use crate::position::Cut;
use crate::problem::Code;

/// What a delta object says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaHeader {
    /// Format of this document: 1.
    pub format: u32,
    /// The stream.
    pub stream: Uuid,
    /// The log incarnation that the cuts belong to.
    pub incarnation: Uuid,
    /// First checkpoint in it. Checkpoints are numbered from 0 without gaps; the object's name is
    /// made of the numbers and created only if absent: the name is the fence.
    pub first_checkpoint: u64,
    /// Last checkpoint in it: the same number, or a later one when checkpoints were merged.
    pub last_checkpoint: u64,
    /// Where it starts.
    pub from: Cut,
    /// Where it ends.
    pub to: Cut,
    /// Largest event time per partition below `to`, microseconds.
    pub max_event_time_us: Vec<Option<i64>>,
    /// The views in it, by id.
    pub views: Vec<DeltaView>,
    /// Views that a record below `to` has stopped: they are in no delta from then on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedView>,
    /// Microseconds since the epoch.
    pub created_at_us: i64,
    /// Everything that was acknowledged by then is in here or below; microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of_us: Option<i64>,
}

/// A view that cannot be folded any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedView {
    /// The view.
    pub view: Uuid,
    /// What readers are told.
    pub code: Code,
    /// Which record it was, and why.
    pub detail: String,
}

/// One view's part of a delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaView {
    /// The view.
    pub view: Uuid,
    /// What its states mean.
    pub semantic_hash: String,
    /// Where this view's part starts: the delta's start, or later for a view made in its range.
    pub from: Cut,
    /// Cells in it.
    pub cells: u64,
    /// Ledger per partition of `[from, to)`.
    pub ledger: Vec<LedgerCounts>,
    /// Length of its Arrow IPC stream, bytes. The streams follow the header in this order.
    pub bytes: u64,
}
