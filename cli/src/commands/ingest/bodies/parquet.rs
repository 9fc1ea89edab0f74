//! Parquet → lines of JSON. Points in time become microseconds, UTC, as a stream has them.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use storage::guarded::guarded;

use super::EVENT_BYTES_MAX;

/// Rows that are decoded at once.
const ROWS: usize = 8_192;
/// Rows of them that become lines at once, and bytes of lines after which no more do: a value that stands in the file
/// once may stand in every row.
const LINES_ROWS: usize = 64;
const LINES_BYTES: usize = 4 * 1_048_576;

/// The records of a Parquet file.
pub(super) struct Records {
    reader: ParquetRecordBatchReader,
    /// Decoded rows that are no lines yet.
    rows: Option<RecordBatch>,
    /// Decoded rows as lines, and how far they are handed out.
    lines: Vec<u8>,
    at: usize,
    /// Bytes of the file for each row: what a progress bar shows.
    bytes_per_row: u64,
    read: Arc<AtomicU64>,
}

impl Records {
    pub(super) fn new(file: File, read: Arc<AtomicU64>) -> io::Result<Self> {
        guarded(|| Self::open(file, read)).map_err(io::Error::other)?
    }

    fn open(file: File, read: Arc<AtomicU64>) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(io::Error::other)?;
        // views share the value that many rows have
        let options = ArrowReaderOptions::new().with_schema(with_views(metadata.schema()));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options);
        let metadata = metadata.map_err(io::Error::other)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let reader = builder.with_batch_size(ROWS).build().map_err(io::Error::other)?;
        Ok(Self { reader, rows: None, lines: vec![], at: 0, bytes_per_row: bytes / rows.max(1), read })
    }

    /// Appends the next record as an object; false at the end.
    pub(super) fn append_next(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        while self.at == self.lines.len() {
            if !self.next_lines()? {
                return Ok(false);
            }
        }
        let rest = &self.lines[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        if end > EVENT_BYTES_MAX {
            return Err(super::too_large());
        }
        text.extend_from_slice(&rest[..end]);
        self.at += end;
        Ok(true)
    }

    /// Some more rows as lines; false at the end.
    fn next_lines(&mut self) -> io::Result<bool> {
        self.lines.clear();
        self.at = 0;
        let rows = match self.rows.take() {
            Some(rows) => rows,
            None => {
                match guarded(|| self.reader.next()).map_err(io::Error::other)?.transpose().map_err(io::Error::other)? {
                    Some(rows) => in_utc(&rows).map_err(io::Error::other)?,
                    None => return Ok(false),
                }
            }
        };
        let mut writer = LineDelimitedWriter::new(&mut self.lines);
        let mut done = 0;
        while done < rows.num_rows() && writer.get_ref().len() < LINES_BYTES {
            let some = LINES_ROWS.min(rows.num_rows() - done);
            writer.write(&rows.slice(done, some)).map_err(io::Error::other)?;
            done += some;
        }
        writer.finish().map_err(io::Error::other)?;
        self.read.fetch_add(self.bytes_per_row * done as u64, Ordering::Relaxed);
        self.rows = Some(rows.slice(done, rows.num_rows() - done)).filter(|rest| rest.num_rows() > 0);
        Ok(true)
    }
}

/// The same columns, texts and bytes as views.
fn with_views(schema: &Schema) -> SchemaRef {
    let field = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        DataType::Binary | DataType::LargeBinary => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::BinaryView))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
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
