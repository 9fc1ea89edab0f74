//! What the tests of this crate share: a stream, its logs in memory, and what is in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use schemas::column::ColumnDef;
use schemas::{LatePolicy, Limits, OnBadData, Partition, SqlType, StreamDef};
use storage::layers::Logs;
use storage::log::{Log, MemoryLog};
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
        transport: schemas::Transport::default(),
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

/// An empty log of [`stream`].
pub(crate) fn log(partitions: u32) -> Arc<MemoryLog> {
    MemoryLog::new(Uuid::from_u128(2), partitions)
}

/// What is in a log.
pub(crate) trait Content {
    /// All rows of a partition.
    fn rows(&self, partition: Partition) -> Option<RecordBatch>;

    /// All values of a text column, over all partitions, sorted.
    fn texts(&self, column: &str) -> Vec<String>;
}

impl Content for MemoryLog {
    fn rows(&self, partition: Partition) -> Option<RecordBatch> {
        let frames = self.frames();
        let rows: Vec<_> = frames.iter().filter(|f| f.partition == partition).map(|frame| &frame.rows).collect();
        let schema = rows.first()?.schema();
        Some(concat_batches(&schema, rows).unwrap())
    }

    fn texts(&self, column: &str) -> Vec<String> {
        let text = |text: Option<&str>| text.unwrap_or("null").to_owned();
        let of = |rows: &RecordBatch| -> Vec<String> {
            rows.column_by_name(column).unwrap().as_string_view().iter().map(text).collect()
        };
        let mut texts: Vec<String> = self.frames().iter().flat_map(|frame| of(&frame.rows)).collect();
        texts.sort();
        texts
    }
}

/// The logs of one stream.
#[derive(Debug)]
pub(crate) struct MemoryLogs {
    pub(crate) logs: BTreeMap<Uuid, Arc<MemoryLog>>,
    pub(crate) dead_letters: Arc<MemoryLog>,
    pub(crate) receipts: Arc<MemoryLog>,
}

impl Logs for MemoryLogs {
    fn log(&self, stream: Uuid) -> Option<Arc<dyn Log>> {
        self.logs.get(&stream).map(|log| Arc::clone(log) as Arc<dyn Log>)
    }

    fn dead_letters(&self, stream: Uuid) -> Option<Arc<dyn Log>> {
        self.logs.contains_key(&stream).then(|| Arc::clone(&self.dead_letters) as Arc<dyn Log>)
    }

    fn receipts(&self, stream: Uuid) -> Option<Arc<dyn Log>> {
        self.logs.contains_key(&stream).then(|| Arc::clone(&self.receipts) as Arc<dyn Log>)
    }
}
