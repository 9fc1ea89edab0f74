//! Whose a shared store is: the one process whose log, deltas and runs are in it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One start of an owner. The document with the highest epoch counts (invariant I9: a fence only grows).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerDocument {
    /// Format of this document: 1.
    pub format: u32,
    /// Number of the document: 1 for the first owner, one more with every start.
    pub epoch: u64,
    /// The data folder: the log that the store was made from is in it.
    pub node: Uuid,
    /// This start of the process: two processes on copies of one data folder are two.
    pub process: Uuid,
    /// For people: host and data folder.
    pub place: String,
    /// Microseconds since the epoch.
    pub started_at_us: i64,
}
