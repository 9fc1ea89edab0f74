//! Records in the order of given keys, then of their position in the log: bytes that compare so.
//!
//! ```text
//! entry:  key … key | partition offset | value          compared byte by byte
//!         the call's ORDER BY   log position (views)       0 for NULL, else 1 and the value
//! ```
//!
//! The position makes the order total, so that the first record is the same one in every layer, however
//! the records were split. With a join, several rows have one record's position: the value decides then.
//! A key is a byte that says where nulls go, and the sortable bytes of the value; strings end with
//! `00 00`, and a `00` inside is `00 FF`. The bytes of a descending key are inverted.

pub(crate) mod column;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::common::{Result, exec_datafusion_err, plan_err};

use self::column::Column;
use super::bag::Key;
use super::values::{Kind, Values, kind_of, with_values};

/// Bytes of a partition and an offset.
const POSITION_BYTES: usize = 12;

/// The direction of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Direction {
    /// Greatest first.
    pub(crate) descending: bool,
    /// Nulls before all values.
    pub(crate) nulls_first: bool,
}

impl Direction {
    /// `ASC NULLS LAST`, SQL's default.
    pub(crate) const ASCENDING: Self = Self { descending: false, nulls_first: false };
    /// `DESC NULLS LAST`.
    pub(crate) const DESCENDING: Self = Self { descending: true, nulls_first: false };

    /// For the name of a function: a part of what a state means.
    pub(crate) fn text(self) -> String {
        let (direction, nulls) =
            (if self.descending { "desc" } else { "asc" }, if self.nulls_first { "first" } else { "last" });
        format!("{direction} nulls {nulls}")
    }
}

/// How the arguments of a call become entries: the value, its keys, perhaps partition and offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Order {
    /// One for each key.
    pub(crate) directions: Vec<Direction>,
    /// Whether partition (Int32) and offset (Int64) follow the keys.
    pub(crate) by_position: bool,
    /// Whether rows without a value are left out.
    pub(crate) skip_nulls: bool,
    /// Whether rows without some key are left out.
    pub(crate) skip_null_keys: bool,
}

impl Order {
    /// Checks that the arguments can be put in order.
    pub(crate) fn check(&self, name: &str, args: &[DataType]) -> Result<()> {
        let count = 1 + self.directions.len() + if self.by_position { 2 } else { 0 };
        if args.len() != count {
            return plan_err!("{name} takes {count} arguments, found {}", args.len());
        }
        match args.iter().find(|arg| kind_of(arg).is_none()) {
            Some(arg) => plan_err!("{name}: {arg} has no order here"),
            None => Ok(()),
        }
    }

    /// The arguments of some rows, ready to be written as entries.
    pub(crate) fn entries<'a>(&self, args: &'a [ArrayRef]) -> Result<Entries<'a>> {
        let count = self.directions.len();
        let keys = args[1..=count].iter().zip(&self.directions);
        let keys = keys.map(|(key, direction)| Ok((Column::of(key)?, *direction))).collect::<Result<Vec<_>>>()?;
        let position = match &args[1 + count..] {
            [partitions, offsets] => Some((
                partitions.as_primitive::<Int32Type>().values().as_ref(),
                offsets.as_primitive::<Int64Type>().values().as_ref(),
            )),
            _ => None,
        };
        let mut nulls = if self.skip_nulls { args[0].logical_nulls() } else { None };
        for key in args[1..=count].iter().filter(|_| self.skip_null_keys) {
            nulls = NullBuffer::union(nulls.as_ref(), key.logical_nulls().as_ref());
        }
        Ok(Entries { value: Column::of(&args[0])?, keys, position, nulls })
    }

    /// Where the value begins behind the keys (of these types) and the position.
    fn value_at(&self, keys: &[DataType], entry: &[u8]) -> Option<usize> {
        let mut at = 0;
        for (key, direction) in keys.iter().zip(&self.directions) {
            at += key_length(key, *direction, entry.get(at..)?)?;
        }
        Some(at + if self.by_position { POSITION_BYTES } else { 0 })
    }

    /// The values of entries as an array; `args` are the types of the call's arguments.
    pub(crate) fn values<'a>(
        &self,
        args: &[DataType],
        entries: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<ArrayRef> {
        let (value, keys) = (&args[0], &args[1..=self.directions.len()]);
        let damaged = || exec_datafusion_err!("an ordered value: a state is damaged");
        let of_entry = |entry: &'a [u8]| -> Result<Option<&'a [u8]>> {
            let bytes = self.value_at(keys, entry).and_then(|at| entry.get(at..)).ok_or_else(damaged)?;
            match bytes {
                [0] => Ok(None),
                [1, bytes @ ..] => Ok(Some(bytes)),
                _ => Err(damaged()),
            }
        };
        let bytes: Vec<Option<&'a [u8]>> =
            entries.map(|entry| entry.map_or(Ok(None), of_entry)).collect::<Result<_>>()?;
        macro_rules! array {
            ($values:ty) => {{
                let items = bytes.into_iter().map(|bytes| {
                    let read = <<$values as Values>::Key as Key>::of_bytes;
                    bytes.map(|bytes| read(bytes).ok_or_else(damaged)).transpose()
                });
                <$values>::array(value, items.collect::<Result<Vec<_>>>()?.into_iter())
            }};
        }
        with_values!(value, array, plan_err!("{value} has no order here"))
    }
}

/// Bytes of a key at the front of an entry.
fn key_length(key: &DataType, direction: Direction, entry: &[u8]) -> Option<usize> {
    let is_value = *entry.first()? == column::VALUE;
    if !is_value {
        return Some(1);
    }
    Some(match kind_of(key)? {
        Kind::Narrow => 9,
        Kind::Wide => 17,
        Kind::Widest => 33,
        Kind::Bytes => {
            let zero = if direction.descending { 0xff } else { 0 };
            let mut at = 1;
            loop {
                match entry.get(at..at + 2)? {
                    end if *end == [zero; 2] => break at + 2,
                    [first, _] => at += if *first == zero { 2 } else { 1 },
                    _ => return None,
                }
            }
        }
    })
}

/// Rows that can be written as entries.
pub(crate) struct Entries<'a> {
    value: Column<'a>,
    keys: Vec<(Column<'a>, Direction)>,
    position: Option<(&'a [i32], &'a [i64])>,
    /// Rows that are left out.
    pub(crate) nulls: Option<NullBuffer>,
}

impl Entries<'_> {
    /// Appends keys and position of a row.
    #[inline]
    pub(crate) fn write_order(&self, row: usize, out: &mut Vec<u8>) {
        for (key, direction) in &self.keys {
            key.write_key(row, *direction, out);
        }
        if let Some((partitions, offsets)) = self.position {
            out.extend_from_slice(&partitions[row].cast_unsigned().to_be_bytes());
            out.extend_from_slice(&offsets[row].cast_unsigned().to_be_bytes());
        }
    }

    /// Appends the value of a row.
    #[inline]
    pub(crate) fn write_value(&self, row: usize, out: &mut Vec<u8>) {
        self.value.write_value(row, out);
    }
}
