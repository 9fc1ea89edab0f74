//! Reading one file of the master: chosen columns, chosen row groups. Everything here blocks.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;

use super::file::MasterFile;
use super::place::Place;
use super::remote::RemoteFile;
use crate::batch_view::checksums::Blocks;
use crate::batch_view::file::PositionedFile;
use crate::error::StorageError;

/// An open file of the master. Cheap to clone; every [`MasterFileReader::read`] is independent, so
/// threads can share the row groups of a file.
#[derive(Debug, Clone)]
pub struct MasterFileReader {
    name: Arc<str>,
    source: Source,
    metadata: ArrowReaderMetadata,
}

#[derive(Debug, Clone)]
enum Source {
    /// Whatever reads it shares what is checked of it.
    Local(PathBuf, Arc<Option<Blocks>>),
    Remote(RemoteFile),
}

impl MasterFileReader {
    /// Opens a file whose metadata is known already, or reads its metadata.
    pub(super) fn open(
        place: &Arc<Place>,
        file: &MasterFile,
        known: Option<ArrowReaderMetadata>,
        schema: &SchemaRef,
    ) -> Result<Self, StorageError> {
        let source = match place.local_path(&file.path)? {
            Some(path) => Source::Local(path, Arc::new(blocks_of(file)?)),
            None => Source::Remote(RemoteFile::new(place.clone(), &file.path, file.bytes)),
        };
        let metadata = match known {
            Some(metadata) => metadata,
            None => read_metadata(&source, &file.path, schema)?,
        };
        Ok(Self { name: file.path.as_str().into(), source, metadata })
    }

    /// What [`MasterFileReader::open`] takes as known.
    pub(super) fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    /// How many row groups there are.
    pub fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// Rows of one row group; 0 beyond the end.
    pub fn rows_of(&self, row_group: usize) -> usize {
        let groups = self.metadata.metadata().row_groups();
        groups.get(row_group).map_or(0, |group| usize::try_from(group.num_rows()).unwrap_or(0))
    }

    /// Reads the columns at these indexes of the stream's record schema, in that order and with
    /// exactly its types, of a range of row groups, at most `batch_rows` rows at a time, by offset.
    /// No columns at all gives batches that only have a length.
    ///
    /// # Errors
    /// A column or row group that does not exist; a file that cannot be opened.
    pub fn read(
        &self,
        columns: &[usize],
        row_groups: Range<usize>,
        batch_rows: usize,
    ) -> Result<MasterRows, StorageError> {
        let failed = |reason: String| StorageError::io(format!("reading {}", self.name), reason);
        let width = self.metadata.schema().fields().len();
        if columns.iter().any(|&column| column >= width) || row_groups.end > self.row_groups() {
            return Err(failed(format!(
                "columns {columns:?} of {width}, row groups {row_groups:?} of {}",
                self.row_groups()
            )));
        }
        // Parquet gives columns in the file's order, each once.
        let mut read: Vec<usize> = columns.to_vec();
        read.sort_unstable();
        read.dedup();
        let order = columns.iter().filter_map(|column| read.binary_search(column).ok()).collect();
        let request = Request { reader: self.clone(), columns: read, batch_rows };
        let parts: Parts = match self.source {
            Source::Local(..) => Box::new(std::iter::once(row_groups.collect()).map(move |part| request.local(part))),
            Source::Remote(_) => Box::new(row_groups.map(move |group| request.remote(group))),
        };
        Ok(MasterRows { reader: self.clone(), parts, current: None, order })
    }

    /// Why it could not be read. Arrow keeps the words of a cause, and not the cause.
    fn failed(&self, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
        match &self.source {
            Source::Local(_, blocks) if blocks.as_ref().as_ref().is_some_and(Blocks::is_damaged) => {
                StorageError::Damaged { path: self.name.to_string(), reason: reason.into().to_string() }
            }
            _ => StorageError::io(format!("reading {}", self.name), reason),
        }
    }
}

