//! What rows take in memory, where they share buffers with other rows.
//!
//! ```text
//!  a delta  ████████████████████████  one allocation
//!  slices   ▒▒▒▒▒▒▒▒                  each keeps all of it, and Arrow's own count of each is all of it: a hundred slices
//!                   ▒▒▒▒▒▒▒▒          of one delta are counted as a hundred deltas
//!                           ▒▒▒▒▒▒▒▒
//! ```
//!
//! Where rows are counted in parts, either what is in each part counts ([`bytes_of`]), or each part is a copy
//! ([`compact`]), where others count.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteViewArray, GenericByteViewBuilder, ListArray, MutableArrayData,
    RecordBatchOptions, make_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, FieldRef, StringViewType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

/// What a column keeps beyond its values before a copy is worth it, bytes.
const WASTE_BYTES_MAX: usize = 4_096;

/// Bytes of the values of rows: what they share with other rows counts for neither.
pub fn bytes_of(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(bytes_of_column).sum()
}

fn bytes_of_column(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => bytes_of_views(column.as_byte_view::<StringViewType>()),
        DataType::BinaryView => bytes_of_views(column.as_byte_view::<BinaryViewType>()),
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            size_of_val(lists.value_offsets()) + bytes_of_column(&values_of(lists))
        }
        _ => column.to_data().get_slice_memory_size().unwrap_or_default(),
    }
}

fn bytes_of_views<T: ByteViewType>(views: &GenericByteViewArray<T>) -> usize {
    size_of_val(views.views().as_ref()) + views.total_buffer_bytes_used()
}

/// The values of the lists that are there: a slice of lists has those of all.
fn values_of(lists: &ListArray) -> ArrayRef {
    let offsets = lists.value_offsets();
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return lists.values().slice(0, 0) };
    lists.values().slice(*first as usize, (last - first) as usize)
}

/// The same rows, the columns copied of which there is less than half of what they keep in memory. What others count of
/// them, column by column, is then about what there is.
///
/// # Errors
/// Never for columns that fit their schema.
pub fn compact(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().map(compact_column).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(rows.schema(), columns, &options)
}

/// [`compact`] of one column.
///
/// # Errors
/// As there.
pub fn compact_column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let kept = column.get_array_memory_size();
    if kept <= WASTE_BYTES_MAX || kept <= 2 * bytes_of_column(column) {
        return Ok(Arc::clone(column));
    }
    copy(column)
}

fn copy(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Utf8View => Ok(Arc::new(copy_views(column.as_byte_view::<StringViewType>()))),
        DataType::BinaryView => Ok(Arc::new(copy_views(column.as_byte_view::<BinaryViewType>()))),
        DataType::List(item) => Ok(Arc::new(copy_lists(column.as_list(), item)?)),
        _ => {
            let data = column.to_data();
            let mut copied = MutableArrayData::new(vec![&data], false, data.len());
            copied.try_extend(0, 0, data.len())?;
            Ok(make_array(copied.freeze()))
        }
    }
}

fn copy_views<T: ByteViewType>(views: &GenericByteViewArray<T>) -> GenericByteViewArray<T> {
    let bytes = views.total_buffer_bytes_used().clamp(1, i32::MAX as usize);
    let block = u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut builder = GenericByteViewBuilder::<T>::with_capacity(views.len()).with_fixed_block_size(block);
    for value in views {
        builder.append_option(value);
    }
    builder.finish()
}

fn copy_lists(lists: &ListArray, item: &FieldRef) -> Result<ListArray, ArrowError> {
    let offsets = OffsetBuffer::from_lengths(lists.offsets().lengths());
    let nulls = lists.nulls().map(|nulls| nulls.iter().collect::<NullBuffer>());
    ListArray::try_new(Arc::clone(item), offsets, copy(&values_of(lists))?, nulls)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Int64Array, ListBuilder, StringArray, StringViewArray, StringViewBuilder};
    use rstest::rstest;

    use super::*;

    const ROWS: usize = 10_000;

    fn texts() -> impl Iterator<Item = Option<String>> {
        (0..ROWS).map(|n| (n % 7 > 0).then(|| format!("a text that is not inlined, number {n}")))
    }

    fn lists() -> ListArray {
        let mut builder = ListBuilder::new(StringViewBuilder::new());
        for text in texts() {
            builder.values().append_value("another text that is not inlined");
            builder.values().append_option(text.as_deref());
            builder.append(text.is_some());
        }
        builder.finish()
    }

    #[rstest]
    #[case::texts(Arc::new(texts().collect::<StringViewArray>()))]
    #[case::short_texts(Arc::new((0..ROWS).map(|n| Some(n.to_string())).collect::<StringViewArray>()))]
    #[case::texts_with_offsets(Arc::new(texts().collect::<StringArray>()))]
    #[case::numbers(Arc::new(Int64Array::from_iter_values(0..ROWS as i64)))]
    #[case::booleans(Arc::new((0..8 * ROWS).map(|n| Some(n % 3 == 0)).collect::<BooleanArray>()))]
    #[case::lists(Arc::new(lists()))]
    fn a_slice_takes_what_is_in_it(#[case] column: ArrayRef) {
        let all = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
        let tenths: Vec<RecordBatch> =
            (0..10).map(|tenth| all.slice(tenth * all.num_rows() / 10, all.num_rows() / 10)).collect();
        let sum: usize = tenths.iter().map(bytes_of).sum();
        let whole = bytes_of(&all);
        assert!(sum.abs_diff(whole) * 20 < whole, "{sum} of {whole}");
        for tenth in tenths {
            let copied = compact(&tenth).unwrap();
            assert_eq!(copied, tenth);
            copied.column(0).to_data().validate_full().unwrap();
            let kept = copied.get_array_memory_size();
            assert!(kept < 2 * bytes_of(&tenth) + WASTE_BYTES_MAX, "{kept} for {}", bytes_of(&tenth));
        }
        let whole = compact(&all).unwrap();
        assert!(Arc::ptr_eq(whole.column(0), all.column(0)), "nothing to gain: no copy");
    }
}
