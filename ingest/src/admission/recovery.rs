//! What a partition's log says about its state: ids within the horizon, last append time, largest
//! event time.

use std::ops::Range;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use schemas::column::{APPEND_TIME, MAX_EVENT_TIME};
use schemas::limits::MICRO_BATCH_ROWS;
use schemas::{Offset, Partition, StreamDef};
use storage::StorageError;
use storage::log::{Frame, Log};

use super::Admission;
use super::index::{Horizon, Index};
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
pub(super) async fn recover(admission: &Admission, now_us: i64) -> Result<Recovered, StorageError> {
    let (stream, log) = (admission.stream.as_ref(), admission.log.as_ref());
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
        let next = log.head().offset(partition);
        let index = if stream.primary_key.is_empty() {
            Index::new(Horizon::new(stream.dedup_horizon_us), next, None)
        } else {
            recover_index(admission, partition, next, now_us).await?
        };
        let max_event_time_us = last.and_then(|rows| largest_event_time(stream, &rows));
        partitions.push(PartitionState { next, max_event_time_us, index });
    }
    Ok(Recovered { partitions, last_append_us })
}

/// The runs on disk as far as they reach, the log from there on.
async fn recover_index(
    admission: &Admission,
    partition: Partition,
    head: Offset,
    now_us: i64,
) -> Result<Index, StorageError> {
    let log = admission.log.as_ref();
    let horizon = Horizon::new(admission.stream.dedup_horizon_us);
    let all = log.start().offset(partition)..head;
    let needed = first_since(log, partition, all, horizon.since_us(now_us)).await?;
    let disk = admission.disk(partition);
    let runs = match disk.clone() {
        Some(disk) => blocking(move || disk.recover(needed, head)).await?,
        None => vec![],
    };
    let mut index = Index::new(horizon, needed, disk);
    for run in runs {
        index.adopt(run);
    }
    remember_ids(admission, partition, &mut index, head).await?;
    Ok(index)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StorageError::io("reading the ids", error)))
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
    admission: &Admission,
    partition: Partition,
    index: &mut Index,
    head: Offset,
) -> Result<(), StorageError> {
    let (stream, log) = (admission.stream.as_ref(), admission.log.as_ref());
    let mut from = index.end();
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
            for (row, (offset, id)) in (frame.base..).zip(ids.unwrap_or_default()).enumerate() {
                index.note_time(append_time(&frame.rows, row), offset);
                index.keep(id, offset);
            }
        }
        from = end;
        if index.is_due(admission.table_ids_max())
            && let Some((frozen, disk)) = index.freeze(from)
        {
            index.spilled(blocking(move || disk.write(&frozen)).await?);
        }
    }
    Ok(())
}

/// The first offset of a range whose append time is not before `since_us`: append times never decrease.
pub(crate) async fn first_since(
    log: &dyn Log,
    partition: Partition,
    range: Range<Offset>,
    since_us: i64,
) -> Result<Offset, StorageError> {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if append_time_at(log, partition, middle).await? < since_us { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

/// Append time of the record at `offset`.
pub(crate) async fn append_time_at(log: &dyn Log, partition: Partition, offset: Offset) -> Result<i64, StorageError> {
    Ok(append_time(&record_at(log, partition, offset).await?.rows, 0))
}

fn append_time(rows: &RecordBatch, row: usize) -> i64 {
    time(rows, APPEND_TIME, row).unwrap_or(i64::MIN)
}

fn time(rows: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let times = rows.column_by_name(column)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    times.is_valid(row).then(|| times.value(row))
}