fn read_metadata(source: &Source, name: &str, schema: &SchemaRef) -> Result<ArrowReaderMetadata, StorageError> {
    let damaged = |e: ParquetError| StorageError::Damaged { path: name.to_string(), reason: e.to_string() };
    let options = ArrowReaderOptions::new().with_schema(schema.clone());
    let metadata = match source {
        Source::Local(path, blocks) => {
            ArrowReaderMetadata::load(&open_local(name, path, blocks)?, options).map_err(damaged)?
        }
        Source::Remote(remote) => ArrowReaderMetadata::load(&remote.with_footer()?, options).map_err(damaged)?,
    };
    let columns = metadata.parquet_schema().root_schema().get_fields();
    let same = columns.len() == schema.fields().len()
        && columns.iter().zip(schema.fields()).all(|(column, field)| column.name() == field.name());
    if same {
        return Ok(metadata);
    }
    Err(StorageError::Damaged { path: name.to_string(), reason: "its columns are not the stream's".to_string() })
}

/// A handle of its own, at a position of its own.
fn open_local(name: &str, path: &Path, blocks: &Arc<Option<Blocks>>) -> Result<PositionedFile, StorageError> {
    let file = File::open(path).and_then(|file| PositionedFile::with_blocks(file, Arc::clone(blocks)));
    file.map_err(|e| open_failed(name, e))
}

fn blocks_of(file: &MasterFile) -> Result<Option<Blocks>, StorageError> {
    let damaged = |reason| StorageError::Damaged { path: file.path.clone(), reason };
    Blocks::parse(&file.checksums, file.bytes).map_err(damaged)
}

fn open_failed(name: &str, error: std::io::Error) -> StorageError {
    match error.kind() {
        std::io::ErrorKind::NotFound => StorageError::NotFound { path: name.to_string() },
        _ => StorageError::io(format!("opening {name}"), error),
    }
}

/// What every part of a read has in common.
struct Request {
    reader: MasterFileReader,
    /// In the file's order.
    columns: Vec<usize>,
    batch_rows: usize,
}

impl Request {
    fn local(&self, row_groups: Vec<usize>) -> Result<ParquetRecordBatchReader, StorageError> {
        let Source::Local(path, blocks) = &self.reader.source else { return Err(self.failed("it is not local")) };
        self.decode(open_local(&self.reader.name, path, blocks)?, row_groups)
    }

    fn remote(&self, row_group: usize) -> Result<ParquetRecordBatchReader, StorageError> {
        let Source::Remote(remote) = &self.reader.source else { return Err(self.failed("it is not remote")) };
        let group = self.reader.metadata.metadata().row_group(row_group);
        let ranges = self.columns.iter().map(|&column| {
            let (start, length) = group.column(column).byte_range();
            start..start + length
        });
        self.decode(remote.with_ranges(ranges)?, vec![row_group])
    }

    fn decode<T: ChunkReader + 'static>(
        &self,
        bytes: T,
        row_groups: Vec<usize>,
    ) -> Result<ParquetRecordBatchReader, StorageError> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, self.reader.metadata.clone());
        let columns = ProjectionMask::roots(builder.parquet_schema(), self.columns.iter().copied());
        let builder = builder.with_projection(columns).with_row_groups(row_groups).with_batch_size(self.batch_rows);
        builder.build().map_err(|e| self.reader.failed(e))
    }

    fn failed(&self, reason: &str) -> StorageError {
        self.reader.failed(reason)
    }
}

type Parts = Box<dyn Iterator<Item = Result<ParquetRecordBatchReader, StorageError>> + Send>;

/// Rows of a file, by offset. Blocks.
pub struct MasterRows {
    reader: MasterFileReader,
    parts: Parts,
    current: Option<ParquetRecordBatchReader>,
    /// For each column asked for, its place in what Parquet gives.
    order: Vec<usize>,
}

impl Iterator for MasterRows {
    type Item = Result<RecordBatch, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(rows) = self.current.as_mut().and_then(Iterator::next) {
                let rows = rows.and_then(|rows| rows.project(&self.order));
                return Some(rows.map_err(|e| self.reader.failed(e)));
            }
            match self.parts.next()? {
                Ok(part) => self.current = Some(part),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
