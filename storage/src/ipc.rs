//! Arrow IPC for stored bytes: compact rows, one-message encodings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, GenericByteViewBuilder};
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, SchemaRef, StringViewType};
use arrow::error::ArrowError;
use arrow::ipc::root_as_message;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

/// Views up to this length hold their bytes themselves (Arrow columnar format, "variable-size binary view").
const INLINE_BYTES: u32 = 12;
/// Before the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Waste of a view column below which a copy is not worth it, bytes.
const WASTE_BYTES_MAX: usize = 4_096;

/// The same rows without the parts of shared buffers that they do not use: what is written and kept
/// of a slice is the slice.
pub(crate) fn compact(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    map_columns(rows, |column| match column.data_type() {
        DataType::Utf8View => compact_views::<StringViewType>(column),
        DataType::BinaryView => compact_views::<BinaryViewType>(column),
        _ => Arc::clone(column),
    })
}

/// The same rows in the one layout that depends on their values alone (invariant I5).
pub(crate) fn canonical(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    map_columns(rows, |column| match column.data_type() {
        DataType::Utf8View => Arc::new(rebuild(column.as_byte_view::<StringViewType>())),
        DataType::BinaryView => Arc::new(rebuild(column.as_byte_view::<BinaryViewType>())),
        _ => Arc::clone(column),
    })
}

/// The same columns under another schema object, with its types checked.
pub(crate) fn with_schema(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), rows.columns().to_vec(), &options)
}

/// Refuses a stream with a compressed message: Bifold writes none, and Arrow's reader takes as much memory as such a
/// message claims to have been, however much that is.
pub(crate) fn check_uncompressed(mut stream: &[u8]) -> Result<(), String> {
    while let Some(Encapsulated { metadata, rest }) = next_message(stream)? {
        let message = root_as_message(metadata).map_err(|cause| cause.to_string())?;
        if message.header_as_record_batch().is_some_and(|rows| rows.compression().is_some()) {
            return Err("a compressed message".into());
        }
        let body = usize::try_from(message.bodyLength()).map_err(|cause| cause.to_string())?;
        stream = rest.get(body..).ok_or("the end of a message is missing")?;
    }
    Ok(())
}

/// A message of a stream: its metadata, and what is behind it, its body first.
struct Encapsulated<'a> {
    metadata: &'a [u8],
    rest: &'a [u8],
}

/// The next message of a stream; none at the end. (Arrow columnar format, "encapsulated message format"; the marker
/// before the length is missing in old streams.)
fn next_message(stream: &[u8]) -> Result<Option<Encapsulated<'_>>, String> {
    let unmarked = stream.strip_prefix(&CONTINUATION).unwrap_or(stream);
    let Some((length, rest)) = unmarked.split_first_chunk().filter(|(length, _)| **length != [0; 4]) else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|cause| cause.to_string())?;
    let (metadata, rest) = rest.split_at_checked(length).ok_or("the metadata of a message is cut")?;
    Ok(Some(Encapsulated { metadata, rest }))
}

fn map_columns(rows: &RecordBatch, map: impl Fn(&ArrayRef) -> ArrayRef) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(rows.schema(), rows.columns().iter().map(map).collect(), &options)
}

fn compact_views<T: ByteViewType>(column: &ArrayRef) -> ArrayRef {
    let views = column.as_byte_view::<T>();
    let held: usize = views.data_buffers().iter().map(arrow::buffer::Buffer::len).sum();
    if held <= WASTE_BYTES_MAX || held <= 2 * views.total_buffer_bytes_used() {
        return Arc::clone(column);
    }
    if has_views_below_nulls(views) {
        return Arc::new(rebuild(views));
    }
    Arc::new(views.gc())
}

/// True if a null slot still has a view into a buffer, which `gc` would leave dangling.
fn has_views_below_nulls<T: ByteViewType>(views: &GenericByteViewArray<T>) -> bool {
    views.nulls().is_some_and(|nulls| {
        nulls.iter().zip(views.views().iter()).any(|(is_valid, view)| !is_valid && (*view as u32) > INLINE_BYTES)
    })
}

/// One buffer, the values in order of the rows, null slots zero.
fn rebuild<T: ByteViewType>(views: &GenericByteViewArray<T>) -> GenericByteViewArray<T> {
    let bytes = views.total_buffer_bytes_used().min(i32::MAX as usize).max(1);
    let block = u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut builder = GenericByteViewBuilder::<T>::with_capacity(views.len()).with_fixed_block_size(block);
    for value in views {
        builder.append_option(value);
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, StringViewArray};
    use arrow::compute::nullif;

    fn rows(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("s", column, true)]).unwrap()
    }

    fn held(rows: &RecordBatch) -> usize {
        rows.column(0).as_string_view().data_buffers().iter().map(arrow::buffer::Buffer::len).sum()
    }

    #[test]
    fn slice_keeps_only_its_own_bytes() {
        let long: Vec<String> = (0..1_000).map(|n| format!("a string that is not inlined {n}")).collect();
        let all = rows(Arc::new(StringViewArray::from_iter_values(&long)));
        let part = all.slice(500, 10);
        assert!(held(&part) > 20_000);
        let small = compact(&part).unwrap();
        assert_eq!(small, part);
        assert!(held(&small) < 400, "{}", held(&small));
        assert!(Arc::ptr_eq(compact(&all).unwrap().column(0), all.column(0)), "nothing to gain: no copy");
    }

    #[test]
    fn value_below_a_null_does_not_dangle() {
        let long: Vec<String> = (0..1_000).map(|n| format!("a string that is not inlined {n}")).collect();
        let strings = StringViewArray::from_iter_values(&long);
        let all_null = nullif(&strings, &BooleanArray::from(vec![true; 1_000])).unwrap();
        let small = compact(&rows(all_null)).unwrap();
        assert_eq!(small.column(0).null_count(), 1_000);
        small.column(0).to_data().validate_full().unwrap();
    }

    #[test]
    fn canonical_layout_depends_on_values_alone() {
        let long: Vec<String> = (0..100).map(|n| format!("a string that is not inlined {n}")).collect();
        let whole = rows(Arc::new(StringViewArray::from_iter_values(&long[40..60])));
        let sliced = rows(Arc::new(StringViewArray::from_iter_values(&long))).slice(40, 20);
        let (whole, sliced) = (canonical(&whole).unwrap(), canonical(&sliced).unwrap());
        let data = |rows: &RecordBatch| rows.column(0).to_data();
        assert_eq!(data(&whole).buffers(), data(&sliced).buffers());
    }
}
