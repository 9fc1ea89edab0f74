//! A dead letter as a row. Stored: columns are added before the log's own, never changed.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Int32Array, Int64Array, RecordBatch, StringViewArray, StringViewBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use schemas::Offset;
use schemas::column::{APPEND_TIME, MAX_EVENT_TIME, timestamp_type};
use storage::log::Frame;

use super::{Sender, TopicPlace};
use crate::decode::BadRecord;
use crate::times::{ClockSync, Timing};

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
            Field::new("index", DataType::Int64, false),
            Field::new("bytes", DataType::Int64, false),
            Field::new("sent_at", timestamp_type(), true),
            Field::new("clock_offset_us", DataType::Int64, true),
            Field::new("clock_round_trip_us", DataType::Int64, true),
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

/// A record that did not fit, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its name: the offset in the dead-letter log.
    pub offset: Offset,
    /// When its request was received, microseconds.
    pub received_us: i64,
    /// What is wrong.
    pub code: String,
    /// The column at fault, where one is.
    pub column: Option<String>,
    /// What is wrong, in words.
    pub message: String,
    /// The bytes as they were sent.
    pub raw: Vec<u8>,
    /// As the client named it.
    pub content_type: String,
    /// Letters of one request have one.
    pub request_id: String,
    /// Place in its request, from 0.
    pub index: u64,
    /// How many bytes were sent; more than `raw` has if the record was larger than any that is taken.
    pub bytes: u64,
    /// The client's clock when it sent the request, microseconds.
    pub sent_us: Option<i64>,
    /// What the client knew of its clock.
    pub clock: Option<ClockSync>,
}

impl Letter {
    /// True if all bytes are there.
    pub fn is_whole(&self) -> bool {
        self.bytes == self.raw.len() as u64
    }

    /// The times of its request.
    pub fn timing(&self) -> Timing {
        Timing { received_us: Some(self.received_us), sent_us: self.sent_us, clock: self.clock }
    }
}

/// The bad records of a request, of each at most `raw_bytes_max` bytes.
pub(super) fn encode(
    payload: &[u8],
    bad: &[BadRecord],
    sender: &Sender,
    raw_bytes_max: usize,
    append_us: i64,
) -> Result<RecordBatch, ArrowError> {
    let rows = bad.len();
    let times = |time_us: Option<i64>| -> ArrayRef {
        let times: TimestampMicrosecondArray = std::iter::repeat_n(time_us, rows).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let numbers = |number: Option<i64>| -> ArrayRef {
        let numbers: Int64Array = std::iter::repeat_n(number, rows).collect();
        Arc::new(numbers)
    };
    let mut raw = BinaryBuilder::new();
    let mut texts: [StringViewBuilder; 5] = std::array::from_fn(|_| StringViewBuilder::with_capacity(rows));
    for BadRecord { error, bytes } in bad {
        let sent = payload.get(bytes.clone()).unwrap_or_default();
        raw.append_value(&sent[..sent.len().min(raw_bytes_max)]);
        let [code, column, message, content_type, request_id] = &mut texts;
        code.append_value(&error.code);
        column.append_option(error.column.as_ref());
        message.append_value(&error.message);
        content_type.append_value(&sender.content_type);
        request_id.append_value(&sender.request_id);
    }
    let [code, column, message, content_type, request_id] = texts.map(|mut text| Arc::new(text.finish()));
    let timing = sender.timing;
    let [topic, topic_id, partitions, offsets] = place_columns(sender.topic.as_ref(), rows);
    RecordBatch::try_new(
        dead_letter_schema(),
        vec![
            times(Some(timing.received_us.unwrap_or(append_us))),
            code,
            column,
            message,
            Arc::new(raw.finish()),
            content_type,
            request_id,
            Arc::new(Int64Array::from_iter_values(bad.iter().map(|record| record.error.index as i64))),
            Arc::new(Int64Array::from_iter_values(bad.iter().map(|record| record.bytes.len() as i64))),
            times(timing.sent_us),
            numbers(timing.clock.map(|clock| clock.offset_us)),
            numbers(timing.clock.map(|clock| clock.round_trip_us)),
            topic,
            topic_id,
            partitions,
            offsets,
            times(Some(append_us)),
            times(None),
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

/// The letters of a frame; none if it has other columns.
pub(super) fn decode(frame: &Frame) -> Option<Vec<Letter>> {
    let rows = &frame.rows;
    let text = |name: &str| rows.column_by_name(name)?.as_string_view_opt();
    let time = |name: &str| rows.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>();
    let number = |name: &str| rows.column_by_name(name)?.as_primitive_opt::<Int64Type>();
    let (code, column, message) = (text("code")?, text("column")?, text("message")?);
    let (content_type, request_id) = (text("content_type")?, text("request_id")?);
    let (received, sent) = (time("received_at")?, time("sent_at")?);
    let (index, bytes) = (number("index")?, number("bytes")?);
    let (clock_offset, round_trip) = (number("clock_offset_us")?, number("clock_round_trip_us")?);
    let raw = rows.column_by_name("raw")?.as_binary_opt::<i32>()?;
    let letter = |row: usize| Letter {
        offset: frame.base + row as u64,
        received_us: received.value(row),
        code: code.value(row).to_owned(),
        column: column.is_valid(row).then(|| column.value(row).to_owned()),
        message: message.value(row).to_owned(),
        raw: raw.value(row).to_vec(),
        content_type: content_type.value(row).to_owned(),
        request_id: request_id.value(row).to_owned(),
        index: index.value(row) as u64,
        bytes: bytes.value(row) as u64,
        sent_us: sent.is_valid(row).then(|| sent.value(row)),
        clock: (clock_offset.is_valid(row) && round_trip.is_valid(row))
            .then(|| ClockSync { offset_us: clock_offset.value(row), round_trip_us: round_trip.value(row) }),
    };
    Some((0..rows.num_rows()).map(letter).collect())
}
