//! `system.coverage`, `system.ledger` and `EXPLAIN LAYERS`: what answers are made from.

use arrow::record_batch::RecordBatch;
use schemas::{Catalog, LedgerCounts, Problem};
use storage::snapshot::ViewSnapshot;

use super::rows::Table;
use crate::engine::{Covered, Snapshots};

fn coverage_table() -> Table {
    Table::new(&[
        ("view", "t"),
        ("layer", "t"),
        ("run", "i"),
        ("from", "t"),
        ("to", "t"),
        ("records", "i"),
        ("cells", "i"),
        ("files", "i"),
    ])
}

/// One row for the batch view, one for each range; a range is records of the log by position.
fn add_coverage(table: &mut Table, name: &str, snapshot: &ViewSnapshot, batch: bool, speed: bool) {
    if let Some(manifest) = snapshot.manifest.as_ref().filter(|_| batch) {
        table
            .text(name)
            .text("batch")
            .int(manifest.run as i64)
            .text("{}")
            .text(&manifest.cut.to_string())
            .int(manifest.cut.total() as i64)
            .int(manifest.cells as i64)
            .int(manifest.files.len() as i64);
    }
    for range in snapshot.ranges.iter().filter(|_| speed) {
        table
            .text(name)
            .text("speed")
            .maybe_int(None)
            .text(&range.from.to_string())
            .text(&range.to.to_string())
            .int(range.from.records_until(&range.to) as i64)
            .int(range.cells() as i64)
            .int(0);
    }
}

pub(super) async fn coverage(catalog: &Catalog, snapshots: &mut Snapshots<'_>) -> Result<RecordBatch, Problem> {
    let mut table = coverage_table();
    for view in &catalog.views {
        let Some(stream) = catalog.stream_by_id(view.stream) else { continue };
        let taken = snapshots.of(stream).await?;
        if let Some(snapshot) = taken.views.get(&view.id) {
            add_coverage(&mut table, &view.name, snapshot, true, true);
        }
    }
    table.finish()
}

/// `EXPLAIN LAYERS`: the same rows for the views of one query.
pub(crate) fn layers(covered: &[Covered]) -> Result<RecordBatch, Problem> {
    let mut table = coverage_table();
    for one in covered {
        add_coverage(&mut table, &one.def.name, &one.snapshot, one.layer.reads_batch(), one.layer.reads_speed());
    }
    table.finish()
}

/// Per view and partition: everything below the cut, and what came after it.
pub(super) async fn ledger(catalog: &Catalog, snapshots: &mut Snapshots<'_>) -> Result<RecordBatch, Problem> {
    let mut table = Table::new(&[
        ("view", "t"),
        ("layer", "t"),
        ("partition", "i"),
        ("records", "i"),
        ("counted", "i"),
        ("filtered", "i"),
        ("late", "i"),
        ("balance", "i"),
    ]);
    for view in &catalog.views {
        let Some(stream) = catalog.stream_by_id(view.stream) else { continue };
        let taken = snapshots.of(stream).await?;
        let Some(snapshot) = taken.views.get(&view.id) else { continue };
        for partition in 0..stream.partitions as usize {
            let batch = snapshot.manifest.as_ref().and_then(|manifest| manifest.ledger.get(partition));
            if let Some(counts) = batch {
                add_ledger(&mut table, &view.name, "batch", partition, counts);
            }
            let ranges = snapshot.ranges.iter().filter_map(|range| range.ledger.get(partition));
            add_ledger(&mut table, &view.name, "speed", partition, &LedgerCounts::sum(ranges));
        }
    }
    table.finish()
}

fn add_ledger(table: &mut Table, view: &str, layer: &str, partition: usize, counts: &LedgerCounts) {
    table
        .text(view)
        .text(layer)
        .int(partition as i64)
        .int(counts.records as i64)
        .int(counts.counted as i64)
        .int(counts.filtered as i64)
        .int(counts.late as i64)
        .int(i64::try_from(counts.balance()).unwrap_or(i64::MAX));
}
