//! Columns: SQL types, the one Arrow type of each (precondition H4), and the platform's own columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde::{Deserialize, Serialize};

/// Partition of a record; only in the master and inside row programs.
pub const PARTITION: &str = "_partition";
/// Offset of a record; only in the master and inside row programs.
pub const OFFSET: &str = "_offset";
/// When the log took the record; never decreases within a partition.
pub const APPEND_TIME: &str = "_append_time";
/// The largest event time among the records *before* this one in its partition; null for the
/// first. A function of the partition's prefix, stored so that both layers decide lateness alike.
pub const MAX_EVENT_TIME: &str = "_max_event_time";

/// When a record was processed, as views read it. Two layers process a record, each at a time of its own and a run once
/// more: what is the same for all of them is when the log took it, so this is [`APPEND_TIME`] under another name.
pub const PROCESSING_TIME: &str = "_processing_time";

/// Which incarnation of its topic a record was read from; only where a stream is read from a topic.
pub const SOURCE_EPOCH: &str = "_source_epoch";
/// A record's offset in its topic; the partition is the stream's own.
pub const SOURCE_OFFSET: &str = "_source_offset";
/// When the server received the request that the record came in; with `time_correction`, as the four below.
pub const RECEIVED_TIME: &str = "_received_time";
/// The client's clock when it sent that request, where it said so.
pub const SENT_TIME: &str = "_sent_time";
/// The event time as the client wrote it, by its own clock.
pub const CREATED_TIME: &str = "_created_time";
/// How the event time was found from these: `sync`, `age`, `sent` or `client`, with `_clamped` behind it if
/// that would have been too far in the future.
pub const TIME_METHOD: &str = "_time_method";
/// How wrong the event time may be, milliseconds; null where nobody can know.
pub const TIME_UNCERTAINTY: &str = "_time_uncertainty_ms";

/// When a row of a table that is joined as of a time is valid no longer; only where views read the table.
pub const VALID_TO: &str = "_valid_to";

/// The columns of a stream with `time_correction` behind those that are declared.
pub fn time_columns() -> [ColumnDef; 5] {
    [
        (RECEIVED_TIME, SqlType::TimestampTz, false),
        (SENT_TIME, SqlType::TimestampTz, true),
        (CREATED_TIME, SqlType::TimestampTz, false),
        (TIME_METHOD, SqlType::Text, false),
        (TIME_UNCERTAINTY, SqlType::BigInt, true),
    ]
    .map(|(name, sql_type, nullable)| ColumnDef { name: name.into(), sql_type, nullable })
}

/// True for names that belong to the platform.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with('_')
}

/// Arrow's type of every point in time here: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The column types of a stream or a static table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SqlType {
    /// `BOOLEAN`
    Boolean,
    /// `SMALLINT`
    SmallInt,
    /// `INT`, `INTEGER`
    Int,
    /// `BIGINT`
    BigInt,
    /// `REAL`
    Real,
    /// `DOUBLE PRECISION`
    Double,
    /// `NUMERIC(precision, scale)`
    Numeric {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// `TEXT`, `VARCHAR`
    Text,
    /// `DATE`
    Date,
    /// `TIMESTAMPTZ`: a point in time, microseconds
    TimestampTz,
    /// `JSON`, `JSONB`: the text of a JSON value
    Json,
    /// `TEXT[]`, `BIGINT[]`, …: a list of values of one type
    Array(ItemType),
}

/// The types that the items of an array can have: those of one value. An item may be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemType {
    /// `BOOLEAN[]`
    Boolean,
    /// `SMALLINT[]`
    SmallInt,
    /// `INT[]`
    Int,
    /// `BIGINT[]`
    BigInt,
    /// `REAL[]`
    Real,
    /// `DOUBLE PRECISION[]`
    Double,
    /// `NUMERIC(precision, scale)[]`
    Numeric {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// `TEXT[]`
    Text,
    /// `DATE[]`
    Date,
    /// `TIMESTAMPTZ[]`
    TimestampTz,
}

