//! What rows take in memory.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::record_batch::RecordBatch;

/// Bytes of the values of rows: what they share with other rows counts for neither.
pub fn bytes_of(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(bytes_of_column).sum()
}

fn bytes_of_column(column: &ArrayRef) -> usize {
    if let Some(strings) = column.as_string_view_opt() {
        return strings.len() * size_of::<u128>() + strings.total_buffer_bytes_used();
    }
    if let Some(bytes) = column.as_binary_view_opt() {
        return bytes.len() * size_of::<u128>() + bytes.total_buffer_bytes_used();
    }
    column.to_data().get_slice_memory_size().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn a_slice_takes_what_is_in_it() {
        let texts: StringViewArray =
            (0..1_000).map(|n| Some(format!("a text that is not inlined, number {n}"))).collect();
        let numbers = Int64Array::from_iter_values(0..1_000);
        let columns: [(&str, ArrayRef); 2] = [("t", Arc::new(texts)), ("n", Arc::new(numbers))];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let (all, tenth) = (bytes_of(&rows), bytes_of(&rows.slice(100, 100)));
        assert!((50_000..90_000).contains(&all), "{all}");
        assert!(tenth * 9 < all && all < tenth * 11, "{tenth} of {all}");
    }
}
