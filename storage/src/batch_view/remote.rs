//! A file in an object store, as Parquet reads it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use schemas::documents::manifest::BatchFile;

use crate::store::Store;

#[derive(Debug, Clone)]
pub(super) struct RemoteFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    bytes: u64,
}

impl RemoteFile {
    pub(super) fn new(store: &Store, file: &BatchFile) -> Self {
        Self { store: store.inner(), path: Path::from(file.path.as_str()), bytes: file.bytes }
    }
}

impl AsyncFileReader for RemoteFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.store.get_range(&self.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let bytes = self.bytes;
        let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
        async move { reader.load_and_finish(self, bytes).await.map(Arc::new) }.boxed()
    }
}

fn external(cause: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(cause))
}
