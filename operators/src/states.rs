//! States as values: sorting by key, merging, comparing byte for byte.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow_row::{RowConverter, Rows, SortField};
use schemas::{Code, Problem};

use crate::cells::CellTable;
use crate::view::View;

fn arrow_problem(error: &arrow::error::ArrowError) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}

/// Encodes keys so that bytes compare as keys do: ascending, nulls first. Encodings of different
/// converters for the same view can be compared.
pub fn key_converter(view: &View) -> Result<RowConverter, Problem> {
    let fields = view.state_schema().fields()[..view.key_columns()].iter();
    RowConverter::new(fields.map(|field| SortField::new(field.data_type().clone())).collect())
        .map_err(|e| arrow_problem(&e))
}

/// The keys of states, encoded for comparison.
pub fn keys(view: &View, states: &RecordBatch) -> Result<Rows, Problem> {
    key_converter(view)?.convert_columns(&states.columns()[..view.key_columns()]).map_err(|e| arrow_problem(&e))
}

/// The part of an encoded key by which cells can be divided: cells that share it are merged and compared
/// together. All of the key, but for the bounds of a session.
pub fn divisible<'a>(view: &View, key: &'a [u8]) -> &'a [u8] {
    /// A point in time: one byte for null or not, eight for the value.
    const TIME_BYTES: usize = 9;
    if view.makes_sessions() { &key[..key.len().saturating_sub(2 * TIME_BYTES)] } else { key }
}

/// Sorts states by key.
pub fn sort(view: &View, states: &RecordBatch) -> Result<RecordBatch, Problem> {
    let keys = keys(view, states)?;
    let mut order: Vec<u32> = (0..states.num_rows() as u32).collect();
    order.sort_unstable_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
    take_record_batch(states, &UInt32Array::from(order)).map_err(|e| arrow_problem(&e))
}

/// Merges states (⊕): sorted by key, each key once. Equal multisets of records give equal bytes.
pub fn merge(view: &View, parts: &[RecordBatch]) -> Result<RecordBatch, Problem> {
    if view.is_of_rows()
        && let Some(united) = unite(view, parts)?
    {
        return Ok(united);
    }
    let mut table = CellTable::merging(view)?;
    for part in parts {
        table.merge(part)?;
    }
    match table.take()? {
        Some(states) => sort(view, &states),
        None => Ok(RecordBatch::new_empty(Arc::clone(view.state_schema()))),
    }
}

/// The union of cells that are one row each, sorted by key; none if a key is there twice, which only a record
/// that was counted twice can lead to: then evidence has to be added up.
fn unite(view: &View, parts: &[RecordBatch]) -> Result<Option<RecordBatch>, Problem> {
    let all = concat_batches(view.state_schema(), parts).map_err(|e| arrow_problem(&e))?;
    let keys = keys(view, &all)?;
    let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
    order.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
    if order.windows(2).any(|pair| keys.row(pair[0] as usize) == keys.row(pair[1] as usize)) {
        return Ok(None);
    }
    take_record_batch(&all, &UInt32Array::from(order)).map(Some).map_err(|e| arrow_problem(&e))
}

/// True if row `a` of `left` and row `b` of `right` have the same bytes in a column.
pub fn same_value(left: &dyn Array, a: usize, right: &dyn Array, b: usize) -> bool {
    left.slice(a, 1).to_data() == right.slice(b, 1).to_data()
}
