//! Writes one file of a batch view.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use schemas::documents::manifest::BatchFile;
use schemas::limits::{VIEW_PAGE_BYTES, VIEW_PAGE_ROWS, VIEW_ROW_GROUP_ROWS};

use super::checksums::BlockHasher;
use super::{FORMAT, LAYOUT, Layout, converter};
use crate::error::StorageError;
use crate::ipc;
use crate::store::{Store, durable};

/// Rows of a page, however wide its states are.
const PAGE_ROWS_MIN: usize = 16;

/// A file that is being written. Nothing is at its path before [`BatchViewWriter::finish`].
#[derive(Debug)]
pub struct BatchViewWriter {
    store: Store,
    path: String,
    schema: SchemaRef,
    key_columns: usize,
    /// Made when the first rows tell how wide they are.
    open: Option<Open>,
    cells: u64,
}

#[derive(Debug)]
struct Open {
    parquet: ArrowWriter<Sink>,
    page_rows: usize,
    group_rows: usize,
    /// Rows in the row group that is being filled.
    rows_in_group: usize,
    /// The first key of each page.
    first_keys: Option<FirstKeys>,
}

impl BatchViewWriter {
    /// A file at `path` of rows in `schema`, whose first `key_columns` columns are the key.
    pub fn create(store: &Store, path: &str, schema: SchemaRef, key_columns: usize) -> Self {
        Self { store: store.clone(), path: path.into(), schema, key_columns, open: None, cells: 0 }
    }

    /// Adds rows that follow all that were added: sorted by key, each key once. Blocks.
    ///
    /// # Errors
    /// `Io` when the rows do not fit or do not follow (looked at where pages begin), or the disk failed.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), StorageError> {
        let rows = ipc::with_schema(rows, &self.schema).map_err(|cause| self.failed(cause))?;
        if self.open.is_none() {
            self.open = Some(self.begin(&rows)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let written = open.write(&rows);
        written.map_err(|cause| StorageError::io(format!("writing {}", self.path), cause))?;
        self.cells += rows.num_rows() as u64;
        Ok(())
    }

    /// Bytes written so far, without what waits for its row group to be full.
    pub fn bytes_written(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.parquet.bytes_written() as u64)
    }

