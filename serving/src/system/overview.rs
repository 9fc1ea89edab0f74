//! `system.streams`, `system.views`, `system.runs`, `system.certificates`, `system.queries`.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use schemas::documents::run::RunDocument;
use schemas::view::Refresh;
use schemas::{Catalog, Problem, Verdict, ViewDef};
use storage::snapshot::ViewSnapshot;

use super::rows::Table;
use super::{LISTED_MAX, Listed, Parts};
use crate::engine::{History, Snapshots};

pub(super) async fn streams(
    parts: &Parts,
    catalog: &Catalog,
    snapshots: &mut Snapshots<'_>,
) -> Result<RecordBatch, Problem> {
    let mut table = Table::new(&[
        ("name", "t"),
        ("id", "t"),
        ("partitions", "i"),
        ("primary_key", "t"),
        ("time_column", "t"),
        ("late", "t"),
        ("records", "i"),
        ("created_at", "z"),
        ("log", "t"),
        ("topic", "t"),
        ("topic_id", "t"),
        ("brokers", "t"),
        ("topic_lag", "i"),
        ("holes", "i"),
        ("problem", "t"),
    ]);
    for stream in &catalog.streams {
        let source = parts.logs.source(stream.id);
        let source = source.as_ref();
        let records = snapshots.of(stream).await.ok().map(|snapshot| snapshot.to.total() as i64);
        let late = format!("{:?}", stream.late).to_lowercase();
        table
            .text(&stream.name)
            .text(&stream.id.to_string())
            .int(i64::from(stream.partitions))
            .text(&stream.primary_key.join(", "))
            .maybe_text(stream.time_column.as_deref())
            .text(&late)
            .maybe_int(records)
            .maybe_time(Some(stream.created_at_us))
            .text(stream.transport.log.as_str())
            .maybe_text(source.map(|source| source.topic.as_str()))
            .maybe_text(source.and_then(|source| source.topic_id).map(|id| id.to_string()).as_deref())
            .maybe_text(source.map(|source| source.brokers.as_str()))
            .maybe_int(source.and_then(|source| source.lag_records).map(|lag| lag as i64))
            .maybe_int(source.map(|source| source.holes.len() as i64))
            .maybe_text(source.and_then(|source| source.problem.as_deref()));
    }
    table.finish()
}

/// A schedule as `CREATE` writes it.
pub(crate) fn refresh_text(refresh: &Refresh) -> String {
    match refresh {
        Refresh::Cron { expression, time_zone } => format!("CRON '{expression}' TIME ZONE '{time_zone}'"),
        Refresh::Every { interval_us } => format!("EVERY INTERVAL '{} seconds'", *interval_us as f64 / 1e6),
        Refresh::Manual => "MANUAL".into(),
        Refresh::Never => "NEVER".into(),
    }
}

/// The streams of some views, each once, in their order.
pub(crate) fn streams_of(catalog: &Catalog, views: &[&ViewDef]) -> String {
    let mut names: Vec<&str> = vec![];
    for stream in views.iter().filter_map(|view| catalog.stream_by_id(view.stream)) {
        if !names.contains(&stream.name.as_str()) {
            names.push(&stream.name);
        }
    }
    names.join(", ")
}

/// What stands in a row of `system.views`.
#[derive(Default)]
struct Standing {
    ready: bool,
    run: Option<u64>,
    verdict: Option<Verdict>,
    published_at_us: Option<i64>,
    batch_cells: Option<u64>,
    speed_cells: Option<usize>,
}

impl Standing {
    fn of(snapshot: Option<&Arc<ViewSnapshot>>) -> Self {
        let Some(snapshot) = snapshot else { return Self::default() };
        let manifest = snapshot.manifest.as_ref();
        Self {
            ready: snapshot.has_history(),
            run: manifest.map(|manifest| manifest.run),
            verdict: manifest.map(|manifest| manifest.verdict),
            published_at_us: manifest.map(|manifest| manifest.published_at_us),
            batch_cells: manifest.map(|manifest| manifest.cells),
            speed_cells: Some(snapshot.ranges.iter().map(|range| range.cells()).sum()),
        }
    }

    /// Of a union: the worst of its parts, which each have runs of their own. What one of them lacks, it lacks.
    fn together(parts: &[Self]) -> Self {
        let all = |known: bool| known && !parts.is_empty();
        let published = all(parts.iter().all(|part| part.run.is_some()));
        Self {
            ready: all(parts.iter().all(|part| part.ready)),
            run: None,
            verdict: parts.iter().filter_map(|part| part.verdict).max().filter(|_| published),
            published_at_us: parts.iter().filter_map(|part| part.published_at_us).min().filter(|_| published),
            batch_cells: published.then(|| parts.iter().filter_map(|part| part.batch_cells).sum()),
            speed_cells: Some(parts.iter().filter_map(|part| part.speed_cells).sum()),
        }
    }
}

pub(super) async fn views(catalog: &Catalog, snapshots: &mut Snapshots<'_>) -> Result<RecordBatch, Problem> {
    let mut table = Table::new(&[
        ("name", "t"),
        ("id", "t"),
        ("version", "i"),
        ("stream", "t"),
        ("refresh", "t"),
        ("ready", "b"),
        ("run", "i"),
        ("verdict", "t"),
        ("published_at", "z"),
        ("batch_cells", "i"),
        ("speed_cells", "i"),
        ("definition", "t"),
        ("created_at", "z"),
    ]);
    for view in &catalog.views {
        let standing = standing(catalog, snapshots, view).await;
        table.text(&view.name).text(&view.id.to_string()).int(i64::from(view.version));
        table.text(&streams_of(catalog, &[view])).text(&refresh_text(&view.refresh));
        add_standing(&mut table, &standing, &view.sql, view.created_at_us);
    }
    for union in &catalog.unions {
        let parts = catalog.parts(&union.name).unwrap_or_default();
        let mut standings = vec![];
        for part in &parts {
            standings.push(standing(catalog, snapshots, part).await);
        }
        table.text(&union.name).text(&union.id.to_string()).int(i64::from(union.version));
        table.text(&streams_of(catalog, &parts)).text(&refresh_text(&union.refresh));
        add_standing(&mut table, &Standing::together(&standings), &union.sql, union.created_at_us);
    }
    table.finish()
}

