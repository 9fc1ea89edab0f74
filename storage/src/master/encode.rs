//! Frames of one partition to Parquet files.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::properties::WriterProperties;
use schemas::column::APPEND_TIME;
use schemas::{Offset, Partition, StreamDef};
use uuid::Uuid;

use super::file::{MasterFile, TimeRange, Written};
use super::place::{Output, Place};
use super::schema::writer_properties;
use crate::batch_view::checksums::BlockHasher;
use crate::clock::Clock;
use crate::error::StorageError;
use crate::log::Frame;

/// Bytes of a file before the next one is begun.
const FILE_BYTES_MAX: usize = 256 << 20;

/// Writes files of one stream. Blocks.
#[derive(Debug)]
pub(super) struct Encoder {
    place: Arc<Place>,
    clock: Arc<dyn Clock>,
    schema: SchemaRef,
    properties: WriterProperties,
    append_time: usize,
    event_time: Option<usize>,
    file_bytes_max: usize,
}

impl Encoder {
    pub(super) fn new(stream: &StreamDef, place: Arc<Place>, clock: Arc<dyn Clock>) -> Result<Self, StorageError> {
        let schema = stream.record_schema();
        let append_time =
            schema.index_of(APPEND_TIME).map_err(|e| StorageError::io("finding the append time column", e))?;
        let properties = writer_properties(stream).map_err(|e| StorageError::io("preparing Parquet", e))?;
        let event_time = stream.time_column.as_deref().and_then(|name| stream.column_index(name));
        Ok(Self { place, clock, schema, properties, append_time, event_time, file_bytes_max: FILE_BYTES_MAX })
    }

    /// Writes the frames, which follow each other, to files that are durable but for their names.
    pub(super) fn encode(&self, partition: Partition, frames: Vec<Frame>) -> Result<Vec<Written>, StorageError> {
        let mut written = Vec::new();
        let mut open: Option<OpenFile> = None;
        for frame in frames {
            let mut file = match open.take() {
                Some(file) => file,
                None => OpenFile::create(self, partition, frame.base)?,
            };
            file.write(self, &frame)?;
            if file.bytes() < self.file_bytes_max {
                open = Some(file);
            } else {
                written.push(file.finish(self)?);
            }
        }
        if let Some(file) = open {
            written.push(file.finish(self)?);
        }
        Ok(written)
    }

    /// A frame's rows with partition and offset: the strings stay where they are.
    fn records(&self, frame: &Frame) -> Result<RecordBatch, StorageError> {
        let mut columns: Vec<ArrayRef> = frame.rows.columns().to_vec();
        columns.push(Arc::new(Int32Array::from_value(frame.partition as i32, frame.rows.num_rows())));
        columns.push(Arc::new(Int64Array::from_iter_values(frame.base as i64..frame.end() as i64)));
        RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|e| StorageError::io("adding the positions to records", e))
    }
}

/// Where a file goes, and the checksums of what has gone there.
struct Hashed {
    output: Output,
    hasher: BlockHasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

/// A file that is being written.
struct OpenFile {
    name: String,
    partition: Partition,
    from: Offset,
    to: Offset,
    writer: ArrowWriter<Hashed>,
    append_time: TimeRange,
    event_time: TimeRange,
}

impl OpenFile {
    fn create(encoder: &Encoder, partition: Partition, from: Offset) -> Result<Self, StorageError> {
        let name = format!("part-{partition:05}-{from:020}-{}.parquet", Uuid::new_v4());
        let options = ArrowWriterOptions::new()
            .with_properties(encoder.properties.clone())
            // The Arrow schema would bind other readers to our string type.
            .with_skip_arrow_metadata(true);
        let output = Hashed { output: encoder.place.create(&name)?, hasher: BlockHasher::default() };
        let writer = ArrowWriter::try_new_with_options(output, encoder.schema.clone(), options)
            .map_err(|e| StorageError::io(format!("writing {name}"), e))?;
        let (append_time, event_time) = (TimeRange::default(), TimeRange::default());
        Ok(Self { name, partition, from, to: from, writer, append_time, event_time })
    }

    fn write(&mut self, encoder: &Encoder, frame: &Frame) -> Result<(), StorageError> {
        let records = encoder.records(frame)?;
        self.append_time.add(records.column(encoder.append_time));
        if let Some(column) = encoder.event_time {
            self.event_time.add(records.column(column));
        }
        self.to = frame.end();
        self.writer.write(&records).map_err(|e| StorageError::io(format!("writing {}", self.name), e))
    }

    fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    fn finish(self, encoder: &Encoder) -> Result<Written, StorageError> {
        let output = self.writer.into_inner();
        let Hashed { output, hasher } = output.map_err(|e| StorageError::io(format!("writing {}", self.name), e))?;
        let bytes = encoder.place.finish(&self.name, output)?;
        let file = MasterFile {
            path: self.name,
            partition: self.partition,
            from: self.from,
            to: self.to,
            rows: self.to - self.from,
            bytes,
            event_time_us: None,
            checksums: hasher.finish(),
        };
        Ok(Written::new(file, encoder.clock.now_us() / 1_000, self.append_time, self.event_time))
    }
}
