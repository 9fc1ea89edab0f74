//! How far a sink has delivered, for targets that cannot keep that themselves.

use serde::{Deserialize, Serialize};

/// The position of a sink. Written before something is sent, and when it has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkPosition {
    /// Format of this document: 1.
    pub format: u32,
    /// How many parcels have arrived.
    pub parcels: u64,
    /// Everything up to this cursor has arrived; none before the first parcel.
    pub cursor: Option<String>,
    /// What is on its way: after a restart it is sent again as it was, under the same key.
    pub pending: Option<PendingParcel>,
}

/// A part of a view's changes as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingParcel {
    /// Its bytes.
    pub body: String,
    /// The cursor once it has arrived; none if it is not the last one of its step.
    pub cursor: Option<String>,
}