async fn standing(catalog: &Catalog, snapshots: &mut Snapshots<'_>, view: &ViewDef) -> Standing {
    let Some(stream) = catalog.stream_by_id(view.stream) else { return Standing::default() };
    let taken = snapshots.of(stream).await.ok();
    Standing::of(taken.as_ref().and_then(|taken| taken.views.get(&view.id)))
}

fn add_standing(table: &mut Table, standing: &Standing, definition: &str, created_at_us: i64) {
    table
        .truth(standing.ready)
        .maybe_int(standing.run.map(|run| run as i64))
        .maybe_text(standing.verdict.map(Verdict::as_str))
        .maybe_time(standing.published_at_us)
        .maybe_int(standing.batch_cells.map(|cells| cells as i64))
        .maybe_int(standing.speed_cells.map(|cells| cells as i64))
        .text(definition)
        .maybe_time(Some(created_at_us));
}

/// `full`, `manual`, … as the stored document writes it.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) async fn runs(parts: &Parts) -> Result<Listed, Problem> {
    let mut table = Table::new(&[
        ("id", "i"),
        ("view", "t"),
        ("kind", "t"),
        ("trigger", "t"),
        ("state", "t"),
        ("phase", "t"),
        ("rows", "i"),
        ("rows_total", "i"),
        ("rows_per_second", "f"),
        ("eta_ms", "i"),
        ("queued_at", "z"),
        ("started_at", "z"),
        ("finished_at", "z"),
        ("verdict", "t"),
        ("error", "t"),
    ]);
    // one more than is shown, to know whether there is more
    let runs = parts.runs.runs(None, LISTED_MAX + 1).await?;
    for run in runs.iter().take(LISTED_MAX) {
        add_run(&mut table, run);
    }
    Ok(Listed { rows: vec![table.finish()?], cut: runs.len() > LISTED_MAX })
}

fn add_run(table: &mut Table, run: &RunDocument) {
    table
        .int(run.id as i64)
        .text(&run.view)
        .text(&word(&run.kind))
        .text(&word(&run.trigger))
        .text(&word(&run.state))
        .text(&run.phase)
        .int(run.rows as i64)
        .int(run.rows_total as i64)
        .maybe_float(Some(run.rows_per_second))
        .maybe_int(run.eta_ms.map(|eta| eta as i64))
        .maybe_time(Some(run.queued_at_us))
        .maybe_time(run.started_at_us)
        .maybe_time(run.finished_at_us)
        .maybe_text(run.verdict.map(schemas::Verdict::as_str))
        .maybe_text(run.error.as_deref());
}

pub(super) async fn certificates(parts: &Parts, catalog: &Catalog) -> Result<Listed, Problem> {
    let mut table = Table::new(&[
        ("run", "i"),
        ("view", "t"),
        ("verdict", "t"),
        ("base_run", "i"),
        ("appended", "i"),
        ("counted", "i"),
        ("filtered", "i"),
        ("late", "i"),
        ("cells_compared", "i"),
        ("cells_differing", "i"),
        ("oracle_sampled", "i"),
        ("oracle_differing", "i"),
        ("violations", "t"),
        ("audit_ms", "i"),
        ("created_at", "z"),
    ]);
    let mut cut = false;
    for view in &catalog.views {
        let certificates = parts.runs.certificates(&view.name, LISTED_MAX + 1).await?;
        cut |= certificates.len() > LISTED_MAX;
        for one in certificates.iter().take(LISTED_MAX) {
            table
                .int(one.run as i64)
                .text(&one.view)
                .text(one.verdict.as_str())
                .maybe_int(one.base_run.map(|run| run as i64))
                .int(one.ledger.appended as i64)
                .int(one.ledger.batch.counted as i64)
                .int(one.ledger.batch.filtered as i64)
                .int(one.ledger.batch.late as i64)
                .int(one.cells.compared as i64)
                .int(one.cells.differing as i64)
                .int(one.oracle.sampled as i64)
                .int(one.oracle.differing as i64)
                .text(&one.violations.join("; "))
                .int(one.audit_ms as i64)
                .maybe_time(Some(one.created_at_us));
        }
    }
    Ok(Listed { rows: vec![table.finish()?], cut })
}

pub(super) fn queries(history: &History) -> Result<RecordBatch, Problem> {
    let mut table = Table::new(&[
        ("id", "t"),
        ("state", "t"),
        ("started_at", "z"),
        ("elapsed_ms", "f"),
        ("rows", "i"),
        ("cells_read", "i"),
        ("sql", "t"),
    ]);
    for query in history.all() {
        table
            .text(&query.id.to_string())
            .text(query.state)
            .maybe_time(Some(query.started_at_us))
            .maybe_float(query.elapsed_ms)
            .maybe_int(query.rows.map(|rows| rows as i64))
            .maybe_int(query.cells_read.map(|cells| cells as i64))
            .text(&query.sql);
    }
    table.finish()
}
