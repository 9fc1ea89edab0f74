//! Records with arrays in pieces: what `UNNEST` makes of a piece fits into memory.

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray, ListArray};

/// Splits `rows` records at the latest where their arrays have `items_max` items together; a record is never split.
pub(super) fn by_items(columns: &[ArrayRef], rows: usize, items_max: usize) -> Vec<Range<usize>> {
    let lists: Vec<&ListArray> = columns.iter().filter_map(|column| column.as_list_opt::<i32>()).collect();
    let items_of = |row: usize| lists.iter().map(|list| list.value_length(row).max(0) as usize).sum::<usize>();
    let (mut pieces, mut start, mut items) = (vec![], 0, 0);
    for row in 0..rows {
        let own = items_of(row);
        if row > start && items + own > items_max {
            pieces.push(start..row);
            (start, items) = (row, 0);
        }
        items += own;
    }
    if start < rows {
        pieces.push(start..rows);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::Int64Type;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::small(vec![1, 2, 0], 3, vec![0..3])]
    #[case::cut_before(vec![2, 2, 1, 0, 3], 3, vec![0..1, 1..4, 4..5])]
    #[case::one_too_many(vec![9, 1, 9], 3, vec![0..1, 1..2, 2..3])]
    #[case::nothing(vec![], 3, vec![])]
    fn a_piece_has_so_many_items(
        #[case] lengths: Vec<usize>,
        #[case] most: usize,
        #[case] expected: Vec<Range<usize>>,
    ) {
        let list = lengths.iter().map(|length| Some(vec![Some(7); *length]));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(list));
        let other: ArrayRef = Arc::new(Int64Array::from(vec![1; lengths.len()]));
        assert_eq!(by_items(&[other, list], lengths.len(), most), expected);
    }
}
