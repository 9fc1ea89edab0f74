//! One open file of a batch view.

use std::fs::File;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::ChunkReader;
use schemas::documents::manifest::BatchFile;

use super::Page;
use super::file::PositionedFile;
use super::index::{Index, PageRows, layout_of};
use super::remote::RemoteFile;
use crate::error::StorageError;
use crate::guarded::{guarded, guarded_async};
use crate::store::Store;

/// A file, its footer and its index.
#[derive(Debug)]
pub(super) struct Part {
    /// Among the files of its batch view.
    pub(super) number: usize,
    pub(super) index: Index,
    path: String,
    metadata: ArrowReaderMetadata,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Local(PositionedFile),
    Remote(RemoteFile),
}

impl Part {
    pub(super) async fn open(
        store: &Store,
        schema: &SchemaRef,
        file: &BatchFile,
        number: usize,
    ) -> Result<Self, StorageError> {
        let path = file.path.clone();
        let options =
            ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required).with_schema(Arc::clone(schema));
        let (source, metadata) = if let Some(local) = store.local_path(&path) {
            let file = open_local(file, &local)?;
            let metadata = guarded(|| ArrowReaderMetadata::load(&file, options));
            (Source::Local(file), metadata)
        } else {
            let mut reader = RemoteFile::new(store, file);
            let metadata = guarded_async(ArrowReaderMetadata::load_async(&mut reader, options)).await;
            (Source::Remote(reader), metadata)
        };
        let damaged = |reason: String| StorageError::Damaged { path: path.clone(), reason };
        let metadata = metadata.map_err(damaged)?.map_err(|cause| failure(&path, cause))?;
        let layout = layout_of(metadata.metadata()).map_err(damaged)?;
        // before anything is made for each of them: a cell has a hash of its own, so it takes a byte at least
        let groups = metadata.metadata().row_groups().iter();
        let rows = groups.map(|group| u64::try_from(group.num_rows()).unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
        if rows != file.cells || rows > file.bytes {
            return Err(damaged(format!("{rows} cells in {} bytes, the manifest says {}", file.bytes, file.cells)));
        }
        let keys_end = layout.keys_at.checked_add(layout.keys_bytes).filter(|end| *end <= file.bytes);
        let Some(keys_end) = keys_end else { return Err(damaged("its keys lie beyond its end".into())) };
        let keys = match &source {
            _ if layout.keys_bytes == 0 => bytes::Bytes::new(),
            Source::Local(file) => {
                let length = usize::try_from(layout.keys_bytes).unwrap_or(usize::MAX);
                file.get_bytes(layout.keys_at, length).map_err(|cause| failure(&path, cause))?
            }
            Source::Remote(_) => store.get_range(&path, layout.keys_at..keys_end).await?,
        };
        let index = guarded(|| Index::new(&layout, metadata.metadata(), schema, &keys)).map_err(damaged)?;
        let index = index.map_err(damaged)?;
        Ok(Self { number, index, path, metadata, source })
    }

    /// Decodes one page, all columns.
    pub(super) async fn page(part: &Arc<Self>, page: usize) -> Result<Page, StorageError> {
        let Some(&place) = part.index.page(page) else {
            return Err(part.damaged(format!("it has no page {page}")));
        };
        let rows = match &part.source {
            Source::Local(_) => {
                let this = Arc::clone(part);
                let read = tokio::task::spawn_blocking(move || guarded(|| this.read_local(&place)));
                let read = read.await.map_err(|cause| StorageError::io(format!("reading {}", part.path), cause))?;
                read.map_err(|reason| part.damaged(reason))??
            }
            Source::Remote(reader) => {
                let read = guarded_async(part.read_remote(reader.clone(), &place)).await;
                read.map_err(|reason| part.damaged(reason))??
            }
        };
        let keys = part.index.keys_of(rows.columns()).map_err(|cause| part.damaged(cause.to_string()))?;
        let keys =
            keys.map_or_else(|| no_keys(rows.num_rows()), Ok).map_err(|cause| part.damaged(cause.to_string()))?;
        Ok(Page { rows, keys })
    }

