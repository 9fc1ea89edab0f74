//! Bad records, kept as they were sent: `dlq.<stream>`.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, RecordBatch, StringViewArray, StringViewBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parking_lot::Mutex;
use schemas::column::{APPEND_TIME, MAX_EVENT_TIME, timestamp_type};
use schemas::limits::DEAD_LETTER_BYTES_MAX;
use schemas::{Offset, Partition};
use storage::StorageError;
use storage::clock::Clock;
use storage::log::{Log, Pending};
use tokio::sync::OnceCell;

use crate::admission::last_append_time;
use crate::decode::BadRecord;

/// The topic that a bad record was read from.
const TOPIC: &str = "topic";
/// The topic's id.
pub(crate) const TOPIC_ID: &str = "topic_id";
/// The partition of the topic.
pub(crate) const TOPIC_PARTITION: &str = "topic_partition";
/// The offset in the topic.
pub(crate) const TOPIC_OFFSET: &str = "topic_offset";

/// Rows of every dead-letter log. It has one partition.
pub fn dead_letter_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("received_at", timestamp_type(), false),
            Field::new("code", DataType::Utf8View, false),
            Field::new("column", DataType::Utf8View, true),
            Field::new("message", DataType::Utf8View, false),
            Field::new("raw", DataType::Binary, false),
            Field::new("content_type", DataType::Utf8View, false),
            Field::new("request_id", DataType::Utf8View, false),
            Field::new(TOPIC, DataType::Utf8View, true),
            Field::new(TOPIC_ID, DataType::Utf8View, true),
            Field::new(TOPIC_PARTITION, DataType::Int32, true),
            Field::new(TOPIC_OFFSET, DataType::Int64, true),
            Field::new(APPEND_TIME, timestamp_type(), false),
            Field::new(MAX_EVENT_TIME, timestamp_type(), true),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// What the dead letters of one request have in common.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) content_type: String,
    pub(crate) request_id: String,
    /// None for a request.
    pub(crate) topic: Option<TopicPlace>,
}

/// Where bad records are in a topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicPlace {
    pub(crate) topic: String,
    pub(crate) topic_id: String,
    pub(crate) partition: Partition,
    /// Of each bad record.
    pub(crate) offsets: Vec<Offset>,
}

/// The dead-letter log of one stream. Nobody else appends to it.
///
/// A request that fails and is sent again leaves its dead letters twice, told apart by `request_id`.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    last_append_us: OnceCell<Mutex<i64>>,
}

impl DeadLetters {
    pub(crate) fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock, last_append_us: OnceCell::new() }
    }

    /// Queues the bad records of a request.
    ///
    /// # Errors
    /// As the log's append.
    pub(crate) async fn queue(
        &self,
        payload: &[u8],
        bad: &[BadRecord],
        sender: &Sender,
    ) -> Result<Pending, StorageError> {
        let recover =
            || async { last_append_time(self.log.as_ref(), 0).await.map(|last| Mutex::new(last.unwrap_or(i64::MIN))) };
        let last_append_us = self.last_append_us.get_or_try_init(recover).await?;
        let mut last_append_us = last_append_us.lock();
        let received_us = self.clock.now_us();
        *last_append_us = received_us.max(*last_append_us);
        let rows = letters(payload, bad, sender, received_us, *last_append_us)
            .map_err(|error| StorageError::io("writing dead letters", error))?;
        self.log.append(self.log.epoch(), vec![(0, rows)])
    }
}

fn letters(
    payload: &[u8],
    bad: &[BadRecord],
    sender: &Sender,
    received_us: i64,
    append_us: i64,
) -> Result<RecordBatch, ArrowError> {
    let utc = |time_us| TimestampMicrosecondArray::from_value(time_us, bad.len()).with_timezone("UTC");
    let mut raw = BinaryBuilder::new();
    let mut texts: [StringViewBuilder; 5] = std::array::from_fn(|_| StringViewBuilder::with_capacity(bad.len()));
    for BadRecord { error, bytes } in bad {
        let sent = payload.get(bytes.clone()).unwrap_or_default();
        raw.append_value(&sent[..sent.len().min(DEAD_LETTER_BYTES_MAX)]);
        let [code, column, message, content_type, request_id] = &mut texts;
        code.append_value(&error.code);
        column.append_option(error.column.as_ref());
        message.append_value(&error.message);
        content_type.append_value(&sender.content_type);
        request_id.append_value(&sender.request_id);
    }
    let [code, column, message, content_type, request_id] = texts.map(|mut text| Arc::new(text.finish()));
    let [topic, topic_id, partitions, offsets] = place_columns(sender.topic.as_ref(), bad.len());
    let max_event_times = TimestampMicrosecondArray::new_null(bad.len()).with_timezone("UTC");
    RecordBatch::try_new(
        dead_letter_schema(),
        vec![
            Arc::new(utc(received_us)),
            code,
            column,
            message,
            Arc::new(raw.finish()),
            content_type,
            request_id,
            topic,
            topic_id,
            partitions,
            offsets,
            Arc::new(utc(append_us)),
            Arc::new(max_event_times),
        ],
    )
}

fn place_columns(place: Option<&TopicPlace>, letters: usize) -> [ArrayRef; 4] {
    let text = |of: fn(&TopicPlace) -> &str| -> ArrayRef {
        Arc::new((0..letters).map(|_| place.map(of)).collect::<StringViewArray>())
    };
    let partitions: Int32Array = (0..letters).map(|_| place.map(|place| place.partition as i32)).collect();
    let offset = |row: usize| place.and_then(|place| place.offsets.get(row)).map(|offset| *offset as i64);
    let offsets: Int64Array = (0..letters).map(offset).collect();
    [text(|place| &place.topic), text(|place| &place.topic_id), Arc::new(partitions), Arc::new(offsets)]
}
