//! Parquet → lines of JSON. Points in time become microseconds, UTC, as a stream has them.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

/// Rows that are decoded at once.
const ROWS: usize = 8_192;

/// The records of a Parquet file.
pub(super) struct Records {
    reader: ParquetRecordBatchReader,
    /// Decoded rows as lines, and how far they are handed out.
    lines: Vec<u8>,
    at: usize,
    /// Bytes of the file for each row: what a progress bar shows.
    bytes_per_row: u64,
    read: Arc<AtomicU64>,
}

impl Records {
    pub(super) fn new(file: File, read: Arc<AtomicU64>) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(io::Error::other)?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let reader = builder.with_batch_size(ROWS).build().map_err(io::Error::other)?;
        Ok(Self { reader, lines: vec![], at: 0, bytes_per_row: bytes / rows.max(1), read })
    }

    /// Appends the next record as an object; false at the end.
    pub(super) fn append_next(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        if self.at == self.lines.len() && !self.decode()? {
            return Ok(false);
        }
        let rest = &self.lines[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        text.extend_from_slice(&rest[..end]);
        self.at += end;
        Ok(true)
    }

    fn decode(&mut self) -> io::Result<bool> {
        let Some(rows) = self.reader.next().transpose().map_err(io::Error::other)? else { return Ok(false) };
        self.read.fetch_add(self.bytes_per_row * rows.num_rows() as u64, Ordering::Relaxed);
        self.lines.clear();
        self.at = 0;
        let mut writer = LineDelimitedWriter::new(&mut self.lines);
        let written = in_utc(&rows).and_then(|rows| writer.write(&rows)).and_then(|()| writer.finish());
        written.map_err(io::Error::other)?;
        Ok(true)
    }
}

/// Points in time without a zone are taken as UTC.
fn in_utc(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let (mut fields, mut columns): (Vec<FieldRef>, Vec<_>) = (vec![], vec![]);
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if matches!(field.data_type(), DataType::Timestamp(_, _)) {
            fields.push(Arc::new(Field::new(field.name(), utc.clone(), true)));
            columns.push(cast(column, &utc)?);
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
