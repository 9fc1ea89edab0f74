//! What some cells were and what they are.

use std::collections::{BTreeMap, BTreeSet};

use arrow::record_batch::RecordBatch;
use operators::view::Touched;
use schemas::Problem;
use storage::batch_view::BatchViewReader;

use super::Changes;
use super::contents::picked;
use super::shape::Shape;
use super::step::Step;

/// Cells that are looked at at once.
const CHUNK_CELLS: usize = 8_192;

/// Touched cells in pieces: of windows that share records, and of sessions, all are one piece.
pub(super) fn pieces(shape: &Shape, touched: &Touched) -> Vec<Touched> {
    let rows = touched.answered.num_rows();
    if shape.view.makes_windows() {
        return vec![Touched { answered: touched.answered.clone(), stored: touched.stored.clone() }];
    }
    let piece = |from: usize| {
        let length = CHUNK_CELLS.min(rows - from);
        Touched { answered: touched.answered.slice(from, length), stored: touched.stored.slice(from, length) }
    };
    (0..rows).step_by(CHUNK_CELLS).map(piece).collect()
}

/// What has changed in the rows of these cells.
pub(super) async fn compare(
    shape: &Shape,
    step: &Step,
    readers: (Option<&BatchViewReader>, Option<&BatchViewReader>),
    touched: &Touched,
) -> Result<Changes, Problem> {
    let before = shape.rows_of(&step.before, readers.0, touched).await?;
    let after = shape.rows_of(&step.after, readers.1, touched).await?;
    let mut known: BTreeMap<Box<[u8]>, u128> = shape.hashed(&before)?.into_iter().collect();
    let (mut wanted, mut there) = (vec![], BTreeSet::new());
    for (row, (key, hash)) in (0u32..).zip(shape.hashed(&after)?) {
        if known.remove(&key) != Some(hash) || !step.is_known {
            wanted.push(row);
        }
        if !step.is_known {
            there.insert(key);
        }
    }
    let mut gone: BTreeSet<Box<[u8]>> = known.into_keys().collect();
    if !step.is_known {
        // whether the reader has them is not known: it does no harm to say that they are not there
        gone.extend(Shape::encoded(&touched.answered)?.into_iter().filter(|key| !there.contains(key)));
    }
    let gone: Vec<Box<[u8]>> = gone.into_iter().collect();
    let upserts = if wanted.is_empty() { RecordBatch::new_empty(after.schema()) } else { picked(&after, wanted)? };
    Ok(Changes { version: step.after.to.total(), upserts, deletes: shape.decoded(&gone)? })
}
