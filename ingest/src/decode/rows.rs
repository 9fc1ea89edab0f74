//! Values, row by row → Arrow columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, ListArray, StringBuilder, StringViewBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use schemas::column::timestamp_type;
use schemas::{ItemType, SqlType, StreamDef};

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
    /// Texts in an array.
    ItemText(StringBuilder),
    List(Box<ListBuilder>),
}

/// Arrays under construction.
struct ListBuilder {
    item: Field,
    items: ColumnBuilder,
    /// How many items each array has.
    lengths: Vec<usize>,
    /// Which arrays there are.
    valid: Vec<bool>,
}

impl ListBuilder {
    fn new(item: ItemType, rows: usize) -> Result<Self, ArrowError> {
        let items = match item {
            ItemType::Text => ColumnBuilder::ItemText(StringBuilder::new()),
            other => ColumnBuilder::new(other.sql_type(), rows)?,
        };
        Ok(Self { item: item.field(), items, lengths: Vec::with_capacity(rows), valid: Vec::with_capacity(rows) })
    }

    fn append(&mut self, items: Option<Vec<Value<'_>>>) {
        self.valid.push(items.is_some());
        let items = items.unwrap_or_default();
        self.lengths.push(items.len());
        for item in items {
            self.items.append(item);
        }
    }

    /// The lengths fit 32 bits: a request's body is far smaller than that.
    fn finish(self) -> ArrayRef {
        let Self { item, items, lengths, valid } = self;
        let nulls = Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
        Arc::new(ListArray::new(Arc::new(item), OffsetBuffer::from_lengths(lengths), items.finish(), nulls))
    }
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
            SqlType::Array(item) => Self::List(Box::new(ListBuilder::new(item, rows)?)),
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
            (Self::ItemText(column), Value::Text(text)) => column.append_value(text),
            (Self::List(column), Value::List(items)) => column.append(Some(items)),
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
            Self::ItemText(column) => column.append_null(),
            Self::List(column) => column.append(None),
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
            Self::ItemText(mut column) => Arc::new(column.finish()),
            Self::List(column) => column.finish(),
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
