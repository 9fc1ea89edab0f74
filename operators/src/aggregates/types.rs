//! Arrow types as the aggregates see them: dispatch over primitives, canonical values, bytes.

use std::str;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, GenericBinaryBuilder, GenericStringBuilder};
use arrow::array::{OffsetSizeTrait, StringViewBuilder};
use arrow::datatypes::{DataType, i256};
use datafusion::common::{Result, exec_datafusion_err, exec_err};

use super::groups::Rows;

/// Calls `$body!(PrimitiveType)` for the Arrow type of a primitive that has an order, else `$other`.
macro_rules! with_primitive {
    ($data_type:expr, $body:ident, $other:expr) => {
        match $data_type {
            arrow::datatypes::DataType::Decimal128(..) => $body!(arrow::datatypes::Decimal128Type),
            arrow::datatypes::DataType::Decimal256(..) => $body!(arrow::datatypes::Decimal256Type),
            _ => $crate::aggregates::types::with_narrow!($data_type, $body, $other),
        }
    };
}
pub(crate) use with_primitive;

/// [`with_primitive`] for the primitives of up to 64 bits.
macro_rules! with_narrow {
    ($data_type:expr, $body:ident, $other:expr) => {{
        #[allow(unused_imports, reason = "a body may ignore the type")]
        use arrow::datatypes as t;
        use arrow::datatypes::{DataType, TimeUnit};
        match $data_type {
            DataType::Int8 => $body!(t::Int8Type),
            DataType::Int16 => $body!(t::Int16Type),
            DataType::Int32 => $body!(t::Int32Type),
            DataType::Int64 => $body!(t::Int64Type),
            DataType::UInt8 => $body!(t::UInt8Type),
            DataType::UInt16 => $body!(t::UInt16Type),
            DataType::UInt32 => $body!(t::UInt32Type),
            DataType::UInt64 => $body!(t::UInt64Type),
            DataType::Float32 => $body!(t::Float32Type),
            DataType::Float64 => $body!(t::Float64Type),
            DataType::Decimal32(..) => $body!(t::Decimal32Type),
            DataType::Decimal64(..) => $body!(t::Decimal64Type),
            DataType::Date32 => $body!(t::Date32Type),
            DataType::Date64 => $body!(t::Date64Type),
            DataType::Time32(TimeUnit::Second) => $body!(t::Time32SecondType),
            DataType::Time32(_) => $body!(t::Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => $body!(t::Time64MicrosecondType),
            DataType::Time64(_) => $body!(t::Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => $body!(t::TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $body!(t::TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $body!(t::TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $body!(t::TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => $body!(t::DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => $body!(t::DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => $body!(t::DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => $body!(t::DurationNanosecondType),
            _ => $other,
        }
    }};
}
pub(crate) use with_narrow;

/// One representation per value: NaN has one bit pattern, zero has no sign.
pub(crate) trait Canonical: Copy {
    /// The representative of the value.
    fn canonical(self) -> Self;
}

macro_rules! canonical_as_is {
    ($($native:ty),*) => {
        $(impl Canonical for $native {
            #[inline]
            fn canonical(self) -> Self {
                self
            }
        })*
    };
}
canonical_as_is!(i8, i16, i32, i64, i128, i256, u8, u16, u32, u64);

macro_rules! canonical_float {
    ($($native:ty, $zero:expr, $nan:expr);*) => {
        $(impl Canonical for $native {
            #[inline]
            fn canonical(self) -> Self {
                if self.is_nan() { $nan } else { self + $zero } // −0.0 + 0.0 is +0.0
            }
        })*
    };
}
canonical_float!(
    f32, 0.0, f32::from_bits(0x7fc0_0000);
    f64, 0.0, f64::from_bits(0x7ff8_0000_0000_0000)
);

/// The type that values are compared and counted in: dictionaries by value, half floats as floats.
pub(crate) fn plain_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Float16 => &DataType::Float32,
        DataType::Null => &DataType::Int64,
        other => other,
    }
}

/// Whether the type is a string or binary type.
pub(crate) fn is_bytes(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

/// Calls `visit(group, bytes)` for every string or binary value that counts.
pub(crate) fn each_bytes(array: &ArrayRef, rows: &Rows<'_>, mut visit: impl FnMut(usize, &[u8])) -> Result<()> {
    macro_rules! visit_all {
        ($values:expr) => {{
            let values = $values;
            rows.each(values.nulls(), |row, group| visit(group, values.value(row).as_ref()));
        }};
    }
    match array.data_type() {
        DataType::Utf8 => visit_all!(array.as_string::<i32>()),
        DataType::LargeUtf8 => visit_all!(array.as_string::<i64>()),
        DataType::Utf8View => visit_all!(array.as_string_view()),
        DataType::Binary => visit_all!(array.as_binary::<i32>()),
        DataType::LargeBinary => visit_all!(array.as_binary::<i64>()),
        DataType::BinaryView => visit_all!(array.as_binary_view()),
        other => return exec_err!("expected strings or bytes, found {other}"),
    }
    Ok(())
}

/// The strings or byte strings of an array, row by row; what stands for a null is empty or not.
pub(crate) fn byte_slices(array: &ArrayRef) -> Result<Vec<&[u8]>> {
    macro_rules! all {
        ($values:expr) => {{
            let values = $values;
            Ok((0..values.len()).map(|row| AsRef::<[u8]>::as_ref(values.value(row))).collect())
        }};
    }
    match array.data_type() {
        DataType::Utf8 => all!(array.as_string::<i32>()),
        DataType::LargeUtf8 => all!(array.as_string::<i64>()),
        DataType::Utf8View => all!(array.as_string_view()),
        DataType::Binary => all!(array.as_binary::<i32>()),
        DataType::LargeBinary => all!(array.as_binary::<i64>()),
        DataType::BinaryView => all!(array.as_binary_view()),
        other => exec_err!("expected strings or bytes, found {other}"),
    }
}

/// A string or binary array of the given type.
pub(crate) fn bytes_array<B: AsRef<[u8]>>(data_type: &DataType, values: &[Option<B>]) -> Result<ArrayRef> {
    match data_type {
        DataType::Utf8 => string_array::<i32>(values),
        DataType::LargeUtf8 => string_array::<i64>(values),
        DataType::Binary => Ok(binary_array::<i32>(values)),
        DataType::LargeBinary => Ok(binary_array::<i64>(values)),
        DataType::Utf8View => {
            let mut array = StringViewBuilder::with_capacity(values.len());
            values.iter().try_for_each(|value| {
                text(value.as_ref().map(AsRef::as_ref)).map(|value| array.append_option(value))
            })?;
            Ok(Arc::new(array.finish()))
        }
        DataType::BinaryView => {
            let mut array = BinaryViewBuilder::with_capacity(values.len());
            for value in values {
                array.append_option(value.as_ref().map(AsRef::as_ref));
            }
            Ok(Arc::new(array.finish()))
        }
        other => exec_err!("expected strings or bytes, found {other}"),
    }
}

fn string_array<O: OffsetSizeTrait>(values: &[Option<impl AsRef<[u8]>>]) -> Result<ArrayRef> {
    let mut array = GenericStringBuilder::<O>::with_capacity(values.len(), 0);
    values
        .iter()
        .try_for_each(|value| text(value.as_ref().map(AsRef::as_ref)).map(|value| array.append_option(value)))?;
    Ok(Arc::new(array.finish()))
}

fn binary_array<O: OffsetSizeTrait>(values: &[Option<impl AsRef<[u8]>>]) -> ArrayRef {
    let mut array = GenericBinaryBuilder::<O>::with_capacity(values.len(), 0);
    for value in values {
        array.append_option(value.as_ref().map(AsRef::as_ref));
    }
    Arc::new(array.finish())
}

fn text(bytes: Option<&[u8]>) -> Result<Option<&str>> {
    bytes
        .map(|bytes| str::from_utf8(bytes).map_err(|error| exec_datafusion_err!("a string is not UTF-8: {error}")))
        .transpose()
}
