//! From panes to windows: the states of a pane, once for each window that it belongs to.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::common::Result;

use super::spec::{WindowRange, WindowSpec};

/// Rows that are made at once: a record in many windows must not take much memory.
const ROWS_AT_ONCE: usize = 8_192;

/// Panes by the times or the offsets that they begin with.
fn bounds_of(panes: &ArrayRef) -> Vec<Option<i64>> {
    match panes.as_primitive_opt::<Int64Type>() {
        Some(offsets) => offsets.iter().collect(),
        None => panes.as_primitive::<TimestampMicrosecondType>().iter().collect(),
    }
}

/// Hands on the states of panes once for each of the wanted windows that they belong to, the bound that tells
/// the window apart in place of the pane. A pane without a time is a window without bounds.
pub(crate) fn expand(
    states: &RecordBatch,
    (key, spec): (usize, &WindowSpec),
    wanted: &WindowRange,
    mut each: impl FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let panes = bounds_of(states.column(key));
    let (mut rows, mut bounds) = (Vec::<u32>::new(), Vec::<Option<i64>>::new());
    let mut flush = |rows: &mut Vec<u32>, bounds: &mut Vec<Option<i64>>| {
        let bounds = std::mem::take(bounds);
        let windows: ArrayRef = if spec.is_counted() {
            Arc::new(Int64Array::from(bounds))
        } else {
            Arc::new(TimestampMicrosecondArray::from(bounds).with_timezone("UTC"))
        };
        let taken = take_record_batch(states, &UInt32Array::from(std::mem::take(rows)))?;
        let mut columns: Vec<ArrayRef> = taken.columns().to_vec();
        columns[key] = windows;
        each(RecordBatch::try_new(states.schema(), columns)?)
    };
    for (row, pane) in (0_u32..).zip(panes) {
        let Some(pane) = pane else {
            rows.push(row);
            bounds.push(None);
            continue;
        };
        for bound in spec.windows_of(pane, wanted) {
            rows.push(row);
            bounds.push(Some(bound));
            if rows.len() == ROWS_AT_ONCE {
                flush(&mut rows, &mut bounds)?;
            }
        }
    }
    if rows.is_empty() { Ok(()) } else { flush(&mut rows, &mut bounds) }
}
