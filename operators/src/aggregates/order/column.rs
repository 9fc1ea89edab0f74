//! A column of keys or values, row by row as sortable bytes.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use datafusion::common::{Result, exec_err};

use super::Direction;
use crate::aggregates::groups::Rows;
use crate::aggregates::types::byte_slices;
use crate::aggregates::values::{Kind, Narrow, Values, Wide, Widest, kind_of};

/// The byte before a key that is not null.
pub(super) const VALUE: u8 = 1;

/// A column of sortable values.
pub(crate) struct Column<'a> {
    values: Sorted<'a>,
    nulls: Option<NullBuffer>,
}

enum Sorted<'a> {
    Narrow(Vec<u64>),
    Wide(Vec<u128>),
    Widest(Vec<[u128; 2]>),
    Bytes(Vec<&'a [u8]>),
}

impl<'a> Column<'a> {
    /// The rows of an array.
    pub(crate) fn of(array: &'a ArrayRef) -> Result<Self> {
        let values = match kind_of(array.data_type()) {
            Some(Kind::Narrow) => Sorted::Narrow(numbers::<Narrow, u64>(array)?),
            Some(Kind::Wide) => Sorted::Wide(numbers::<Wide, u128>(array)?),
            Some(Kind::Widest) => Sorted::Widest(numbers::<Widest, [u128; 2]>(array)?),
            Some(Kind::Bytes) => Sorted::Bytes(byte_slices(array)?),
            None => return exec_err!("{} has no order here", array.data_type()),
        };
        Ok(Self { values, nulls: array.logical_nulls() })
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// `0` for NULL, else `1` and the value to the end.
    #[inline]
    pub(crate) fn write_value(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(0);
            return;
        }
        out.push(1);
        self.write(row, out);
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        match &self.values {
            Sorted::Narrow(values) => out.extend_from_slice(&values[row].to_be_bytes()),
            Sorted::Wide(values) => out.extend_from_slice(&values[row].to_be_bytes()),
            Sorted::Widest(values) => values[row].iter().for_each(|half| out.extend_from_slice(&half.to_be_bytes())),
            Sorted::Bytes(values) => out.extend_from_slice(values[row]),
        }
    }

    /// The value as a key: no key is the beginning of another.
    #[inline]
    pub(crate) fn write_key(&self, row: usize, direction: Direction, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(if direction.nulls_first { 0 } else { 2 });
            return;
        }
        out.push(VALUE);
        let start = out.len();
        match &self.values {
            Sorted::Bytes(values) => write_terminated(values[row], out),
            _ => self.write(row, out),
        }
        if direction.descending {
            for byte in &mut out[start..] {
                *byte = !*byte;
            }
        }
    }
}

/// The sortable numbers of an array; nulls are whatever.
fn numbers<V: Values, K: Copy + Default>(array: &ArrayRef) -> Result<Vec<K>>
where
    V::Key: for<'a> crate::aggregates::bag::Key<Item<'a> = K>,
{
    let rows: Vec<usize> = (0..array.len()).collect();
    let mut numbers = vec![K::default(); array.len()];
    V::each(array, &Rows::new(&rows, None), |row, number| numbers[row] = number)?;
    Ok(numbers)
}

fn write_terminated(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    fn keys(array: &ArrayRef, direction: Direction) -> Vec<Vec<u8>> {
        let column = Column::of(array).unwrap();
        let key = |row| {
            let mut key = vec![];
            column.write_key(row, direction, &mut key);
            key
        };
        (0..array.len()).map(key).collect()
    }

    #[test]
    fn keys_sort_as_their_values() {
        let texts = [Some(""), Some("\0"), Some("\0\0"), Some("\0a"), Some("a"), Some("a\0b"), Some("ab"), None];
        let numbers = [Some(i64::MIN), Some(-1), Some(0), Some(7), None];
        for nulls_first in [false, true] {
            for descending in [false, true] {
                let direction = Direction { descending, nulls_first };
                let texts = keys(&(Arc::new(StringViewArray::from(texts.to_vec())) as ArrayRef), direction);
                let numbers = keys(&(Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef), direction);
                for mut keys in [texts, numbers] {
                    let null = keys.pop().unwrap();
                    assert!(keys.iter().all(|key| (null < *key) == nulls_first), "{direction:?}");
                    assert!(keys.windows(2).all(|pair| (pair[0] > pair[1]) == descending), "{direction:?}: {keys:?}");
                }
            }
        }
    }

    /// Persisted: these bytes never change.
    #[test]
    fn keys_of_version_1_are_pinned() {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec!["a\0b"]));
        assert_eq!(keys(&text, Direction::ASCENDING), [[1, b'a', 0, 0xff, b'b', 0, 0]]);
        assert_eq!(keys(&text, Direction::DESCENDING), [[1, !b'a', 0xff, 0, !b'b', 0xff, 0xff]]);
        let number: ArrayRef = Arc::new(Int64Array::from(vec![-2]));
        assert_eq!(keys(&number, Direction::ASCENDING), [[1, 0x7f, 255, 255, 255, 255, 255, 255, 254]]);
    }
}
