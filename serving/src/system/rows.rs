//! Small tables, filled row by row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use schemas::{Code, Problem};

enum Builder {
    Text(StringBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Time(TimestampMicrosecondBuilder),
    Truth(BooleanBuilder),
}

impl Builder {
    fn of(kind: &str) -> Self {
        match kind {
            "i" => Self::Int(Int64Builder::new()),
            "f" => Self::Float(Float64Builder::new()),
            "z" => Self::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            "b" => Self::Truth(BooleanBuilder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::Float(mut builder) => Arc::new(builder.finish()),
            Self::Time(mut builder) => Arc::new(builder.finish()),
            Self::Truth(mut builder) => Arc::new(builder.finish()),
        }
    }
}

/// A table under construction: values go into the columns in turn. A value of another kind than its
/// column's leaves the column short, which [`Table::finish`] reports.
pub(super) struct Table {
    names: Vec<String>,
    columns: Vec<Builder>,
    next: usize,
}

impl Table {
    /// Columns by name and kind: `t`ext, `i`nteger, `f`loat, time (`z`), `b`oolean.
    pub(super) fn new(columns: &[(&str, &str)]) -> Self {
        Self {
            names: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            columns: columns.iter().map(|(_, kind)| Builder::of(kind)).collect(),
            next: 0,
        }
    }

    fn column(&mut self) -> &mut Builder {
        let index = self.next;
        self.next = (self.next + 1) % self.columns.len();
        &mut self.columns[index]
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.maybe_text(Some(value))
    }

    pub(super) fn maybe_text(&mut self, value: Option<&str>) -> &mut Self {
        if let Builder::Text(builder) = self.column() {
            builder.append_option(value);
        }
        self
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Self {
        self.maybe_int(Some(value))
    }

    pub(super) fn maybe_int(&mut self, value: Option<i64>) -> &mut Self {
        if let Builder::Int(builder) = self.column() {
            builder.append_option(value);
        }
        self
    }

    pub(super) fn maybe_float(&mut self, value: Option<f64>) -> &mut Self {
        if let Builder::Float(builder) = self.column() {
            builder.append_option(value);
        }
        self
    }

    pub(super) fn maybe_time(&mut self, value_us: Option<i64>) -> &mut Self {
        if let Builder::Time(builder) = self.column() {
            builder.append_option(value_us);
        }
        self
    }

    pub(super) fn truth(&mut self, value: bool) -> &mut Self {
        if let Builder::Truth(builder) = self.column() {
            builder.append_value(value);
        }
        self
    }

    pub(super) fn finish(self) -> Result<RecordBatch, Problem> {
        let arrays: Vec<ArrayRef> = self.columns.into_iter().map(Builder::finish).collect();
        let fields =
            self.names.iter().zip(&arrays).map(|(name, array)| Field::new(name, array.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, arrays).map_err(|e| Problem::new(Code::Internal, format!("a system table: {e}")))
    }
}
