//! From panes to windows: the states of a pane, once for each window that it belongs to.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::Result;

use super::spec::{WindowRange, WindowSpec};

/// Rows that are made at once: a record in many windows must not take much memory.
const ROWS_AT_ONCE: usize = 8_192;

/// Hands on the states of panes once for each of the wanted windows that they belong to, the bound that tells
/// the window apart in place of the pane. A pane without a time is a window without bounds.
pub(crate) fn expand(
    states: &RecordBatch,
    (key, spec): (usize, &WindowSpec),
    wanted: &WindowRange,
    mut each: impl FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let panes = states.column(key).as_primitive::<TimestampMicrosecondType>();
    let (mut rows, mut bounds) = (Vec::<u32>::new(), Vec::<Option<i64>>::new());
    let mut flush = |rows: &mut Vec<u32>, bounds: &mut Vec<Option<i64>>| {
        let windows = TimestampMicrosecondArray::from(std::mem::take(bounds)).with_timezone("UTC");
        let taken = take_record_batch(states, &UInt32Array::from(std::mem::take(rows)))?;
        let mut columns: Vec<ArrayRef> = taken.columns().to_vec();
        columns[key] = Arc::new(windows);
        each(RecordBatch::try_new(states.schema(), columns)?)
    };
    for row in 0..states.num_rows() {
        if panes.is_null(row) {
            rows.push(row as u32);
            bounds.push(None);
        } else {
            for bound in spec.windows_of(panes.value(row), wanted) {
                rows.push(row as u32);
                bounds.push(Some(bound));
                if rows.len() == ROWS_AT_ONCE {
                    flush(&mut rows, &mut bounds)?;
                }
            }
        }
    }
    if rows.is_empty() { Ok(()) } else { flush(&mut rows, &mut bounds) }
}