    fn read_local(&self, place: &PageRows) -> Result<RecordBatch, StorageError> {
        let Source::Local(file) = &self.source else { return Err(self.damaged("not a local file".into())) };
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), self.metadata.clone())
            .with_row_groups(vec![place.row_group])
            .with_row_selection(selection(place))
            .with_batch_size(place.rows)
            .build();
        let mut reader = reader.map_err(|cause| failure(&self.path, cause))?;
        let rows = reader.next().transpose().map_err(|cause| self.damaged(cause.to_string()))?;
        self.whole(rows, place)
    }

    async fn read_remote(&self, reader: RemoteFile, place: &PageRows) -> Result<RecordBatch, StorageError> {
        let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone())
            .with_row_groups(vec![place.row_group])
            .with_row_selection(selection(place))
            .with_batch_size(place.rows)
            .build();
        let mut stream = stream.map_err(|cause| failure(&self.path, cause))?;
        let rows = stream.try_next().await.map_err(|cause| failure(&self.path, cause))?;
        self.whole(rows, place)
    }

    fn whole(&self, rows: Option<RecordBatch>, place: &PageRows) -> Result<RecordBatch, StorageError> {
        match rows {
            Some(rows) if rows.num_rows() == place.rows => Ok(rows),
            _ => Err(self.damaged(format!("the page at row {} is not whole", place.first))),
        }
    }

    /// All rows in order.
    pub(super) fn scan(self: Arc<Self>, batch_rows: usize) -> BoxStream<'static, Result<RecordBatch, StorageError>> {
        match &self.source {
            Source::Local(file) => {
                let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), self.metadata.clone())
                    .with_batch_size(batch_rows)
                    .build();
                match reader {
                    Ok(mut reader) => {
                        let next = move || match guarded(|| reader.next()) {
                            Ok(rows) => rows.map(|rows| rows.map_err(|cause| self.damaged(cause.to_string()))),
                            Err(reason) => Some(Err(self.damaged(reason))),
                        };
                        // nothing is read behind the first error
                        let until_error = std::iter::from_fn(next).scan(false, |has_failed, rows| {
                            let is_due = !*has_failed;
                            *has_failed |= rows.is_err();
                            is_due.then_some(rows)
                        });
                        futures::stream::iter(until_error).boxed()
                    }
                    Err(cause) => once(failure(&self.path, cause)),
                }
            }
            Source::Remote(reader) => {
                let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader.clone(), self.metadata.clone())
                    .with_batch_size(batch_rows)
                    .build();
                match stream {
                    Ok(stream) => futures::stream::try_unfold(stream, move |mut stream| {
                        let this = Arc::clone(&self);
                        async move {
                            let next = guarded_async(stream.try_next()).await.map_err(|reason| this.damaged(reason))?;
                            let rows = next.map_err(|cause| failure(&this.path, cause))?;
                            Ok(rows.map(|rows| (rows, stream)))
                        }
                    })
                    .boxed(),
                    Err(cause) => once(failure(&self.path, cause)),
                }
            }
        }
    }

    fn damaged(&self, reason: String) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), reason }
    }
}

fn open_local(file: &BatchFile, local: &std::path::Path) -> Result<PositionedFile, StorageError> {
    let opened = File::open(local).and_then(|opened| PositionedFile::new(opened, &file.checksums));
    opened.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => StorageError::NotFound { path: file.path.clone() },
        std::io::ErrorKind::InvalidData => StorageError::Damaged { path: file.path.clone(), reason: cause.to_string() },
        _ => StorageError::io(format!("opening {}", file.path), cause),
    })
}

fn once(error: StorageError) -> BoxStream<'static, Result<RecordBatch, StorageError>> {
    futures::stream::once(std::future::ready(Err(error))).boxed()
}

fn selection(place: &PageRows) -> RowSelection {
    RowSelection::from(vec![RowSelector::skip(place.first), RowSelector::select(place.rows)])
}

/// Keys of no columns: each is empty, and begins with the empty prefix.
fn no_keys(rows: usize) -> Result<arrow::row::Rows, arrow::error::ArrowError> {
    let converter = arrow::row::RowConverter::new(vec![arrow::row::SortField::new(arrow::datatypes::DataType::Null)])?;
    converter.convert_columns(&[Arc::new(arrow::array::NullArray::new(rows))])
}

fn failure(path: &str, cause: ParquetError) -> StorageError {
    match cause {
        ParquetError::External(cause) => match cause.downcast::<object_store::Error>() {
            Ok(cause) if matches!(*cause, object_store::Error::NotFound { .. }) => {
                StorageError::NotFound { path: path.into() }
            }
            Ok(cause) => StorageError::io(format!("reading {path}"), cause),
            Err(cause) => match cause.downcast_ref::<std::io::Error>() {
                Some(io) if io.kind() == std::io::ErrorKind::InvalidData => {
                    StorageError::Damaged { path: path.into(), reason: io.to_string() }
                }
                _ => StorageError::io(format!("reading {path}"), cause),
            },
        },
        other => StorageError::Damaged { path: path.into(), reason: other.to_string() },
    }
}
