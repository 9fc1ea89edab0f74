//! `system.coverage` and `EXPLAIN LAYERS`: what answers are made from.

use arrow::record_batch::RecordBatch;
use schemas::{Catalog, Problem};
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
