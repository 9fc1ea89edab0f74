//! Who an event is: 128 bits over the canonical bytes of its primary key, and the partition that
//! follows from them.
//!
//! The definition is a stored contract: a record stays a duplicate, and stays in its partition,
//! over restarts and versions. Per key column, in the order of `PRIMARY KEY`: one byte that names
//! the kind, then the value, little-endian; a text is preceded by its length as 32 bits.
//!
//! ```text
//!  0 null (no value)       3 float: f64, one NaN, no -0.0     6 date: i32, days
//!  1 boolean: one byte     4 decimal: i128, unscaled          7 timestamp: i64, microseconds
//!  2 integer: i64          5 text: length, UTF-8              8 JSON: length, as it was sent
//! ```

use arrow::array::{
    Array, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use schemas::{Code, Partition, Problem, SqlType, StreamDef};
use xxhash_rust::xxh3::xxh3_128;

/// 128 bits that stand for a primary key.
pub type Identity = u128;

/// The partition of an identity: its high half modulo the number of partitions.
pub fn partition(identity: Identity, partitions: u32) -> Partition {
    let high = (identity >> 64) as u64;
    (high % u64::from(partitions.max(1))) as Partition
}

/// The identities of `rows`, whose first columns are the stream's; none for a stream without key.
///
/// # Errors
/// The rows are not the stream's: our bug.
pub fn identities(stream: &StreamDef, rows: &RecordBatch) -> Result<Option<Vec<Identity>>, Problem> {
    if stream.primary_key.is_empty() {
        return Ok(None);
    }
    let mut keys = Vec::with_capacity(stream.primary_key.len());
    for name in &stream.primary_key {
        keys.push(KeyColumn::of(stream, rows, name).ok_or_else(|| {
            Problem::new(Code::Internal, format!("stream {}: key column {name}: not in the rows", stream.name))
        })?);
    }
    let mut bytes = Vec::with_capacity(64);
    let mut identities = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        bytes.clear();
        for key in &keys {
            key.write(row, &mut bytes);
        }
        identities.push(xxh3_128(&bytes));
    }
    Ok(Some(identities))
}

