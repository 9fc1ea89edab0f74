//! `GET /v1/status`: the whole platform on one page of JSON.

use std::time::Duration;

use axum::extract::State;
use schemas::documents::certificate::by_partition;
use schemas::documents::run::RunState;
use schemas::{Catalog, StreamDef};
use serde_json::{Value, json};

use super::{Answer, HttpState, json as json_body};
use crate::engine::lag_us;
use crate::times::rfc3339;

/// How long a stream may take to say where it is.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);
/// Runs looked at for those that are not final yet.
const RUNS_LOOKED_AT: usize = 100;

pub(super) async fn status(State(state): State<HttpState>) -> Answer {
    let parts = &state.engine.parts;
    let catalog = parts.catalogs.current();
    let mut streams = vec![];
    for stream in &catalog.streams {
        streams.push(stream_status(&state, &catalog, stream).await);
    }
    let runs = parts.runs.runs(None, RUNS_LOOKED_AT).await?;
    let count = |wanted: RunState| runs.iter().filter(|run| run.state == wanted).count();
    json_body(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now": rfc3339(parts.clock.now_us()),
        "catalog": catalog.sequence,
        "streams": streams,
        "runs": { "queued": count(RunState::Queued), "running": count(RunState::Running) },
        "queries": { "running": state.engine.history.running(), "limit": parts.limits.queries_at_once },
    }))
}

async fn stream_status(state: &HttpState, catalog: &Catalog, stream: &StreamDef) -> Value {
    let parts = &state.engine.parts;
    let head = parts.logs.log(stream.id).map(|log| log.head()).unwrap_or_default();
    let dead = parts.logs.dead_letters(stream.id).map_or(0, |log| log.head().total());
    let snapshot = match parts.snapshots.snapshot(stream.id, None, SNAPSHOT_TIMEOUT).await {
        Ok(snapshot) => snapshot,
        Err(problem) => return json!({ "stream": stream.name, "head": head.total(), "problem": problem.detail }),
    };
    let views: Vec<Value> = catalog
        .views_of(stream.id)
        .map(|view| {
            let taken = snapshot.views.get(&view.id);
            let manifest = taken.and_then(|taken| taken.manifest.as_ref());
            json!({
                "view": view.name,
                "ready": taken.is_some_and(|taken| taken.has_history()),
                "run": manifest.map(|manifest| manifest.run),
                "verdict": manifest.map(|manifest| manifest.verdict),
                "published_at": manifest.map(|manifest| rfc3339(manifest.published_at_us)),
                "batch_cells": manifest.map_or(0, |manifest| manifest.cells),
                "speed_cells": taken.map_or(0, |taken| taken.ranges.iter().map(|range| range.cells()).sum::<usize>()),
            })
        })
        .collect();
    json!({
        "stream": stream.name,
        "records": head.total(),
        "head": by_partition(&head),
        "folded": by_partition(&snapshot.to),
        "lag_ms": lag_us(&snapshot, parts.clock.now_us()) / 1_000,
        "dead_letters": dead,
        "views": views,
    })
}