    /// Ends the file and puts it in its place, durably, over what a run that was broken off left there.
    ///
    /// # Errors
    /// `Io`
    pub async fn finish(mut self) -> Result<BatchFile, StorageError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.begin(&RecordBatch::new_empty(Arc::clone(&self.schema)))?,
        };
        let sink = open.finish(self.key_columns).map_err(|cause| self.failed(cause))?;
        let Sink { target, checksums } = sink;
        let bytes = match target {
            Target::File(mut file) => {
                let path = file.path.clone();
                let publish = move || file.publish();
                let published = tokio::task::spawn_blocking(publish).await.map_err(io::Error::other);
                published.and_then(|published| published).map_err(|cause| self.failed(cause))?;
                path.metadata().map_err(|cause| self.failed(cause))?.len()
            }
            Target::Scratch(mut file) => {
                file.file.flush().map_err(|cause| self.failed(cause))?;
                self.store.put_file(&self.path, &file.temporary).await?;
                file.temporary.metadata().map_err(|cause| self.failed(cause))?.len()
            }
            Target::Memory(bytes) => {
                let length = bytes.len() as u64;
                self.store.put(&self.path, bytes.into()).await?;
                length
            }
        };
        Ok(BatchFile { path: self.path, bytes, cells: self.cells, checksums: checksums.finish() })
    }

    fn begin(&self, first: &RecordBatch) -> Result<Open, StorageError> {
        let page_rows = (VIEW_PAGE_BYTES / row_bytes(first)).clamp(PAGE_ROWS_MIN, VIEW_PAGE_ROWS);
        // Whole pages, so that pages of all columns end where row groups end.
        let group_rows = VIEW_ROW_GROUP_ROWS / page_rows * page_rows;
        let target = match (self.store.local_path(&self.path), self.store.scratch_file()) {
            (Some(path), _) => Target::File(Unpublished::create(path).map_err(|cause| self.failed(cause))?),
            (None, Some(path)) => Target::Scratch(Unpublished::create(path).map_err(|cause| self.failed(cause))?),
            (None, None) => Target::Memory(vec![]),
        };
        let sink = Sink { target, checksums: BlockHasher::default() };
        let properties = self.properties(page_rows, group_rows);
        let parquet = ArrowWriter::try_new(sink, Arc::clone(&self.schema), Some(properties));
        let parquet = parquet.map_err(|cause| self.failed(cause))?;
        let first_keys = match self.key_columns {
            0 => None,
            columns => {
                let fields = self.schema.fields().iter().take(columns).cloned();
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                Some(FirstKeys { converter: converter(&schema, columns)?, schema, last: None, keys: vec![] })
            }
        };
        Ok(Open { parquet, page_rows, group_rows, rows_in_group: 0, first_keys })
    }

    /// No dictionaries: a look-up would have to read them beside its page.
    fn properties(&self, page_rows: usize, group_rows: usize) -> WriterProperties {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::LZ4_RAW)
            .set_dictionary_enabled(false)
            .set_data_page_row_count_limit(page_rows)
            .set_write_batch_size(page_rows)
            // Only the number of rows ends a page: all columns have the same pages.
            .set_data_page_size_limit(usize::MAX)
            .set_max_row_group_row_count(Some(group_rows))
            .set_statistics_enabled(EnabledStatistics::None);
        for field in self.schema.fields().iter().take(self.key_columns) {
            let column = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_statistics_enabled(column, EnabledStatistics::Page);
        }
        properties.build()
    }

    fn failed(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
        StorageError::io(format!("writing {}", self.path), cause)
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Open {
    /// Writes in pieces that end where pages end, so that no page of Parquet spans two of ours.
    fn write(&mut self, rows: &RecordBatch) -> Result<(), Failure> {
        let mut from = 0;
        while from < rows.num_rows() {
            let in_page = self.rows_in_group % self.page_rows;
            let room = if in_page > 0 { self.page_rows - in_page } else { self.group_rows - self.rows_in_group };
            let count = room.min(rows.num_rows() - from);
            let piece = rows.slice(from, count);
            if let Some(first_keys) = &mut self.first_keys {
                let first_page = if in_page > 0 { self.page_rows } else { 0 };
                first_keys.add(&piece, first_page, self.page_rows)?;
            }
            self.parquet.write(&piece)?;
            self.rows_in_group = (self.rows_in_group + count) % self.group_rows;
            from += count;
        }
        Ok(())
    }

    fn finish(mut self, key_columns: usize) -> Result<Sink, Failure> {
        self.parquet.flush()?;
        let keys_at = self.parquet.bytes_written() as u64;
        let keys = self.first_keys.as_ref().map_or_else(|| Ok(vec![]), FirstKeys::bytes)?;
        self.parquet.write_all(&keys)?;
        let layout =
            Layout { format: FORMAT, key_columns, page_rows: self.page_rows, keys_at, keys_bytes: keys.len() as u64 };
        let text = serde_json::to_string(&layout)?;
        self.parquet.append_key_value_metadata(KeyValue::new(LAYOUT.into(), text));
        Ok(self.parquet.into_inner()?)
    }
}

/// Collects the first key of every page and looks that they ascend.
#[derive(Debug)]
struct FirstKeys {
    /// The key columns.
    schema: SchemaRef,
    converter: RowConverter,
    last: Option<OwnedRow>,
    keys: Vec<RecordBatch>,
}

impl FirstKeys {
    /// Pages begin at `first` in the piece and every `page_rows` rows from there.
    fn add(&mut self, piece: &RecordBatch, first: usize, page_rows: usize) -> Result<(), Failure> {
        for at in (first..piece.num_rows()).step_by(page_rows) {
            let columns = piece.columns().iter().take(self.schema.fields().len()).map(|column| column.slice(at, 1));
            let key = ipc::compact(&RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?)?;
            let encoded = self.converter.convert_columns(key.columns())?.row(0).owned();
            if self.last.as_ref().is_some_and(|last| *last >= encoded) {
                return Err("the rows of a batch view do not ascend".into());
            }
            self.last = Some(encoded);
            self.keys.push(key);
        }
        Ok(())
    }
    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        let keys = arrow::compute::concat_batches(&self.schema, &self.keys)?;
        let mut bytes = vec![];
        let mut writer = StreamWriter::try_new(&mut bytes, &self.schema)?;
        writer.write(&keys)?;
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    }
}

/// About how many bytes a row takes, by the first rows.
fn row_bytes(rows: &RecordBatch) -> usize {
    let bytes: usize = rows.columns().iter().map(column_bytes).sum();
    (bytes / rows.num_rows().max(1)).max(1)
}

fn column_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().total_bytes_len(),
        DataType::BinaryView => column.as_binary_view().total_bytes_len(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    }
}

/// Where the file goes, and the checksums of what has gone there.
#[derive(Debug)]
struct Sink {
    target: Target,
    checksums: BlockHasher,
}

#[derive(Debug)]
enum Target {
    /// Beside its place.
    File(Unpublished),
    /// In a local folder, until it goes to its place in a remote store.
    Scratch(Unpublished),
    Memory(Vec<u8>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.target {
            Target::File(file) | Target::Scratch(file) => file.file.write(bytes)?,
            Target::Memory(memory) => memory.write(bytes)?,
        };
        self.checksums.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::File(file) | Target::Scratch(file) => file.file.flush(),
            Target::Memory(_) => Ok(()),
        }
    }
}

/// A local file beside its place; it is removed unless it gets there.
#[derive(Debug)]
struct Unpublished {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
}

impl Unpublished {
    fn create(path: PathBuf) -> io::Result<Self> {
        let temporary = durable::temporary_beside(&path)?;
        let file = BufWriter::with_capacity(1 << 20, File::create_new(&temporary)?);
        Ok(Self { path, temporary, file })
    }

    fn publish(&mut self) -> io::Result<()> {
        self.file.flush()?;
        durable::publish(&self.temporary, &self.path)
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        // Gone after it was published; and what cannot be removed is swept at the next start.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
