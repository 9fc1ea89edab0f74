//! How far a topic has been read, from what is durable: the last record of each partition, the dead letters,
//! and the position that was noted last.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use schemas::column::{SOURCE_EPOCH, SOURCE_OFFSET};
use schemas::documents::source::{Epoch, SourcePosition};
use schemas::limits::MICRO_BATCH_ROWS;
use schemas::{Offset, Partition};
use storage::StorageError;
use storage::log::Log;

use crate::admission::last_record;
use crate::dead_letters::{TOPIC_ID, TOPIC_OFFSET, TOPIC_PARTITION};

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// Per partition the next offset of the topic: everything below is durable.
    pub(super) next: Vec<Offset>,
    /// Per partition, bad records below it have their dead letters already.
    pub(super) letters_below: Vec<Offset>,
}

/// Reads them.
pub(super) async fn recover(
    log: &dyn Log,
    dead_letters: &dyn Log,
    epoch: &Epoch,
    position: Option<SourcePosition>,
    partitions: u32,
) -> Result<Places, StorageError> {
    let position = position.filter(|position| position.epoch == epoch.number);
    let noted = |list: &[Offset], partition: Partition| list.get(partition as usize).copied().unwrap_or(0);
    let mut next = vec![];
    for partition in 0..partitions {
        // one that was noted for a longer log, by a process on a copy of the data folder, would skip what this one lacks
        let is_of_this_log =
            |position: &&SourcePosition| noted(&position.log, partition) <= log.head().offset(partition);
        let known = position.as_ref().filter(is_of_this_log).map_or(0, |position| noted(&position.next, partition));
        let last = if partition < log.partitions() { last_record(log, partition).await? } else { None };
        let recorded = last.and_then(|last| source_of(&last)).filter(|(of, _)| *of == epoch.number);
        let after = recorded.map_or(0, |(_, offset)| offset + 1);
        next.push(noted(&epoch.starts, partition).max(known).max(after));
    }
    let since = position.map(|position| position.letters).filter(|letters| *letters <= dead_letters.head().offset(0));
    let since = since.unwrap_or(epoch.letters_from);
    let mut letters_below = vec![0; partitions as usize];
    note_letters(dead_letters, since, &epoch.topic_id.to_string(), &mut letters_below).await?;
    Ok(Places { next, letters_below })
}

/// Epoch and offset of a row.
fn source_of(row: &RecordBatch) -> Option<(u32, Offset)> {
    let epoch = row.column_by_name(SOURCE_EPOCH)?.as_primitive_opt::<Int32Type>()?;
    let offset = row.column_by_name(SOURCE_OFFSET)?.as_primitive_opt::<Int64Type>()?;
    Some((u32::try_from(epoch.value(0)).ok()?, Offset::try_from(offset.value(0)).ok()?))
}

async fn note_letters(log: &dyn Log, since: Offset, topic_id: &str, below: &mut [Offset]) -> Result<(), StorageError> {
    let (mut from, head) = (since.max(log.start().offset(0)), log.head().offset(0));
    while from < head {
        let frames = log.read(0, from, MICRO_BATCH_ROWS).await?;
        let Some(last) = frames.last() else {
            let reason = format!("nothing at offset {from} below the head {head}");
            return Err(StorageError::Damaged { path: format!("log {}", log.incarnation()), reason });
        };
        from = last.end();
        for frame in &frames {
            note_frame(&frame.rows, topic_id, below);
        }
    }
    Ok(())
}

fn note_frame(rows: &RecordBatch, topic_id: &str, below: &mut [Offset]) {
    let ids = rows.column_by_name(TOPIC_ID).and_then(|column| column.as_string_view_opt());
    let partitions = rows.column_by_name(TOPIC_PARTITION).and_then(|column| column.as_primitive_opt::<Int32Type>());
    let offsets = rows.column_by_name(TOPIC_OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let (Some(ids), Some(partitions), Some(offsets)) = (ids, partitions, offsets) else { return };
    for row in (0..rows.num_rows()).filter(|row| ids.is_valid(*row) && ids.value(*row) == topic_id) {
        let Some(place) = below.get_mut(partitions.value(row) as usize) else { continue };
        *place = (*place).max(offsets.value(row) as Offset + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array};
    use storage::log::{Frame, MemoryLog};
    use uuid::Uuid;

    use super::*;

    /// Records of one partition that were read at these offsets of the topic.
    fn log(offsets: &[i64]) -> Arc<MemoryLog> {
        let log = MemoryLog::new(Uuid::from_u128(2), 1);
        let epochs: ArrayRef = Arc::new(Int32Array::from_value(4, offsets.len()));
        let offsets: ArrayRef = Arc::new(Int64Array::from(offsets.to_vec()));
        let rows = RecordBatch::try_from_iter([(SOURCE_EPOCH, epochs), (SOURCE_OFFSET, offsets)]).unwrap();
        log.push(Frame { partition: 0, base: 0, rows });
        log
    }

    /// H6, R-024: a process on a copy of the data folder has read on; what this log lacks is read again.
    #[tokio::test]
    async fn position_of_a_longer_log_is_not_gone_by() {
        let epoch =
            Epoch { number: 4, topic_id: Uuid::from_u128(7), starts: vec![10], letters_from: 0, began_at_us: 0 };
        let letters = MemoryLog::new(Uuid::from_u128(3), 1);
        let next = async |position: Option<(u64, Vec<Offset>)>| {
            let position =
                position.map(|(next, log)| SourcePosition { format: 1, epoch: 4, next: vec![next], letters: 0, log });
            recover(&*log(&[10, 11, 14]), &*letters, &epoch, position, 1).await.unwrap().next
        };
        assert_eq!(next(None).await, [15], "behind the last record");
        assert_eq!(next(Some((40, vec![3]))).await, [40], "what follows were duplicates");
        assert_eq!(next(Some((40, vec![4]))).await, [15], "another log's");
        assert_eq!(next(Some((40, vec![]))).await, [40], "written before logs were noted");
    }
}
