//! Events folded, and published as a batch view.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use operators::{Folder, View, states};
use schemas::documents::manifest::{BatchFile, Manifest};
use schemas::{Cut, LedgerCounts, Verdict};
use storage::Store;
use storage::batch_view::BatchViewWriter;
use uuid::Uuid;

use super::NOW_US;
use super::stream::{Event, log_rows};

/// States and ledger of events from an offset on.
pub(super) fn fold(view: &Arc<View>, base: u64, events: &[Event]) -> (Vec<RecordBatch>, LedgerCounts) {
    let mut folder = Folder::new(view).unwrap();
    let ledger = folder.fold(0, base, &log_rows(events)).unwrap();
    (folder.take().unwrap().into_iter().collect(), ledger)
}

/// Events as run 7 published them.
pub(super) async fn publish(store: &Store, view: &Arc<View>, id: Uuid, events: &[Event]) -> Manifest {
    let (folded, ledger) = fold(view, 0, events);
    let sorted = states::merge(view, &folded).unwrap();
    let cells = sorted.num_rows() as u64;
    let files = write_batch_view(store, view, id, &sorted).await;
    Manifest {
        format: 1,
        sequence: 1,
        view: id,
        semantic_hash: view.semantic_hash().into(),
        run: 7,
        cut: Cut(vec![events.len() as u64]),
        files,
        cells,
        ledger: vec![ledger],
        verdict: Verdict::Exact,
        published_at_us: NOW_US - 5_000_000,
        rolled_back_from: None,
        epoch: 0,
    }
}

async fn write_batch_view(store: &Store, view: &View, id: Uuid, states: &RecordBatch) -> Vec<BatchFile> {
    // several files, so that their order matters
    let size = 2.max(states.num_rows() / 4);
    let mut files = vec![];
    for (part, from) in (0..states.num_rows()).step_by(size).enumerate() {
        let path = storage::paths::batch_view_part(id, 7, part as u32);
        let schema = Arc::clone(view.state_schema());
        let mut writer = BatchViewWriter::create(store, &path, schema, view.key_columns());
        writer.write(&states.slice(from, size.min(states.num_rows() - from))).unwrap();
        files.push(writer.finish().await.unwrap());
    }
    files
}