impl ItemType {
    /// The type of an item as that of a column.
    pub fn sql_type(self) -> SqlType {
        match self {
            Self::Boolean => SqlType::Boolean,
            Self::SmallInt => SqlType::SmallInt,
            Self::Int => SqlType::Int,
            Self::BigInt => SqlType::BigInt,
            Self::Real => SqlType::Real,
            Self::Double => SqlType::Double,
            Self::Numeric { precision, scale } => SqlType::Numeric { precision, scale },
            Self::Text => SqlType::Text,
            Self::Date => SqlType::Date,
            Self::TimestampTz => SqlType::TimestampTz,
        }
    }

    /// The items of an array of such columns; none for a type that no array has.
    pub fn of(sql_type: SqlType) -> Option<Self> {
        Some(match sql_type {
            SqlType::Boolean => Self::Boolean,
            SqlType::SmallInt => Self::SmallInt,
            SqlType::Int => Self::Int,
            SqlType::BigInt => Self::BigInt,
            SqlType::Real => Self::Real,
            SqlType::Double => Self::Double,
            SqlType::Numeric { precision, scale } => Self::Numeric { precision, scale },
            SqlType::Text => Self::Text,
            SqlType::Date => Self::Date,
            SqlType::TimestampTz => Self::TimestampTz,
            SqlType::Json | SqlType::Array(_) => return None,
        })
    }

    /// The one Arrow field of an item. A text is `Utf8`: a slice of an array of it is written without what lies
    /// around it, which the buffers of `Utf8View` below a list are not.
    pub fn field(self) -> Field {
        let data_type = match self {
            Self::Text => DataType::Utf8,
            other => other.sql_type().arrow(),
        };
        Field::new_list_field(data_type, true)
    }
}

impl SqlType {
    /// Bytes that a value takes in an Arrow column; of a text its view, of an array where its items begin.
    pub fn value_bytes(self) -> usize {
        match self {
            Self::Boolean => 1,
            Self::SmallInt => 2,
            Self::Int | Self::Real | Self::Date | Self::Array(_) => 4,
            Self::BigInt | Self::Double | Self::TimestampTz => 8,
            Self::Numeric { .. } | Self::Text | Self::Json => 16,
        }
    }

    /// The one Arrow type that this SQL type has everywhere in memory.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Numeric { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Text | Self::Json => DataType::Utf8View,
            Self::Date => DataType::Date32,
            Self::TimestampTz => timestamp_type(),
            Self::Array(item) => DataType::List(Arc::new(item.field())),
        }
    }

    /// The name as `SHOW CREATE` prints it.
    pub fn sql(self) -> String {
        match self {
            Self::Boolean => "BOOLEAN".into(),
            Self::SmallInt => "SMALLINT".into(),
            Self::Int => "INT".into(),
            Self::BigInt => "BIGINT".into(),
            Self::Real => "REAL".into(),
            Self::Double => "DOUBLE PRECISION".into(),
            Self::Numeric { precision, scale } => format!("NUMERIC({precision}, {scale})"),
            Self::Text => "TEXT".into(),
            Self::Date => "DATE".into(),
            Self::TimestampTz => "TIMESTAMPTZ".into(),
            Self::Json => "JSONB".into(),
            Self::Array(item) => format!("{}[]", item.sql_type().sql()),
        }
    }
}

/// What an Arrow type is called towards users (query answers, errors).
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "SMALLINT".into(),
        DataType::Int32 | DataType::UInt16 => "INT".into(),
        DataType::Int64 | DataType::UInt32 => "BIGINT".into(),
        DataType::UInt64 => "NUMERIC(20, 0)".into(),
        DataType::Float16 | DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE PRECISION".into(),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("NUMERIC({p}, {s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".into(),
        DataType::Timestamp(_, None) => "TIMESTAMP".into(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "BYTEA".into()
        }
        DataType::Dictionary(_, value) => sql_name(value),
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", sql_name(item.data_type())),
        other => other.to_string().to_uppercase(),
    }
}

/// One declared column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnDef {
    /// The name, folded as in Postgres (lower case unless quoted).
    pub name: String,
    /// The type.
    pub sql_type: SqlType,
    /// False for `NOT NULL`.
    pub nullable: bool,
}

impl ColumnDef {
    /// The Arrow field of this column.
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.sql_type.arrow(), self.nullable)
    }
}
