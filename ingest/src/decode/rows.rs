//! Values, row by row → Arrow columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, StringViewBuilder, TimestampMicrosecondBuilder,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use schemas::column::timestamp_type;
use schemas::{SqlType, StreamDef};

use super::value::Value;

enum ColumnBuilder {
    Boolean(BooleanBuilder),
    SmallInt(Int16Builder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Real(Float32Builder),
    Double(Float64Builder),
    Numeric(Decimal128Builder),
    Text(StringViewBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl ColumnBuilder {
    fn new(sql_type: SqlType, rows: usize) -> Result<Self, ArrowError> {
        Ok(match sql_type {
            SqlType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            SqlType::SmallInt => Self::SmallInt(Int16Builder::with_capacity(rows)),
            SqlType::Int => Self::Int(Int32Builder::with_capacity(rows)),
            SqlType::BigInt => Self::BigInt(Int64Builder::with_capacity(rows)),
            SqlType::Real => Self::Real(Float32Builder::with_capacity(rows)),
            SqlType::Double => Self::Double(Float64Builder::with_capacity(rows)),
            SqlType::Numeric { precision, scale } => {
                let builder = Decimal128Builder::with_capacity(rows);
                Self::Numeric(builder.with_precision_and_scale(precision, scale)?)
            }
            SqlType::Text | SqlType::Json => Self::Text(StringViewBuilder::with_capacity(rows)),
            SqlType::Date => Self::Date(Date32Builder::with_capacity(rows)),
            SqlType::TimestampTz => {
                let builder = TimestampMicrosecondBuilder::with_capacity(rows);
                Self::Timestamp(builder.with_data_type(timestamp_type()))
            }
        })
    }

    #[inline]
    fn append(&mut self, value: Value<'_>) {
        match (self, value) {
            (Self::Text(column), Value::Text(text)) => column.append_value(text),
            (Self::Timestamp(column), Value::Integer(time_us)) => column.append_value(time_us),
            (Self::Int(column), Value::Integer(integer)) => column.append_value(integer as i32),
            (Self::BigInt(column), Value::Integer(integer)) => column.append_value(integer),
            (Self::SmallInt(column), Value::Integer(integer)) => column.append_value(integer as i16),
            (Self::Date(column), Value::Integer(days)) => column.append_value(days as i32),
            (Self::Double(column), Value::Float(float)) => column.append_value(float),
            (Self::Real(column), Value::Float(float)) => column.append_value(float as f32),
            (Self::Numeric(column), Value::Decimal(unscaled)) => column.append_value(unscaled),
            (Self::Boolean(column), Value::Boolean(boolean)) => column.append_value(boolean),
            (column, value) => {
                assert!(value == Value::Null, "a value of its column's type or null, found {value:?}");
                column.append_null();
            }
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Boolean(column) => column.append_null(),
            Self::SmallInt(column) => column.append_null(),
            Self::Int(column) => column.append_null(),
            Self::BigInt(column) => column.append_null(),
            Self::Real(column) => column.append_null(),
            Self::Double(column) => column.append_null(),
            Self::Numeric(column) => column.append_null(),
            Self::Text(column) => column.append_null(),
            Self::Date(column) => column.append_null(),
            Self::Timestamp(column) => column.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Boolean(mut column) => Arc::new(column.finish()),
            Self::SmallInt(mut column) => Arc::new(column.finish()),
            Self::Int(mut column) => Arc::new(column.finish()),
            Self::BigInt(mut column) => Arc::new(column.finish()),
            Self::Real(mut column) => Arc::new(column.finish()),
            Self::Double(mut column) => Arc::new(column.finish()),
            Self::Numeric(mut column) => Arc::new(column.finish()),
            Self::Text(mut column) => Arc::new(column.finish()),
            Self::Date(mut column) => Arc::new(column.finish()),
            Self::Timestamp(mut column) => Arc::new(column.finish()),
        }
    }
}

/// Rows of a stream under construction.
pub(crate) struct RowsBuilder {
    columns: Vec<ColumnBuilder>,
}

impl RowsBuilder {
    /// For about `rows` rows.
    pub(crate) fn new(stream: &StreamDef, rows: usize) -> Result<Self, ArrowError> {
        let columns: Result<_, _> = stream.columns.iter().map(|c| ColumnBuilder::new(c.sql_type, rows)).collect();
        Ok(Self { columns: columns? })
    }

    /// One row: takes the values out.
    #[inline]
    pub(crate) fn append(&mut self, values: &mut [Value<'_>]) {
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.append(std::mem::replace(value, Value::Null));
        }
    }

    /// The rows, in the stream's event schema.
    pub(crate) fn finish(self, stream: &StreamDef) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_new(stream.event_schema(), self.columns.into_iter().map(ColumnBuilder::finish).collect())
    }
}
