//! What a reader of changes is told.

use arrow::record_batch::RecordBatch;
use schemas::Verdict;
use schemas::documents::certificate::CutByPartition;

use super::Cursor;

/// One of them. Everything from one [`Event::Progress`] to the next is one step.
#[derive(Debug, Clone)]
pub enum Event {
    /// The whole view follows: forget what you have.
    Snapshot {
        /// Why it is not told what has changed.
        reason: String,
        /// As in [`Changes::version`].
        version: u64,
    },
    /// What has changed.
    Changed(Changes),
    /// In `append` mode: what has changed in rows that were handed over as final.
    Corrected(Changes),
    /// A batch view was published.
    Published(Published),
    /// Everything up to the cursor was said.
    Progress(Cursor),
}

/// Rows that are new or have other values, and keys of rows that are gone.
#[derive(Debug, Clone)]
pub struct Changes {
    /// How many records of the stream lie before the position that the rows are from. Of two rows with one key the one
    /// with the larger version is the newer one; of two with the same version, the one that came later.
    pub version: u64,
    /// Rows in the schema of the view.
    pub upserts: RecordBatch,
    /// Keys, in the schema of the view's key columns.
    pub deletes: RecordBatch,
}

impl Changes {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.upserts.num_rows() + self.deletes.num_rows() == 0
    }
}

/// A published batch view.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Published {
    /// The run that made it.
    pub run: u64,
    /// What its certificate says.
    pub verdict: Verdict,
    /// Everything below it is in the batch view.
    pub cut: CutByPartition,
    /// The run whose place it took, if it was a rollback.
    pub rolled_back_from: Option<u64>,
}
