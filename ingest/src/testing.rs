//! What the tests of this crate share: a stream, a log in memory whose disk obeys the test.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::column::ColumnDef;
use schemas::{Cut, LatePolicy, Limits, Offset, OnBadData, Partition, SqlType, StreamDef};
use storage::StorageError;
use storage::layers::Logs;
use storage::log::{Frame, Log, Pending, Placed};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::decode::decode;
use crate::payload::{Format, split};

pub(crate) const HOUR_US: i64 = 3_600_000_000;

/// A stream of commits, as in the interfaces' first example.
pub(crate) fn stream(name: &str, partitions: u32) -> StreamDef {
    let column = |name: &str, sql_type, nullable| ColumnDef { name: name.into(), sql_type, nullable };
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: name.into(),
        columns: vec![
            column("id", SqlType::Text, false),
            column("repo", SqlType::Text, true),
            column("files", SqlType::Int, true),
            column("event_time", SqlType::TimestampTz, false),
        ],
        primary_key: vec!["id".into()],
        time_column: Some("event_time".into()),
        watermark_delay_us: 0,
        partitions,
        dedup_horizon_us: 24 * HOUR_US,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        created_at_us: 0,
    }
}

/// Rows of NDJSON that is all good.
pub(crate) fn decode_lines(stream: &StreamDef, lines: &str) -> RecordBatch {
    let records = split(lines.as_bytes(), Format::Ndjson).unwrap();
    let decoded = decode(stream, &Limits::default(), lines.as_bytes(), &records).unwrap();
    assert_eq!(decoded.bad, vec![]);
    decoded.rows
}

/// What the disk of a [`MemoryLog`] does with an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Durable at once.
    Quick,
    /// Waits for [`MemoryLog::flush`].
    Held,
    /// The queue takes nothing.
    Full,
}

type Queued = (Vec<(Partition, RecordBatch)>, oneshot::Sender<Result<Vec<Placed>, StorageError>>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    frames: Vec<Vec<Frame>>,
    queue: Vec<Queued>,
}

#[derive(Debug)]
pub(crate) struct MemoryLog {
    inner: Mutex<Inner>,
    head: watch::Sender<Cut>,
}

impl MemoryLog {
    pub(crate) fn new(partitions: u32) -> Arc<Self> {
        let frames = vec![vec![]; partitions as usize];
        let inner = Mutex::new(Inner { disk: Disk::Quick, frames, queue: vec![] });
        Arc::new(Self { inner, head: watch::Sender::new(Cut::zero(partitions)) })
    }

    pub(crate) fn set(&self, disk: Disk) {
        self.inner.lock().disk = disk;
    }

    pub(crate) fn queued(&self) -> usize {
        self.inner.lock().queue.len()
    }

    /// Ends everything that is queued, well or not.
    pub(crate) fn flush(&self, well: bool) {
        self.flush_first(self.queued(), well);
    }

    /// Ends the oldest `appends` that are queued, well or not: a group of their own.
    pub(crate) fn flush_first(&self, appends: usize, well: bool) {
        let mut inner = self.inner.lock();
        let group: Vec<Queued> = inner.queue.drain(..appends).collect();
        for (rows, done) in group {
            let result =
                if well { Ok(self.place(&mut inner, rows)) } else { Err(StorageError::io("fsync", "no disk")) };
            let _ = done.send(result);
        }
    }

    fn place(&self, inner: &mut Inner, rows: Vec<(Partition, RecordBatch)>) -> Vec<Placed> {
        let mut placed = vec![];
        self.head.send_modify(|head| {
            for (partition, rows) in rows {
                let frame = Frame { partition, base: head.offset(partition), rows };
                placed.push((partition, frame.base..frame.end()));
                head.set(partition, frame.end());
                inner.frames[partition as usize].push(frame);
            }
        });
        placed
    }

    /// All rows of a partition.
    pub(crate) fn rows(&self, partition: Partition) -> Option<RecordBatch> {
        let inner = self.inner.lock();
        let frames = &inner.frames[partition as usize];
        let schema = frames.first()?.rows.schema();
        Some(concat_batches(&schema, frames.iter().map(|frame| &frame.rows)).unwrap())
    }

    /// All values of a text column, over all partitions, sorted.
    pub(crate) fn texts(&self, column: &str) -> Vec<String> {
        use arrow::array::AsArray;
        let partitions = (0..self.partitions()).filter_map(|p| self.rows(p));
        let mut texts: Vec<String> = partitions
            .flat_map(|rows| {
                let column = rows.column_by_name(column).unwrap().as_string_view().clone();
                column.iter().map(|text| text.unwrap_or("null").to_owned()).collect::<Vec<_>>()
            })
            .collect();
        texts.sort();
        texts
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn incarnation(&self) -> Uuid {
        Uuid::from_u128(2)
    }

    fn partitions(&self) -> u32 {
        self.inner.lock().frames.len() as u32
    }

    fn append(&self, rows: Vec<(Partition, RecordBatch)>) -> Result<Pending, StorageError> {
        let mut inner = self.inner.lock();
        let (done, pending) = Pending::new();
        match inner.disk {
            Disk::Full => return Err(StorageError::Full { what: "log queue".into() }),
            Disk::Held => inner.queue.push((rows, done)),
            Disk::Quick => {
                let placed = self.place(&mut inner, rows);
                done.send(Ok(placed)).unwrap();
            }
        }
        Ok(pending)
    }

    fn start(&self) -> Cut {
        Cut::zero(self.partitions())
    }

    fn head(&self) -> Cut {
        self.head.borrow().clone()
    }

    fn watch_head(&self) -> watch::Receiver<Cut> {
        self.head.subscribe()
    }

    async fn read(&self, partition: Partition, from: Offset, rows_max: usize) -> Result<Vec<Frame>, StorageError> {
        let inner = self.inner.lock();
        let mut rows = 0;
        let mut read = vec![];
        for frame in inner.frames[partition as usize].iter().filter_map(|f| f.clip(&(from..Offset::MAX))) {
            if rows >= rows_max {
                break;
            }
            rows += frame.rows.num_rows();
            read.push(frame);
        }
        Ok(read)
    }

    async fn truncate(&self, _below: &Cut) -> Result<(), StorageError> {
        Ok(())
    }

    async fn close(&self) {}
}

/// The logs of one stream.
#[derive(Debug)]
pub(crate) struct MemoryLogs {
    pub(crate) logs: BTreeMap<Uuid, Arc<MemoryLog>>,
    pub(crate) dead_letters: Arc<MemoryLog>,
}

impl Logs for MemoryLogs {
    fn log(&self, stream: Uuid) -> Option<Arc<dyn Log>> {
        self.logs.get(&stream).map(|log| Arc::clone(log) as Arc<dyn Log>)
    }

    fn dead_letters(&self, stream: Uuid) -> Option<Arc<dyn Log>> {
        self.logs.contains_key(&stream).then(|| Arc::clone(&self.dead_letters) as Arc<dyn Log>)
    }
}
