//! Values as sortable keys: whatever the Arrow type, a number of 64, 128 or 256 bits or a byte string
//! that compares as the values do, and back. One representation per value (NaN, zero).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{DataType, i256};
use datafusion::common::{Result, exec_err};

use super::bag::{Key, Span};
use super::groups::Rows;
use super::types::{Canonical, bytes_array, each_bytes, is_bytes, with_narrow};

/// How values of some types are kept.
pub(crate) trait Values: Send + 'static {
    /// What a bag stores of one.
    type Key: Key;

    /// Calls `visit(group, value)` for every value that counts.
    fn each(array: &ArrayRef, rows: &Rows<'_>, visit: impl FnMut(usize, <Self::Key as Key>::Item<'_>)) -> Result<()>;

    /// An array of the type.
    fn array<'a>(
        data_type: &DataType,
        items: impl Iterator<Item = Option<<Self::Key as Key>::Item<'a>>>,
    ) -> Result<ArrayRef>;
}

/// Which kind of values a type has; None for types without an order.
pub(crate) enum Kind {
    /// Booleans and numbers of up to 64 bits.
    Narrow,
    /// 128 bits.
    Wide,
    /// 256 bits.
    Widest,
    /// Strings and byte strings.
    Bytes,
}

/// The kind of a type.
pub(crate) fn kind_of(data_type: &DataType) -> Option<Kind> {
    macro_rules! is_primitive {
        ($primitive:ty) => {
            true
        };
    }
    match data_type {
        DataType::Decimal128(..) => Some(Kind::Wide),
        DataType::Decimal256(..) => Some(Kind::Widest),
        DataType::Boolean => Some(Kind::Narrow),
        bytes if is_bytes(bytes) => Some(Kind::Bytes),
        other => with_narrow!(other, is_primitive, false).then_some(Kind::Narrow),
    }
}

/// Calls `$body!(Values)` for the kind of a type, else `$other`.
macro_rules! with_values {
    ($data_type:expr, $body:ident, $other:expr) => {{
        use $crate::aggregates::values as v;
        match v::kind_of($data_type) {
            Some(v::Kind::Narrow) => $body!(v::Narrow),
            Some(v::Kind::Wide) => $body!(v::Wide),
            Some(v::Kind::Widest) => $body!(v::Widest),
            Some(v::Kind::Bytes) => $body!(v::Bytes),
            None => $other,
        }
    }};
}
pub(crate) use with_values;

/// [`Kind::Narrow`].
pub(crate) struct Narrow;
/// [`Kind::Wide`].
pub(crate) struct Wide;
/// [`Kind::Widest`].
pub(crate) struct Widest;
/// [`Kind::Bytes`].
pub(crate) struct Bytes;

impl Values for Narrow {
    type Key = u64;

    fn each(array: &ArrayRef, rows: &Rows<'_>, mut visit: impl FnMut(usize, u64)) -> Result<()> {
        macro_rules! visit_all {
            ($primitive:ty) => {
                rows.each_value(array.as_primitive::<$primitive>(), |group, value| visit(group, value.sortable()))
            };
        }
        match array.data_type() {
            DataType::Boolean => {
                let values = array.as_boolean();
                rows.each(values.nulls(), |row, group| visit(group, u64::from(values.value(row))));
            }
            other => with_narrow!(other, visit_all, return exec_err!("values of type {other} have no order here")),
        }
        Ok(())
    }

    fn array<'a>(
        data_type: &DataType,
        items: impl Iterator<Item = Option<<u64 as Key>::Item<'a>>>,
    ) -> Result<ArrayRef> {
        macro_rules! collect {
            ($primitive:ty) => {
                Ok(primitive_array::<$primitive>(data_type, items.map(|item| item.map(Sortable::of))))
            };
        }
        match data_type {
            DataType::Boolean => Ok(Arc::new(items.map(|item| item.map(|bit| bit == 1)).collect::<BooleanArray>())),
            other => with_narrow!(other, collect, exec_err!("values of type {other} have no order here")),
        }
    }
}

fn primitive_array<T: ArrowPrimitiveType>(
    data_type: &DataType,
    values: impl Iterator<Item = Option<T::Native>>,
) -> ArrayRef {
    Arc::new(values.collect::<PrimitiveArray<T>>().with_data_type(data_type.clone()))
}

impl Values for Wide {
    type Key = u128;

    fn each(array: &ArrayRef, rows: &Rows<'_>, mut visit: impl FnMut(usize, u128)) -> Result<()> {
        let values = array.as_primitive::<arrow::datatypes::Decimal128Type>();
        rows.each_value(values, |group, value| visit(group, value.cast_unsigned() ^ 1 << 127));
        Ok(())
    }

