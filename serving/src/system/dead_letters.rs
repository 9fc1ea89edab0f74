//! `dlq.<stream>`: the dead-letter log as a table.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use schemas::column::is_reserved;
use schemas::{Code, Problem, StreamDef};
use storage::log::Frame;

use crate::parts::Parts;

/// The newest dead letters that are shown.
const SHOWN_MAX: u64 = 100_000;
/// Rows read at once.
const READ_ROWS: usize = 8_192;

/// The newest dead letters of a stream: partition, offset, the log's own columns. Bytes that are UTF-8 become
/// text, others `\x…`, as PostgreSQL writes them.
pub(crate) async fn dead_letters(parts: &Parts, stream: &StreamDef) -> Result<Vec<RecordBatch>, Problem> {
    let mut all = vec![];
    if let Some(log) = parts.logs.dead_letters(stream.id) {
        let share = SHOWN_MAX / u64::from(log.partitions().max(1));
        for partition in 0..log.partitions() {
            let end = log.head().offset(partition);
            let mut from = log.start().offset(partition).max(end.saturating_sub(share));
            while from < end {
                let frames = log.read(partition, from, READ_ROWS).await.map_err(|e| e.problem())?;
                let Some(last) = frames.last() else { break };
                from = last.end();
                for frame in &frames {
                    all.push(readable(frame)?);
                }
            }
        }
    }
    if all.is_empty() {
        all.push(RecordBatch::new_empty(readable_schema(&parts.dead_letter_schema)));
    }
    Ok(all)
}

fn readable_schema(stored: &SchemaRef) -> SchemaRef {
    let mut fields =
        vec![Field::new("partition", DataType::Int32, false), Field::new("offset", DataType::Int64, false)];
    fields.extend(shown(stored).map(|(_, field)| match field.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            Field::new(field.name(), DataType::Utf8, true)
        }
        other => Field::new(field.name(), other.clone(), field.is_nullable()),
    }));
    Arc::new(Schema::new(fields))
}

/// The columns that are not the log's own.
fn shown(stored: &SchemaRef) -> impl Iterator<Item = (usize, &FieldRef)> {
    stored.fields().iter().enumerate().filter(|(_, field)| !is_reserved(field.name()))
}

fn readable(frame: &Frame) -> Result<RecordBatch, Problem> {
    let rows = &frame.rows;
    let count = rows.num_rows();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_value(frame.partition as i32, count)),
        Arc::new(Int64Array::from_iter_values((0..count as i64).map(|row| frame.base as i64 + row))),
    ];
    columns.extend(shown(&rows.schema()).map(|(index, _)| as_text(rows.column(index))));
    RecordBatch::try_new(readable_schema(&rows.schema()), columns)
        .map_err(|e| Problem::new(Code::Internal, format!("the dead letters: {e}")))
}

fn as_text(column: &ArrayRef) -> ArrayRef {
    let text = |bytes: Option<&[u8]>| {
        bytes.map(|bytes| std::str::from_utf8(bytes).map_or_else(|_| crate::format::hex(bytes), str::to_owned))
    };
    match column.data_type() {
        DataType::Binary => Arc::new(column.as_binary::<i32>().iter().map(text).collect::<StringArray>()),
        DataType::LargeBinary => Arc::new(column.as_binary::<i64>().iter().map(text).collect::<StringArray>()),
        DataType::BinaryView => Arc::new(column.as_binary_view().iter().map(text).collect::<StringArray>()),
        _ => Arc::clone(column),
    }
}
