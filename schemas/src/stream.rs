//! A stream as declared, and the Arrow schemas that follow from it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::column::{
    APPEND_TIME, ColumnDef, MAX_EVENT_TIME, OFFSET, PARTITION, RECEIVED_TIME, SOURCE_EPOCH, SOURCE_OFFSET, is_reserved,
    timestamp_type,
};
use crate::transport::Transport;

/// What happens to an event that comes after its window has closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// It is folded into its cell at once and counted as late.
    #[default]
    Include,
    /// It is left out of the views; every certificate lists it.
    Drop,
    /// It is left out of a view, and is a row of the view `<view>_late` that is made beside it.
    Side,
    /// Of a view alone: nothing but late events, each a row. What `Side` makes beside a view.
    Only,
}

impl LatePolicy {
    /// The word of it in `WITH (late = …)`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Include => "include",
            Self::Drop => "drop",
            Self::Side => "side",
            Self::Only => "only",
        }
    }

    /// True if the fold leaves late events out.
    pub fn leaves_out(self) -> bool {
        matches!(self, Self::Drop | Self::Side)
    }

    /// The name of the view with the late events of a view.
    pub fn side_of(view: &str) -> String {
        format!("{view}_late")
    }
}

/// What happens to input that does not fit the stream's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadData {
    /// Keep the raw bytes in `dlq.<stream>` and go on.
    #[default]
    Quarantine,
    /// Refuse the whole request (422); nothing of it is written.
    Reject,
}

/// A declared stream. Immutable once created, but for what `DROP` does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDef {
    /// Never used again, even for a stream of the same name: names all of its files.
    pub id: Uuid,
    /// The log incarnation that offsets belong to.
    pub incarnation: Uuid,
    /// The name in SQL.
    pub name: String,
    /// Declared columns, in order; behind them those of `time_correction`.
    pub columns: Vec<ColumnDef>,
    /// Identity of an event; empty: no de-duplication, and records are spread evenly.
    pub primary_key: Vec<String>,
    /// The event-time column, from `WATERMARK FOR`.
    pub time_column: Option<String>,
    /// How far the watermark stays behind the largest event time seen, microseconds.
    pub watermark_delay_us: i64,
    /// How many partitions the log has.
    pub partitions: u32,
    /// How long an id is remembered, in append time, microseconds.
    pub dedup_horizon_us: i64,
    /// Late events.
    pub late: LatePolicy,
    /// Bad input.
    pub on_bad_data: OnBadData,
    /// Where records come from, and where the log is.
    #[serde(default, skip_serializing_if = "Transport::is_default")]
    pub transport: Transport,
    /// Microseconds since the epoch.
    pub created_at_us: i64,
}

/// The horizon of duplicates is counted in steps of this, in append time: an id is remembered for the
/// horizon, and for less than a step longer.
pub fn dedup_step_us(dedup_horizon_us: i64) -> i64 {
    (dedup_horizon_us / 1_024).max(1)
}

impl StreamDef {
    /// The declared columns alone: what a decoder fills.
    pub fn event_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(ColumnDef::field).collect::<Vec<_>>()))
    }

    /// Rows on their way into the log: declared columns, and where they are in the topic they come from.
    pub fn arriving_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.arriving_fields()))
    }

    /// Rows as the log holds them: as they arrive, append time, largest event time before.
    pub fn log_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.log_fields()))
    }

    /// Rows as the master holds them and row programs read them: the log's, partition, offset.
    pub fn record_schema(&self) -> SchemaRef {
        let mut fields = self.log_fields();
        fields.push(Field::new(PARTITION, DataType::Int32, false));
        fields.push(Field::new(OFFSET, DataType::Int64, false));
        Arc::new(Schema::new(fields))
    }

    fn log_fields(&self) -> Vec<Field> {
        let mut fields = self.arriving_fields();
        fields.push(Field::new(APPEND_TIME, timestamp_type(), false));
        fields.push(Field::new(MAX_EVENT_TIME, timestamp_type(), true));
        fields
    }

    fn arriving_fields(&self) -> Vec<Field> {
        let mut fields: Vec<Field> = self.columns.iter().map(ColumnDef::field).collect();
        if self.transport.source.is_some() {
            fields.push(Field::new(SOURCE_EPOCH, DataType::Int32, false));
            fields.push(Field::new(SOURCE_OFFSET, DataType::Int64, false));
        }
        fields
    }

    /// True if event times are corrected when they come in (`time_correction = 'on'`): the stream then has
    /// [`crate::column::time_columns`] behind those that were declared.
    pub fn corrects_time(&self) -> bool {
        self.columns.iter().any(|column| column.name == RECEIVED_TIME)
    }

    /// The columns that a client sends.
    pub fn declared_columns(&self) -> impl Iterator<Item = &ColumnDef> {
        self.columns.iter().filter(|column| !is_reserved(&column.name))
    }

    /// Bytes that a row takes in memory at least, beside texts that are too long to stand in their column.
    pub fn row_bytes(&self) -> usize {
        let nulls = self.columns.len().div_ceil(8);
        nulls + self.columns.iter().map(|column| column.sql_type.value_bytes()).sum::<usize>()
    }

    /// Index of a declared column.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}