    fn array<'a>(
        data_type: &DataType,
        items: impl Iterator<Item = Option<<u128 as Key>::Item<'a>>>,
    ) -> Result<ArrayRef> {
        let values = items.map(|item| item.map(|bits| (bits ^ 1 << 127).cast_signed()));
        Ok(primitive_array::<arrow::datatypes::Decimal128Type>(data_type, values))
    }
}

impl Values for Widest {
    type Key = [u128; 2];

    fn each(array: &ArrayRef, rows: &Rows<'_>, mut visit: impl FnMut(usize, [u128; 2])) -> Result<()> {
        let values = array.as_primitive::<arrow::datatypes::Decimal256Type>();
        rows.each_value(values, |group, value| {
            let (low, high) = value.to_parts();
            visit(group, [high.cast_unsigned() ^ 1 << 127, low]);
        });
        Ok(())
    }

    fn array<'a>(
        data_type: &DataType,
        items: impl Iterator<Item = Option<<[u128; 2] as Key>::Item<'a>>>,
    ) -> Result<ArrayRef> {
        let value = |[high, low]: [u128; 2]| i256::from_parts(low, (high ^ 1 << 127).cast_signed());
        Ok(primitive_array::<arrow::datatypes::Decimal256Type>(data_type, items.map(|item| item.map(value))))
    }
}

impl Values for Bytes {
    type Key = Span;

    fn each(array: &ArrayRef, rows: &Rows<'_>, visit: impl FnMut(usize, &[u8])) -> Result<()> {
        each_bytes(array, rows, visit)
    }

    fn array<'a>(data_type: &DataType, items: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
        let values: Vec<Option<&[u8]>> = items.collect();
        bytes_array(data_type, &values)
    }
}

/// A number as 64 bits that compare as it does.
pub(crate) trait Sortable: Sized {
    /// The bits.
    fn sortable(self) -> u64;
    /// The number.
    fn of(bits: u64) -> Self;
}

const SIGN: u64 = 1 << 63;

macro_rules! sortable_signed {
    ($($native:ty),*) => {
        $(impl Sortable for $native {
            #[inline]
            fn sortable(self) -> u64 {
                i64::from(self).cast_unsigned() ^ SIGN
            }

            #[inline]
            fn of(bits: u64) -> Self {
                (bits ^ SIGN) as Self
            }
        })*
    };
}
sortable_signed!(i8, i16, i32, i64);

macro_rules! sortable_unsigned {
    ($($native:ty),*) => {
        $(impl Sortable for $native {
            #[inline]
            fn sortable(self) -> u64 {
                u64::from(self)
            }

            #[inline]
            fn of(bits: u64) -> Self {
                bits as Self
            }
        })*
    };
}
sortable_unsigned!(u8, u16, u32, u64);

impl Sortable for f64 {
    #[inline]
    fn sortable(self) -> u64 {
        let bits = self.canonical().to_bits();
        if bits & SIGN == 0 { bits | SIGN } else { !bits }
    }

    #[inline]
    fn of(bits: u64) -> Self {
        Self::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN })
    }
}

impl Sortable for f32 {
    #[inline]
    fn sortable(self) -> u64 {
        f64::from(self).sortable()
    }

    #[inline]
    fn of(bits: u64) -> Self {
        <f64 as Sortable>::of(bits) as Self // it was one, so nothing is lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_their_bits_and_survive() {
        let floats = [f64::NEG_INFINITY, f64::MIN, -1.5, -5e-324, 0.0, 5e-324, 1.5, f64::MAX, f64::INFINITY, f64::NAN];
        assert!(floats.windows(2).all(|pair| pair[0].sortable() < pair[1].sortable()));
        assert!(floats.iter().all(|value| <f64 as Sortable>::of(value.sortable()).to_bits() == value.to_bits()));
        assert_eq!((-0.0_f64).sortable(), 0.0_f64.sortable());
        assert_eq!(f64::from_bits(0xfff8_0000_0000_0007).sortable(), f64::NAN.sortable());
        for value in [f32::MIN, -0.1, 0.0, 1e-45, 0.1, f32::INFINITY] {
            assert_eq!(<f32 as Sortable>::of(value.sortable()).to_bits(), value.to_bits());
        }
        let integers = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(integers.windows(2).all(|pair| pair[0].sortable() < pair[1].sortable()));
        assert!(integers.iter().all(|value| <i64 as Sortable>::of(value.sortable()) == *value));
        assert_eq!(<i8 as Sortable>::of((-7_i8).sortable()), -7);
        assert_eq!(<u64 as Sortable>::of(u64::MAX.sortable()), u64::MAX);
        assert_eq!((-7_i16).sortable(), (-7_i64).sortable());
    }
}
