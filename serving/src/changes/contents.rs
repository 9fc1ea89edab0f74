//! All rows of a view as keys and hashes: for the rare step that has to compare whole views.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use schemas::limits::{CHANGE_COMPARED_ROWS_MAX, CHANGE_DIFFERING_ROWS_MAX};
use schemas::{Code, Problem};
use storage::snapshot::ViewSnapshot;

use super::Changes;
use super::shape::Shape;
use crate::engine::{QueryEngine, stream_problem};

type Contents = BTreeMap<Box<[u8]>, u128>;

/// What differs between two snapshots of a view; with `all`, everything that is in the second one. None if the view is
/// too large to be compared.
pub(super) async fn compare(
    (engine, shape, name): (&QueryEngine, &Shape, &str),
    before: Option<&Arc<ViewSnapshot>>,
    after: &Arc<ViewSnapshot>,
) -> Result<Option<Vec<Changes>>, Problem> {
    let mut known = Contents::new();
    if let Some(before) = before {
        let mut rows = engine.stream_view(&shape.view, name, Arc::clone(before)).await?;
        while let Some(part) = rows.next().await {
            known.extend(shape.hashed(&part.map_err(|e| stream_problem(&e))?)?);
            if known.len() > CHANGE_COMPARED_ROWS_MAX {
                return Ok(None);
            }
        }
    }
    let (none, version) = (shape.decoded(&[])?, after.to.total());
    let (mut changes, mut differing) = (vec![], 0);
    let mut rows = engine.stream_view(&shape.view, name, Arc::clone(after)).await?;
    while let Some(part) = rows.next().await {
        let part = part.map_err(|e| stream_problem(&e))?;
        let hashed = (0u32..).zip(shape.hashed(&part)?);
        let wanted: Vec<u32> =
            hashed.filter(|(_, (key, hash))| known.remove(key) != Some(*hash)).map(|(row, _)| row).collect();
        differing += wanted.len();
        if differing > CHANGE_DIFFERING_ROWS_MAX {
            return Ok(None);
        }
        if !wanted.is_empty() {
            let upserts = picked(&part, wanted)?;
            changes.push(Changes { version, upserts, deletes: none.clone() });
        }
    }
    let gone: Vec<Box<[u8]>> = known.into_keys().collect();
    if !gone.is_empty() && !shape.is_one_row() {
        let upserts = RecordBatch::new_empty(shape.view.output_schema());
        changes.push(Changes { version, upserts, deletes: shape.decoded(&gone)? });
    }
    Ok(Some(changes))
}

/// Some rows of a batch.
pub(super) fn picked(rows: &RecordBatch, wanted: Vec<u32>) -> Result<RecordBatch, Problem> {
    take_record_batch(rows, &UInt32Array::from(wanted)).map_err(|e| Problem::new(Code::Internal, e.to_string()))
}
