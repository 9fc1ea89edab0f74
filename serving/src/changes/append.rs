//! Mode `append`: each row once, when its window is final, and what late records change in it afterwards.
//!
//! ```text
//!  open      keys of rows whose window is not final yet: found once, then kept up to date by what is touched
//!  touched   final at the cursor's watermark? ── yes ──► a correction, if its values are others
//!                                             └─ no ───► open
//!  open      final at the new watermark? ─────── yes ──► handed over, once
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::{filter_record_batch, not};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use operators::view::Touched;
use schemas::limits::CHANGE_OPEN_ROWS_MAX;
use schemas::{Code, Problem};
use storage::snapshot::ViewSnapshot;

use super::Changes;
use super::finality::final_rows;
use super::shape::Shape;
use crate::engine::{QueryEngine, stream_problem};

/// Keys of rows whose window is not final.
#[derive(Debug, Default)]
pub(super) struct OpenRows(BTreeSet<Box<[u8]>>);

fn internal(error: &arrow::error::ArrowError) -> Problem {
    Problem::new(Code::Internal, format!("rows do not compare: {error}"))
}

fn kept(rows: &RecordBatch, wanted: &BooleanArray) -> Result<RecordBatch, Problem> {
    filter_record_batch(rows, wanted).map_err(|e| internal(&e))
}

impl OpenRows {
    /// The rows of a view that are not final at a watermark.
    pub(super) async fn find(
        (engine, shape, name): (&QueryEngine, &Shape, &str),
        snapshot: &Arc<ViewSnapshot>,
        watermark_us: Option<i64>,
    ) -> Result<Self, Problem> {
        let mut open = Self::default();
        let mut rows = engine.stream_view(&shape.view, name, Arc::clone(snapshot)).await?;
        while let Some(part) = rows.next().await {
            let part = part.map_err(|e| stream_problem(&e))?;
            open.split(shape, part, watermark_us)?;
        }
        Ok(open)
    }

    /// Takes the rows that are open at a watermark, and gives back those that are final.
    pub(super) fn split(
        &mut self,
        shape: &Shape,
        rows: RecordBatch,
        watermark_us: Option<i64>,
    ) -> Result<RecordBatch, Problem> {
        let keys = shape.keys_of(&rows)?;
        let is_final = final_rows(shape, &keys, watermark_us)?;
        let is_open = not(&is_final).map_err(|e| internal(&e))?;
        if is_open.true_count() == 0 {
            return Ok(rows);
        }
        self.0.extend(Shape::encoded(&kept(&keys, &is_open)?)?);
        if self.0.len() > CHANGE_OPEN_ROWS_MAX {
            let what = format!(
                "more than {CHANGE_OPEN_ROWS_MAX} rows are not final: mode append would have to remember them all"
            );
            return Err(Problem::new(Code::Unsupported, what).with_hint("use mode update"));
        }
        kept(&rows, &is_final)
    }

    /// What of changes are corrections of rows that were final; the others are open, or open no longer.
    pub(super) fn corrections(
        &mut self,
        shape: &Shape,
        changes: Changes,
        watermark_us: Option<i64>,
    ) -> Result<Changes, Problem> {
        let upserts = self.split(shape, changes.upserts, watermark_us)?;
        let was_final = final_rows(shape, &changes.deletes, watermark_us)?;
        for key in Shape::encoded(&changes.deletes)? {
            self.0.remove(&key);
        }
        let deletes = kept(&changes.deletes, &was_final)?;
        Ok(Changes { upserts, deletes, ..changes })
    }

    /// The keys that are final at a watermark; they are open no longer.
    pub(super) fn close(&mut self, shape: &Shape, watermark_us: Option<i64>) -> Result<RecordBatch, Problem> {
        let all: Vec<Box<[u8]>> = self.0.iter().cloned().collect();
        let keys = shape.decoded(&all)?;
        let is_final = final_rows(shape, &keys, watermark_us)?;
        for (key, is_final) in all.iter().zip(&is_final) {
            if is_final == Some(true) {
                self.0.remove(key);
            }
        }
        kept(&keys, &is_final)
    }

    /// The rows with these keys.
    pub(super) async fn rows(
        shape: &Shape,
        snapshot: &ViewSnapshot,
        reader: Option<&storage::batch_view::BatchViewReader>,
        keys: &RecordBatch,
    ) -> Result<RecordBatch, Problem> {
        let touched: Touched = shape.view.made_of(&shape.as_stored(keys)?)?;
        let rows = shape.rows_of(snapshot, reader, &touched).await?;
        // beside a session there may be others of the same key
        let wanted: BTreeSet<Box<[u8]>> = Shape::encoded(keys)?.into_iter().collect();
        let of_rows = Shape::encoded(&shape.keys_of(&rows)?)?;
        let meant: BooleanArray = of_rows.iter().map(|key| Some(wanted.contains(key))).collect();
        kept(&rows, &meant)
    }
}
