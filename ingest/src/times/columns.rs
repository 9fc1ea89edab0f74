//! Corrected times as columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use schemas::StreamDef;

use super::{Corrected, Timing, correct};

const US_PER_MS: f64 = 1_000.0;

/// Rows as they were sent, the age in the last column → the stream's event schema: the event time corrected,
/// behind the declared columns what it was corrected from. One timing a row.
pub(super) fn with_times(
    stream: &StreamDef,
    rows: &RecordBatch,
    timings: &[Timing],
    now_us: i64,
    ahead_us: i64,
) -> Result<RecordBatch, ArrowError> {
    let missing = || ArrowError::SchemaError("no event time to correct".into());
    let (age, sent) = rows.columns().split_last().ok_or_else(missing)?;
    let time_column = stream.time_column.as_ref().and_then(|name| stream.column_index(name)).ok_or_else(missing)?;
    let created = sent.get(time_column).ok_or_else(missing)?;
    let created_us = created.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(missing)?.values();
    let ages = age.as_primitive_opt::<Float64Type>().ok_or_else(missing)?;
    let received = |timing: &Timing| timing.received_us.unwrap_or(now_us);
    let correct_row = |(row, timing): (usize, &Timing)| {
        // an age below zero is none: the event would be younger than its sending
        let age_us = ages.is_valid(row).then(|| (ages.value(row).max(0.0) * US_PER_MS) as i64);
        let received_us = received(timing);
        correct(created_us[row], age_us, timing, received_us, received_us.saturating_add(ahead_us))
    };
    let corrected: Vec<Corrected> = timings.iter().enumerate().map(correct_row).collect();
    let mut columns = sent.to_vec();
    let time = |times: TimestampMicrosecondArray| -> ArrayRef { Arc::new(times.with_timezone("UTC")) };
    columns[time_column] = time(corrected.iter().map(|one| Some(one.time_us)).collect());
    columns.push(time(timings.iter().map(|timing| Some(received(timing))).collect()));
    columns.push(time(timings.iter().map(|timing| timing.sent_us).collect()));
    columns.push(Arc::clone(created));
    columns.push(Arc::new(corrected.iter().map(|one| Some(one.method)).collect::<StringViewArray>()));
    let uncertainty_ms = |one: &Corrected| one.uncertainty_us.map(|us| us / 1_000 + i64::from(us % 1_000 > 0));
    columns.push(Arc::new(corrected.iter().map(uncertainty_ms).collect::<Int64Array>()));
    RecordBatch::try_new(stream.event_schema(), columns)
}
