//! When a row is final: the one place of mode `append` that decides it.

use arrow::array::BooleanArray;
use arrow::record_batch::RecordBatch;
use operators::Frontier;
use schemas::Problem;

use super::shape::Shape;
use crate::engine::Covered;

/// The watermark that all partitions have passed at the position of a snapshot; none while there is one without an event.
pub(super) fn watermark_us(covered: &Covered) -> Option<i64> {
    covered.stream.watermark_us(covered.watermark_delay_us)
}

/// Of each key, whether no record that is in time can change its row any more.
pub(super) fn final_rows(
    shape: &Shape,
    keys: &RecordBatch,
    watermark_us: Option<i64>,
) -> Result<BooleanArray, Problem> {
    let cells = shape.as_stored(keys)?;
    // positions close none of its windows: a view of those is refused
    let frontier = Frontier { watermark_us, ends: vec![] };
    let flags = shape.view.final_windows(&cells, &frontier)?;
    Ok(flags.unwrap_or_else(|| BooleanArray::from(vec![false; keys.num_rows()])))
}
