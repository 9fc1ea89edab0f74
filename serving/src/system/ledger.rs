//! `system.ledger`: every record is in exactly one class (invariant I11).
//!
//! ```text
//!  layer = 'ingest'         per stream, partition and ten minutes of append time:
//!                           received + replayed = accepted + duplicates + quarantined, accepted = landed + tail
//!  layer = 'batch', 'speed' per view and partition: records = counted + filtered + late
//! ```

use arrow::record_batch::RecordBatch;
use schemas::{Catalog, IntakeBucket, LedgerCounts, Problem, StreamDef, ViewDef};
use storage::snapshot::ViewSnapshot;

use super::rows::Table;
use crate::engine::Snapshots;
use crate::parts::Parts;

const COLUMNS: [(&str, &str); 19] = [
    ("stream", "t"),
    ("view", "t"),
    ("layer", "t"),
    ("partition", "i"),
    ("bucket", "z"),
    ("received", "i"),
    ("replayed", "i"),
    ("accepted", "i"),
    ("duplicates", "i"),
    ("conflicts", "i"),
    ("quarantined", "i"),
    ("landed", "i"),
    ("tail", "i"),
    ("records", "i"),
    ("counted", "i"),
    ("filtered", "i"),
    ("late", "i"),
    ("erased", "i"),
    ("balance", "i"),
];

/// What came in, per stream; then everything below the cut and what came after it, per view.
pub(super) async fn ledger(
    parts: &Parts,
    catalog: &Catalog,
    snapshots: &mut Snapshots<'_>,
) -> Result<RecordBatch, Problem> {
    let mut table = Table::new(&COLUMNS);
    for stream in &catalog.streams {
        let Some(intake) = &parts.intake else { break };
        for bucket in intake.intake(stream.id).await? {
            add_intake(&mut table, stream, &bucket);
        }
    }
    for view in &catalog.views {
        let Some(stream) = catalog.stream_by_id(view.stream) else { continue };
        let taken = snapshots.of(stream).await?;
        if let Some(snapshot) = taken.views.get(&view.id) {
            add_view(&mut table, stream, view, snapshot);
        }
    }
    table.finish()
}

fn add_intake(table: &mut Table, stream: &StreamDef, bucket: &IntakeBucket) {
    let counts = &bucket.counts;
    table
        .text(&stream.name)
        .maybe_text(None)
        .text("ingest")
        .maybe_int(bucket.partition.map(i64::from))
        .maybe_time(Some(bucket.bucket_us))
        .int(counts.received as i64)
        .int(counts.replayed as i64)
        .int(counts.accepted as i64)
        .int(counts.duplicates as i64)
        .int(counts.conflicts as i64)
        .int(counts.quarantined as i64)
        .int(bucket.landed as i64)
        .int(counts.accepted.saturating_sub(bucket.landed) as i64);
    for _ in 0..4 {
        table.maybe_int(None);
    }
    table.int(0).int(balance(counts.balance()));
}

fn add_view(table: &mut Table, stream: &StreamDef, view: &ViewDef, snapshot: &ViewSnapshot) {
    for partition in 0..stream.partitions as usize {
        let batch = snapshot.manifest.as_ref().and_then(|manifest| manifest.ledger.get(partition));
        if let Some(counts) = batch {
            add_counts(table, (stream, view, "batch"), partition, counts);
        }
        let ranges = snapshot.ranges.iter().filter_map(|range| range.ledger.get(partition));
        add_counts(table, (stream, view, "speed"), partition, &LedgerCounts::sum(ranges));
    }
}

fn add_counts(
    table: &mut Table,
    (stream, view, layer): (&StreamDef, &ViewDef, &str),
    partition: usize,
    counts: &LedgerCounts,
) {
    table.text(&stream.name).text(&view.name).text(layer).int(partition as i64).maybe_time(None);
    for _ in 0..8 {
        table.maybe_int(None);
    }
    table
        .int(counts.records as i64)
        .int(counts.counted as i64)
        .int(counts.filtered as i64)
        .int(counts.late as i64)
        .int(0)
        .int(balance(counts.balance()));
}

fn balance(balance: i128) -> i64 {
    i64::try_from(balance).unwrap_or(i64::MAX)
}
