//! What a partition's log says about its state: ids within the horizon, last append time, largest
//! event time.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use schemas::column::{APPEND_TIME, MAX_EVENT_TIME};
use schemas::limits::MICRO_BATCH_ROWS;
use schemas::{Offset, Partition, StreamDef};
use storage::StorageError;
use storage::log::{Frame, Log};

use super::index::Index;
use super::parts::event_times;
use crate::identity;

/// One partition, as of the log's head.
#[derive(Debug)]
pub(crate) struct PartitionState {
    /// Offset of the next record.
    pub(crate) next: Offset,
    pub(crate) max_event_time_us: Option<i64>,
    pub(crate) index: Index,
}

/// All partitions, as of the log's head; nothing may be appended meanwhile.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) partitions: Vec<PartitionState>,
    pub(crate) last_append_us: i64,
}

/// Reads what is within the horizon of `now_us`.
pub(crate) async fn recover(stream: &StreamDef, log: &dyn Log, now_us: i64) -> Result<Recovered, StorageError> {
    let mut last_append_us = i64::MIN;
    let mut lasts = vec![];
    for partition in 0..log.partitions() {
        let last = last_record(log, partition).await?;
        last_append_us = last.as_ref().map_or(last_append_us, |last| last_append_us.max(append_time(last, 0)));
        lasts.push(last);
    }
    let now_us = now_us.max(last_append_us);
    let mut partitions = vec![];
    for (partition, last) in (0..).zip(lasts) {
        let mut index = Index::new(stream.dedup_horizon_us, now_us);
        if !stream.primary_key.is_empty() {
            remember_ids(stream, log, partition, &mut index, now_us).await?;
        }
        let max_event_time_us = last.and_then(|rows| largest_event_time(stream, &rows));
        partitions.push(PartitionState { next: log.head().offset(partition), max_event_time_us, index });
    }
    Ok(Recovered { partitions, last_append_us })
}

/// The last record alone: its columns tell all about the records before it, but for their ids.
pub(crate) async fn last_record(log: &dyn Log, partition: Partition) -> Result<Option<RecordBatch>, StorageError> {
    let head = log.head().offset(partition);
    if head <= log.start().offset(partition) {
        return Ok(None);
    }
    let frame = record_at(log, partition, head - 1).await?;
    Ok(Some(frame.rows.slice(0, 1)))
}

/// Append time of the last record of a partition, if it has one.
pub(crate) async fn last_append_time(log: &dyn Log, partition: Partition) -> Result<Option<i64>, StorageError> {
    Ok(last_record(log, partition).await?.map(|last| append_time(&last, 0)))
}

/// The frame whose first row is the record at `offset`.
async fn record_at(log: &dyn Log, partition: Partition, offset: Offset) -> Result<Frame, StorageError> {
    let first = log.read(partition, offset, 1).await?.into_iter().next();
    first.filter(|frame| frame.rows.num_rows() > 0).ok_or_else(|| StorageError::Damaged {
        path: format!("log {}, partition {partition}", log.incarnation()),
        reason: format!("no record at offset {offset}"),
    })
}

fn largest_event_time(stream: &StreamDef, last: &RecordBatch) -> Option<i64> {
    let before = time(last, MAX_EVENT_TIME, 0);
    let own = event_times(stream, last).filter(|times| times.is_valid(0)).map(|times| times.value(0));
    before.max(own)
}

async fn remember_ids(
    stream: &StreamDef,
    log: &dyn Log,
    partition: Partition,
    index: &mut Index,
    now_us: i64,
) -> Result<(), StorageError> {
    let since_us = now_us.saturating_sub(stream.dedup_horizon_us);
    let mut from = first_since(log, partition, since_us).await?;
    let head = log.head().offset(partition);
    while from < head {
        let frames = log.read(partition, from, MICRO_BATCH_ROWS).await?;
        let end = frames.last().map_or(from, Frame::end);
        if end <= from {
            return Err(StorageError::Damaged {
                path: format!("log {}, partition {partition}", log.incarnation()),
                reason: format!("nothing at offset {from} below the head {head}"),
            });
        }
        for frame in frames {
            let ids = identity::identities(stream, &frame.rows).map_err(|p| StorageError::io("reading ids", p))?;
            for (row, id) in ids.unwrap_or_default().into_iter().enumerate() {
                index.remember(id, append_time(&frame.rows, row));
            }
        }
        from = end;
    }
    Ok(())
}

/// The first offset whose append time is not before `since_us`: append times never decrease.
async fn first_since(log: &dyn Log, partition: Partition, since_us: i64) -> Result<Offset, StorageError> {
    let (mut low, mut high) = (log.start().offset(partition), log.head().offset(partition));
    while low < high {
        let middle = low + (high - low) / 2;
        let frame = record_at(log, partition, middle).await?;
        if append_time(&frame.rows, 0) < since_us { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

fn append_time(rows: &RecordBatch, row: usize) -> i64 {
    time(rows, APPEND_TIME, row).unwrap_or(i64::MIN)
}

fn time(rows: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let times = rows.column_by_name(column)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    times.is_valid(row).then(|| times.value(row))
}
