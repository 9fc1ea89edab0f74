//! What is said of an event.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::util::display::array_value_to_string;
use batch::BatchView;
use ingest::dead_letters::Letter;
use operators::Folder;
use operators::cells::CellTable;
use schemas::column::APPEND_TIME;
use schemas::{Code, LedgerCounts, Problem};
use serde_json::{Map, Value, json};
use storage::snapshot::ViewSnapshot;

use super::find::Found;
use crate::platform::registry::OpenStream;

/// Cells of one event that are named; one event of a hopping window is in many.
const CELLS_MAX: usize = 100;

/// Where the record is.
pub(super) fn record(open: &OpenStream, found: &Found) -> Value {
    let append_time = found.row.column_by_name(APPEND_TIME);
    let append_time = append_time.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let landed = found.offset < open.landing.master().landed().offset(found.partition);
    json!({
        "state": "kept",
        "position": { "incarnation": open.def.incarnation, "partition": found.partition, "offset": found.offset },
        "append_time": append_time.and_then(|times| rfc3339(times.value(0))),
        "landed": landed,
        "landed_file": found.file,
    })
}

/// A dead letter with this id.
pub(super) fn letter(letter: &Letter, replayed_us: Option<i64>) -> Value {
    json!({
        "offset": letter.offset,
        "received_at": rfc3339(letter.received_us),
        "code": letter.code,
        "column": letter.column,
        "message": letter.message,
        "replayed_at": replayed_us.and_then(rfc3339),
    })
}

/// Whether a view counts the record, in which cells, and in which layer that is.
pub(super) fn view(view: &BatchView, seen: Option<&ViewSnapshot>, found: &Found) -> Result<Value, Problem> {
    let mut folder = Folder::new(&view.view)?;
    let counts = folder.fold(found.partition, found.offset, &found.row)?;
    let state = folder.take()?;
    let cells = match state.filter(|_| counts.counted > 0) {
        Some(state) if view.view.makes_windows() => {
            let mut windows = CellTable::new(&view.view)?;
            windows.merge(&state)?;
            cells(view, &windows.answer()?)?
        }
        Some(state) => cells(view, &state)?,
        None => vec![],
    };
    let (layer, run) = layer(seen, found);
    Ok(json!({
        "view": view.def.name,
        "status": if layer == "pending" { "pending" } else { class(&counts) },
        "layer": layer,
        "run": run,
        "cells": cells,
    }))
}

fn class(counts: &LedgerCounts) -> &'static str {
    match counts {
        LedgerCounts { counted: 1.., .. } => "counted",
        LedgerCounts { late: 1.., .. } => "late",
        _ => "filtered",
    }
}

/// Which layer answers for the record's position.
fn layer(seen: Option<&ViewSnapshot>, found: &Found) -> (&'static str, Option<u64>) {
    let Some(seen) = seen else { return ("pending", None) };
    let is_below = |cut: &schemas::Cut| found.offset < cut.offset(found.partition);
    match &seen.manifest {
        Some(manifest) if is_below(&manifest.cut) => ("batch", Some(manifest.run)),
        // history that no run has counted yet
        None if is_below(&seen.from) => ("pending", None),
        _ if is_below(&seen.to) => ("speed", None),
        _ => ("pending", None),
    }
}

/// The cells by their keys, under the names that the view's answer gives them.
fn cells(view: &BatchView, states: &RecordBatch) -> Result<Vec<Value>, Problem> {
    let output = view.view.output_schema();
    let keys = view.view.output_keys();
    let name = |key: usize| {
        let position = keys.iter().position(|output| *output == Some(key));
        position.map_or_else(|| format!("key {}", key + 1), |index| output.field(index).name().clone())
    };
    // one event does not tell how far its session reaches
    let keys_known = view.view.key_columns() - if view.view.makes_sessions() { 2 } else { 0 };
    let mut cells = vec![];
    for row in 0..states.num_rows().min(CELLS_MAX) {
        let mut cell = Map::new();
        for key in 0..keys_known {
            let column = states.column(key);
            let value = if column.is_null(row) {
                Value::Null
            } else {
                let text = array_value_to_string(column, row);
                text.map_err(|error| Problem::new(Code::Internal, format!("a cell's key: {error}")))?.into()
            };
            cell.insert(name(key), value);
        }
        cells.push(Value::Object(cell));
    }
    Ok(cells)
}

fn rfc3339(time_us: i64) -> Option<String> {
    let time = arrow::temporal_conversions::timestamp_us_to_datetime(time_us)?;
    Some(format!("{}Z", time.format("%Y-%m-%dT%H:%M:%S%.6f")))
}