enum KeyColumn<'a> {
    Boolean(&'a BooleanArray),
    SmallInt(&'a Int16Array),
    Int(&'a Int32Array),
    BigInt(&'a Int64Array),
    Real(&'a Float32Array),
    Double(&'a Float64Array),
    Numeric(&'a Decimal128Array),
    Text(u8, &'a StringViewArray),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
}

impl<'a> KeyColumn<'a> {
    fn of(stream: &StreamDef, rows: &'a RecordBatch, name: &str) -> Option<Self> {
        let index = stream.column_index(name)?;
        let column = rows.columns().get(index)?;
        Some(match stream.columns[index].sql_type {
            SqlType::Boolean => Self::Boolean(column.as_boolean_opt()?),
            SqlType::SmallInt => Self::SmallInt(column.as_primitive_opt::<Int16Type>()?),
            SqlType::Int => Self::Int(column.as_primitive_opt::<Int32Type>()?),
            SqlType::BigInt => Self::BigInt(column.as_primitive_opt::<Int64Type>()?),
            SqlType::Real => Self::Real(column.as_primitive_opt::<Float32Type>()?),
            SqlType::Double => Self::Double(column.as_primitive_opt::<Float64Type>()?),
            SqlType::Numeric { .. } => Self::Numeric(column.as_primitive_opt::<Decimal128Type>()?),
            SqlType::Text => Self::Text(5, column.as_string_view_opt()?),
            SqlType::Json => Self::Text(8, column.as_string_view_opt()?),
            SqlType::Date => Self::Date(column.as_primitive_opt::<Date32Type>()?),
            SqlType::TimestampTz => Self::Timestamp(column.as_primitive_opt::<TimestampMicrosecondType>()?),
            // refused at CREATE STREAM
            SqlType::Array(_) => return None,
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(column) => column.is_null(row),
            Self::SmallInt(column) => column.is_null(row),
            Self::Int(column) => column.is_null(row),
            Self::BigInt(column) => column.is_null(row),
            Self::Real(column) => column.is_null(row),
            Self::Double(column) => column.is_null(row),
            Self::Numeric(column) => column.is_null(row),
            Self::Text(_, column) => column.is_null(row),
            Self::Date(column) => column.is_null(row),
            Self::Timestamp(column) => column.is_null(row),
        }
    }

    fn write(&self, row: usize, bytes: &mut Vec<u8>) {
        if self.is_null(row) {
            bytes.push(0);
            return;
        }
        match self {
            Self::Boolean(column) => tagged(bytes, 1, &[u8::from(column.value(row))]),
            Self::SmallInt(column) => tagged(bytes, 2, &i64::from(column.value(row)).to_le_bytes()),
            Self::Int(column) => tagged(bytes, 2, &i64::from(column.value(row)).to_le_bytes()),
            Self::BigInt(column) => tagged(bytes, 2, &column.value(row).to_le_bytes()),
            Self::Real(column) => tagged(bytes, 3, &canonical(f64::from(column.value(row)))),
            Self::Double(column) => tagged(bytes, 3, &canonical(column.value(row))),
            Self::Numeric(column) => tagged(bytes, 4, &column.value(row).to_le_bytes()),
            Self::Text(tag, column) => {
                let text = column.value(row);
                tagged(bytes, *tag, &(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            Self::Date(column) => tagged(bytes, 6, &column.value(row).to_le_bytes()),
            Self::Timestamp(column) => tagged(bytes, 7, &column.value(row).to_le_bytes()),
        }
    }
}

#[inline]
fn tagged(bytes: &mut Vec<u8>, tag: u8, value: &[u8]) {
    bytes.push(tag);
    bytes.extend_from_slice(value);
}

fn canonical(float: f64) -> [u8; 8] {
    let one_of_its_kind = match float {
        f if f.is_nan() => f64::from_bits(0x7ff8_0000_0000_0000),
        0.0 => 0.0,
        f => f,
    };
    one_of_its_kind.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use schemas::column::ColumnDef;

    use super::*;
    use crate::testing::{decode_lines, stream};

    fn of(columns: &[(&str, SqlType)], key: &[&str], line: &str) -> Identity {
        let mut def = stream("s", 4);
        def.columns = columns
            .iter()
            .map(|(name, sql_type)| ColumnDef { name: (*name).into(), sql_type: *sql_type, nullable: true })
            .collect();
        def.primary_key = key.iter().map(|k| (*k).into()).collect();
        identities(&def, &decode_lines(&def, line)).unwrap().unwrap()[0]
    }

    /// Stored contract: these values may never change.
    #[test]
    fn identities_are_what_they_always_were() {
        let all = [
            ("a", SqlType::Boolean),
            ("b", SqlType::Int),
            ("c", SqlType::Double),
            ("d", SqlType::Numeric { precision: 9, scale: 2 }),
            ("e", SqlType::Text),
            ("f", SqlType::Date),
            ("g", SqlType::TimestampTz),
            ("h", SqlType::Json),
            ("i", SqlType::Text),
        ];
        let line = r#"{"a":true,"b":-7,"c":1.5,"d":12.34,"e":"ab","f":"1970-01-03","g":3,"h":[1]}"#;
        let mut bytes = vec![1, 1, 2];
        bytes.extend((-7_i64).to_le_bytes());
        bytes.push(3);
        bytes.extend(1.5_f64.to_le_bytes());
        bytes.push(4);
        bytes.extend(1234_i128.to_le_bytes());
        bytes.extend([5, 2, 0, 0, 0, b'a', b'b', 6, 2, 0, 0, 0, 7]);
        bytes.extend(3_000_i64.to_le_bytes());
        bytes.extend([8, 3, 0, 0, 0, b'[', b'1', b']', 0]);
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        assert_eq!(of(&all, &names, line), xxh3_128(&bytes));
        let text = of(&[("id", SqlType::Text)], &["id"], r#"{"id":"2bb37643603faece"}"#);
        assert_eq!((format!("{text:032x}").as_str(), partition(text, 4)), ("7f098817637b3cef49ed3cbfed4270ea", 3));
    }

    #[test]
    fn equal_values_of_other_width_or_sign_are_one_identity() {
        let one = |sql_type, line| of(&[("k", sql_type)], &["k"], line);
        assert_eq!(one(SqlType::SmallInt, r#"{"k":5}"#), one(SqlType::BigInt, r#"{"k":5}"#));
        assert_eq!(one(SqlType::Double, r#"{"k":-0.0}"#), one(SqlType::Double, r#"{"k":0}"#));
        assert_ne!(one(SqlType::Text, r#"{"k":"5"}"#), one(SqlType::Int, r#"{"k":5}"#));
    }

    #[test]
    fn keys_do_not_run_into_each_other() {
        let columns = [("a", SqlType::Text), ("b", SqlType::Text)];
        let one = of(&columns, &["a", "b"], r#"{"a":"xy","b":"z"}"#);
        assert_ne!(one, of(&columns, &["a", "b"], r#"{"a":"x","b":"yz"}"#));
        assert_ne!(one, of(&columns, &["b", "a"], r#"{"a":"xy","b":"z"}"#));
    }

    #[test]
    fn partitions_are_even() {
        let def = stream("s", 4);
        let lines: Vec<String> =
            (0..4_000).map(|i| format!(r#"{{"id":"e{i}","event_time":"2024-01-01T00:00:00Z"}}"#)).collect();
        let ids = identities(&def, &decode_lines(&def, &lines.join("\n"))).unwrap().unwrap();
        let mut counts = [0_u32; 4];
        for id in ids {
            counts[partition(id, 4) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (850..1_150).contains(n)), "{counts:?}");
    }
}
