//! A request's rows by partition, and the two columns that the log adds.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use schemas::{Partition, StreamDef};

use crate::identity::{self, Identity};

/// Longest string that a view holds itself.
const INLINE_BYTES_MAX: u32 = 12;

/// Rows of one request and one partition, in the order in which they were sent.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) partition: Partition,
    /// In the stream's event schema.
    pub(crate) rows: RecordBatch,
    /// One per row; none for a stream without primary key.
    pub(crate) identities: Vec<Identity>,
}

/// Splits `rows` by the partition of their identities, in order of the partition.
pub(crate) fn split(stream: &StreamDef, rows: RecordBatch, identities: Vec<Identity>) -> Result<Vec<Part>, ArrowError> {
    if rows.num_rows() == 0 {
        return Ok(vec![]);
    }
    if stream.partitions <= 1 {
        return Ok(vec![Part { partition: 0, rows, identities }]);
    }
    let mut indices: Vec<Vec<u32>> = vec![vec![]; stream.partitions as usize];
    for (row, identity) in (0_u32..).zip(&identities) {
        indices[identity::partition(*identity, stream.partitions) as usize].push(row);
    }
    let mut parts = vec![];
    for (partition, chosen) in (0..).zip(indices) {
        if !chosen.is_empty() {
            let of_part = chosen.iter().map(|row| identities[*row as usize]).collect();
            parts.push(Part { partition, rows: gather(&rows, chosen)?, identities: of_part });
        }
    }
    Ok(parts)
}

/// The rows at `indices`. Strings are copied, so that no part holds the bytes of another.
pub(crate) fn gather(rows: &RecordBatch, indices: Vec<u32>) -> Result<RecordBatch, ArrowError> {
    let indices = UInt32Array::from(indices);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
    for column in rows.columns() {
        columns.push(match column.data_type() {
            DataType::Utf8View => Arc::new(gather_strings(column.as_string_view(), indices.values())),
            _ => take(column, &indices, None)?,
        });
    }
    RecordBatch::try_new(rows.schema(), columns)
}

fn gather_strings(column: &StringViewArray, indices: &[u32]) -> StringViewArray {
    // The low 32 bits of a view are its length.
    let lengths = indices.iter().map(|row| column.views()[*row as usize] as u32);
    let bytes: usize = lengths.filter(|length| *length > INLINE_BYTES_MAX).map(|length| length as usize).sum();
    let block = u32::try_from(bytes).unwrap_or(u32::MAX / 2).max(1);
    let mut builder = StringViewBuilder::with_capacity(indices.len()).with_fixed_block_size(block);
    if column.null_count() == 0 {
        for row in indices {
            builder.append_value(column.value(*row as usize));
        }
    } else {
        for row in indices.iter().map(|row| *row as usize) {
            builder.append_option(column.is_valid(row).then(|| column.value(row)));
        }
    }
    builder.finish()
}

/// The rows of a part as the log holds them, and the largest event time after them.
pub(crate) fn stamp(
    stream: &StreamDef,
    rows: &RecordBatch,
    append_time_us: i64,
    max_event_time_us: Option<i64>,
) -> Result<(RecordBatch, Option<i64>), ArrowError> {
    let append_times = TimestampMicrosecondArray::from_value(append_time_us, rows.num_rows());
    let (before, after) = running_max(event_times(stream, rows), rows.num_rows(), max_event_time_us);
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(append_times.with_timezone("UTC")));
    columns.push(Arc::new(before.with_timezone("UTC")));
    Ok((RecordBatch::try_new(stream.log_schema(), columns)?, after))
}

/// The event-time column, if the stream has one.
pub(crate) fn event_times<'a>(stream: &StreamDef, rows: &'a RecordBatch) -> Option<&'a TimestampMicrosecondArray> {
    let index = stream.column_index(stream.time_column.as_ref()?)?;
    rows.columns().get(index)?.as_primitive_opt::<TimestampMicrosecondType>()
}

/// Per row the largest event time before it, and the largest of all.
fn running_max(
    times: Option<&TimestampMicrosecondArray>,
    rows: usize,
    mut max_us: Option<i64>,
) -> (TimestampMicrosecondArray, Option<i64>) {
    let Some(times) = times else {
        let constant = max_us.map_or_else(
            || TimestampMicrosecondArray::new_null(rows),
            |max_us| TimestampMicrosecondArray::from_value(max_us, rows),
        );
        return (constant, max_us);
    };
    let mut before = Vec::with_capacity(rows);
    let mut unknown = 0;
    for row in 0..rows {
        unknown += usize::from(max_us.is_none());
        before.push(max_us.unwrap_or(0));
        if times.is_valid(row) {
            max_us = Some(max_us.map_or(times.value(row), |max_us| max_us.max(times.value(row))));
        }
    }
    // Nothing is known before the first event time, ever after it something is.
    let nulls = (unknown > 0).then(|| (0..rows).map(|row| row >= unknown).collect::<NullBuffer>());
    (TimestampMicrosecondArray::new(ScalarBuffer::from(before), nulls), max_us)
}
