//! `dlq.<stream>`: the dead-letter log as a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use schemas::column::{is_reserved, timestamp_type};
use schemas::{Code, Offset, Problem, StreamDef};
use storage::footprint::bytes_of;
use storage::log::{Frame, Log};

use super::Listed;
use crate::parts::Parts;

/// The newest dead letters that are shown.
const SHOWN_MAX: u64 = 100_000;
/// Their bytes, if the memory of a query is not less.
const SHOWN_BYTES_MAX: usize = 128 << 20;
/// Rows read at once: with records of the largest size that is taken this stays bearable.
const READ_ROWS: u64 = 256;

/// The newest dead letters of a stream: partition, offset, the log's own columns. Bytes that are UTF-8 become
/// text, others `\x…`, as PostgreSQL writes them. Every partition has the same share of rows and bytes.
pub(crate) async fn dead_letters(parts: &Parts, stream: &StreamDef) -> Result<Listed, Problem> {
    let (mut all, mut cut) = (vec![], false);
    let Some(log) = parts.logs.dead_letters(stream.id) else {
        let what = format!("the dead letters of {} are where its events are taken in", stream.name);
        return Err(Problem::new(Code::Unsupported, what).with_hint("ask the node with the role ingest"));
    };
    let partitions = log.partitions().max(1);
    let rows_max = SHOWN_MAX / u64::from(partitions);
    let bytes_max = SHOWN_BYTES_MAX.min(parts.limits.query_memory_bytes) / partitions as usize;
    for partition in 0..log.partitions() {
        cut |= newest(&*log, partition, rows_max, bytes_max, &mut all).await?;
    }
    if all.is_empty() {
        all.push(RecordBatch::new_empty(readable_schema(&parts.dead_letter_schema)));
    }
    let replayed = match &parts.intake {
        Some(intake) => intake.replayed(stream.id).await?,
        None => BTreeMap::new(),
    };
    let marked: Result<Vec<RecordBatch>, Problem> = all.iter().map(|rows| with_marks(rows, &replayed)).collect();
    Ok(Listed { rows: marked?, cut })
}

/// The letters with the time of their replay: a mark among the receipts, the letter itself is as it was.
fn with_marks(rows: &RecordBatch, replayed: &BTreeMap<Offset, i64>) -> Result<RecordBatch, Problem> {
    let offsets = rows.column(1).as_primitive::<Int64Type>().values().iter();
    let times: TimestampMicrosecondArray = offsets.map(|offset| replayed.get(&(*offset as Offset)).copied()).collect();
    let mut fields: Vec<FieldRef> = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("replayed_at", timestamp_type(), true)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(times.with_timezone("UTC")));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| Problem::new(Code::Internal, format!("the dead letters: {e}")))
}

/// Adds the newest dead letters of one partition, from the end on backwards; true if older ones were left out.
async fn newest(
    log: &dyn Log,
    partition: u32,
    rows_max: u64,
    bytes_max: usize,
    all: &mut Vec<RecordBatch>,
) -> Result<bool, Problem> {
    let (start, end) = (log.start().offset(partition), log.head().offset(partition));
    let first = start.max(end.saturating_sub(rows_max));
    let (mut shown, mut bytes, mut until) = (vec![], 0, end);
    while until > first {
        let from = first.max(until.saturating_sub(READ_ROWS));
        let window = window(log, partition, from, until).await?;
        bytes += window.iter().map(bytes_of).sum::<usize>();
        if bytes > bytes_max {
            break;
        }
        shown.push(window);
        until = from;
    }
    all.extend(shown.into_iter().rev().flatten());
    Ok(until > start)
}

async fn window(log: &dyn Log, partition: u32, mut from: u64, until: u64) -> Result<Vec<RecordBatch>, Problem> {
    let mut rows = vec![];
    while from < until {
        let wanted = usize::try_from(until - from).unwrap_or(usize::MAX);
        let frames = log.read(partition, from, wanted).await.map_err(|e| e.problem())?;
        let Some(last) = frames.last() else { break };
        for frame in frames.iter().filter_map(|frame| frame.clip(&(from..until))) {
            rows.push(readable(&frame)?);
        }
        from = last.end();
    }
    Ok(rows)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, BinaryArray};
    use arrow::datatypes::Int64Type;
    use arrow::record_batch::RecordBatch;
    use schemas::Cut;
    use storage::log::{Frame, Log, MemoryLog};
    use uuid::Uuid;

    /// A thousand records of a hundred bytes, of which the first ten are given up; frames of 300.
    async fn thousand() -> Arc<MemoryLog> {
        let log = MemoryLog::new(Uuid::nil(), 1);
        for base in [0, 300, 600, 900] {
            let raw = BinaryArray::from_iter_values((base..1_000.min(base + 300)).map(|_| [b'x'; 100]));
            let rows = RecordBatch::try_from_iter(vec![("raw", Arc::new(raw) as _)]).unwrap();
            log.push(Frame { partition: 0, base, rows });
        }
        log.truncate(&Cut(vec![10])).await.unwrap();
        log
    }

    #[tokio::test]
    async fn newest_are_shown_in_order_within_rows_and_bytes() {
        let log = thousand().await;
        for (rows_max, bytes_max, shown, cut) in [
            (100_000, usize::MAX, 10..1_000, false),
            (990, usize::MAX, 10..1_000, false),
            (600, usize::MAX, 400..1_000, true),
            (100_000, 70_000, 488..1_000, true),
            (100_000, 100, 1_000..1_000, true),
        ] {
            let mut all = vec![];
            let found = super::newest(log.as_ref(), 0, rows_max, bytes_max, &mut all).await.unwrap();
            let offsets = all.iter().flat_map(|rows| rows.column(1).as_primitive::<Int64Type>().values().to_vec());
            assert_eq!((offsets.collect::<Vec<_>>(), found), (shown.collect(), cut), "{rows_max} {bytes_max}");
        }
    }
}
