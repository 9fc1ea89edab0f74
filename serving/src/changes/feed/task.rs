//! What a reader of changes has in its queue.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use operators::view::Touched;
use storage::snapshot::ViewSnapshot;
use tokio::sync::OwnedSemaphorePermit;

use crate::changes::step::Step;
use crate::changes::{Cursor, Event};

/// What rows are final at, and how new they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) version: u64,
    pub(super) watermark_us: Option<i64>,
}

/// What is to be handed over before the next look.
pub(super) enum Task {
    Event(Event),
    /// The rows of the whole view, and the turn to read them.
    Rows(SendableRecordBatchStream, Arc<OwnedSemaphorePermit>, u64),
    Cells(Arc<Step>, Touched),
    /// The rows of the whole view, of which those are handed over that are final at a watermark.
    Finals(SendableRecordBatchStream, Arc<OwnedSemaphorePermit>, Mark),
    /// Touched cells in mode `append`, which may be of rows that were final.
    Late(Arc<Step>, Touched, Option<i64>),
    /// All cells of the step have been looked at: what is final at this watermark is handed over.
    Closing(Arc<ViewSnapshot>, Option<i64>),
    /// Rows that have become final, by their keys.
    Close(Arc<ViewSnapshot>, RecordBatch),
    Done(Cursor, Arc<ViewSnapshot>),
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Event(_) => "Event",
            Self::Rows(..) => "Rows",
            Self::Cells(..) => "Cells",
            Self::Finals(..) => "Finals",
            Self::Late(..) => "Late",
            Self::Closing(..) => "Closing",
            Self::Close(..) => "Close",
            Self::Done(..) => "Done",
        })
    }
}
