//! A batch view's files: written by the merge, read by the audit.

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use operators::View;
use schemas::Problem;
use schemas::documents::manifest::BatchFile;
use storage::batch_view::{BatchViewReader, BatchViewWriter};
use storage::{Store, paths};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::recompute::Sink;
use crate::stored;

/// Rows that the audit compares at once.
const CHUNK_ROWS: usize = 65_536;

impl Sink for BatchViewWriter {
    fn write(&mut self, states: RecordBatch) -> Result<(), Problem> {
        Self::write(self, &states).map_err(|e| stored(&e))
    }
}

/// The writer of one part of a run's batch view.
pub(super) fn writer(store: &Store, view: &View, (id, run): (Uuid, u64), part: u32) -> BatchViewWriter {
    BatchViewWriter::create(
        store,
        &paths::batch_view_part(id, run, part),
        view.state_schema().clone(),
        view.key_columns(),
    )
}

/// Puts the files in their places.
///
/// # Errors
/// The store failed.
pub(super) async fn finish(writers: Vec<BatchViewWriter>) -> Result<Vec<BatchFile>, Problem> {
    let mut files = Vec::new();
    for writer in writers {
        files.push(writer.finish().await.map_err(|e| stored(&e))?);
    }
    Ok(files)
}

/// Reads files in key order, chunk by chunk. Blocks: for threads that may.
///
/// # Errors
/// A file is missing or damaged.
pub(super) fn reader(
    store: &Store,
    view: &View,
    files: &[BatchFile],
    handle: &Handle,
) -> Result<impl FnMut() -> Result<Option<RecordBatch>, Problem> + use<>, Problem> {
    let open = BatchViewReader::open(store, view.state_schema().clone(), files);
    let mut rows = handle.block_on(open).map_err(|e| stored(&e))?.scan(CHUNK_ROWS);
    let handle = handle.clone();
    Ok(move || handle.block_on(rows.next()).transpose().map_err(|e| stored(&e)))
}
