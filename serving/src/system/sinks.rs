//! `system.sinks`: where the changes of views go, and how far they are.

use arrow::record_batch::RecordBatch;
use schemas::{Catalog, Problem};

use super::rows::Table;
use crate::engine::Snapshots;
use crate::sinks::SinkBook;

pub(crate) async fn sinks(
    book: &SinkBook,
    catalog: &Catalog,
    snapshots: &mut Snapshots<'_>,
) -> Result<RecordBatch, Problem> {
    let mut table = Table::new(&[
        ("name", "t"),
        ("view", "t"),
        ("type", "t"),
        ("mode", "t"),
        ("place", "t"),
        ("state", "t"),
        ("lag", "i"),
        ("rows", "i"),
        ("delivered_at", "z"),
        ("retries", "i"),
        ("error", "t"),
        ("every_ms", "i"),
        ("created_at", "z"),
    ]);
    for sink in &catalog.sinks {
        let Some(view) = catalog.view_by_id(sink.view) else { continue };
        let status = book.status(sink.id);
        let status = status.as_ref();
        let stream = catalog.stream_by_id(view.stream);
        let head = match stream {
            Some(stream) => snapshots.of(stream).await.ok().map(|snapshot| snapshot.to.clone()),
            None => None,
        };
        let reached = status.and_then(|status| status.to.clone()).unwrap_or_default();
        table
            .text(&sink.name)
            .text(&view.name)
            .text(sink.target.kind())
            .text(sink.mode.as_str())
            .text(&sink.target.place())
            .maybe_text(status.map(|status| status.state.as_str()))
            .maybe_int(head.map(|head| reached.records_until(&head) as i64))
            .maybe_int(status.map(|status| status.rows as i64))
            .maybe_time(status.and_then(|status| status.delivered_at_us))
            .maybe_int(status.map(|status| status.retries as i64))
            .maybe_text(status.and_then(|status| status.error.as_deref()))
            .int(sink.every_us / 1_000)
            .maybe_time(Some(sink.created_at_us));
    }
    table.finish()
}
