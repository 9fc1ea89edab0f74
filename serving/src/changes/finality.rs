//! When a row is final: the one place of mode `append` that decides it.

use std::iter;

use arrow::array::BooleanArray;
use arrow::record_batch::RecordBatch;
use schemas::Problem;

use super::shape::Shape;
use crate::engine::Covered;

/// The watermark that all partitions have passed at the position of a snapshot; none while there is one without an event.
pub(super) fn watermark_us(covered: &Covered) -> Option<i64> {
    let (times, partitions) = (&covered.stream.max_event_time_us, covered.stream.to.0.len());
    let all: Option<Vec<i64>> =
        times.iter().copied().chain(iter::repeat(None)).take(partitions.max(times.len())).collect();
    all?.into_iter().min().map(|time_us| time_us.saturating_sub(covered.watermark_delay_us))
}

/// Of each key, whether no record that is in time can change its row any more.
pub(super) fn final_rows(
    shape: &Shape,
    keys: &RecordBatch,
    watermark_us: Option<i64>,
) -> Result<BooleanArray, Problem> {
    let cells = shape.as_stored(keys)?;
    let flags = shape.view.final_windows(&cells, watermark_us)?;
    Ok(flags.unwrap_or_else(|| BooleanArray::from(vec![false; keys.num_rows()])))
}
