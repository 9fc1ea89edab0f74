//! One value as text: the same in JSON and in CSV.
//!
//! | type | text | in JSON |
//! |---|---|---|
//! | integers | digits | number |
//! | floats | shortest text that reads back as the same value | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | numeric | with all digits of its scale | number up to 15 significant digits (every reader keeps those), else string |
//! | timestamptz | RFC 3339, UTC, microseconds | string |
//! | timestamp, date, time, interval | ISO 8601 | string |
//! | bytea | `\x` and hex digits, as PostgreSQL | string |

use std::fmt::Write as _;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat, Utc};
use schemas::{Code, Problem};

/// Digits that a double keeps, whatever they are (IEEE 754 binary64, `DBL_DIG`).
const DIGITS_OF_A_DOUBLE: usize = 15;

/// How the text of a value is to be quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    /// Is a JSON number or boolean as it stands.
    Bare,
    Text,
}

/// `\x` and hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + 2 * bytes.len());
    out.push_str("\\x");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Appends one value's text and says what it is. Lists and structs are not handled here.
pub(crate) fn write_value(out: &mut String, array: &dyn Array, row: usize) -> Result<Kind, Problem> {
    if array.is_null(row) {
        return Ok(Kind::Null);
    }
    macro_rules! integer {
        ($type:ty) => {{
            let _ = write!(out, "{}", array.as_primitive::<$type>().value(row));
            Ok(Kind::Bare)
        }};
    }
    match array.data_type() {
        DataType::Boolean => {
            out.push_str(if array.as_boolean().value(row) { "true" } else { "false" });
            Ok(Kind::Bare)
        }
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        DataType::Float16 => Ok(float(out, f64::from(array.as_primitive::<Float16Type>().value(row)))),
        DataType::Float32 => Ok(float32(out, array.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => Ok(float(out, array.as_primitive::<Float64Type>().value(row))),
        DataType::Decimal128(_, _) => Ok(decimal(out, &array.as_primitive::<Decimal128Type>().value_as_string(row))),
        DataType::Decimal256(_, _) => Ok(decimal(out, &array.as_primitive::<Decimal256Type>().value_as_string(row))),
        DataType::Utf8 => Ok(text(out, array.as_string::<i32>().value(row))),
        DataType::LargeUtf8 => Ok(text(out, array.as_string::<i64>().value(row))),
        DataType::Utf8View => Ok(text(out, array.as_string_view().value(row))),
        DataType::Binary => Ok(text(out, &hex(array.as_binary::<i32>().value(row)))),
        DataType::LargeBinary => Ok(text(out, &hex(array.as_binary::<i64>().value(row)))),
        DataType::BinaryView => Ok(text(out, &hex(array.as_binary_view().value(row)))),
        DataType::Timestamp(unit, zone) => Ok(timestamp(out, array, row, *unit, zone.is_some())),
        _ => other(out, array, row),
    }
}

fn text(out: &mut String, value: &str) -> Kind {
    out.push_str(value);
    Kind::Text
}

fn float(out: &mut String, value: f64) -> Kind {
    if value.is_finite() {
        let _ = write!(out, "{value:?}");
        return Kind::Bare;
    }
    not_finite(out, value.is_nan(), value > 0.0)
}

fn float32(out: &mut String, value: f32) -> Kind {
    if value.is_finite() {
        let _ = write!(out, "{value:?}");
        return Kind::Bare;
    }
    not_finite(out, value.is_nan(), value > 0.0)
}

fn not_finite(out: &mut String, is_nan: bool, is_positive: bool) -> Kind {
    out.push_str(match (is_nan, is_positive) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    });
    Kind::Text
}

fn decimal(out: &mut String, digits: &str) -> Kind {
    out.push_str(digits);
    let significant = digits.trim_start_matches(['-', '0', '.']).chars().filter(char::is_ascii_digit).count();
    if significant <= DIGITS_OF_A_DOUBLE { Kind::Bare } else { Kind::Text }
}

fn timestamp(out: &mut String, array: &dyn Array, row: usize, unit: TimeUnit, zoned: bool) -> Kind {
    let (raw, time) = match unit {
        TimeUnit::Second => {
            let raw = array.as_primitive::<TimestampSecondType>().value(row);
            (raw, DateTime::from_timestamp(raw, 0))
        }
        TimeUnit::Millisecond => {
            let raw = array.as_primitive::<TimestampMillisecondType>().value(row);
            (raw, DateTime::from_timestamp_millis(raw))
        }
        TimeUnit::Microsecond => {
            let raw = array.as_primitive::<TimestampMicrosecondType>().value(row);
            (raw, DateTime::from_timestamp_micros(raw))
        }
        TimeUnit::Nanosecond => {
            let raw = array.as_primitive::<TimestampNanosecondType>().value(row);
            (raw, Some(DateTime::from_timestamp_nanos(raw)))
        }
    };
    out.push_str(&time.map_or_else(|| raw.to_string(), |time: DateTime<Utc>| time_text(time, unit, zoned)));
    Kind::Text
}

fn time_text(time: DateTime<Utc>, unit: TimeUnit, zoned: bool) -> String {
    let digits = if unit == TimeUnit::Nanosecond { SecondsFormat::Nanos } else { SecondsFormat::Micros };
    let text = time.to_rfc3339_opts(digits, true);
    if zoned { text } else { text.trim_end_matches('Z').to_owned() }
}

/// Dates, times, intervals, dictionaries, …: as Arrow displays them.
fn other(out: &mut String, array: &dyn Array, row: usize) -> Result<Kind, Problem> {
    let wrong = |e: arrow::error::ArrowError| Problem::new(Code::Internal, format!("writing a value: {e}"));
    let formatter = ArrayFormatter::try_new(array, &FormatOptions::new()).map_err(wrong)?;
    let _ = write!(out, "{}", formatter.value(row));
    Ok(Kind::Text)
}
