//! An object store that hands out files of batch views only as they were written.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    coalesce_ranges,
};
use parking_lot::Mutex;
use schemas::documents::manifest::BatchFile;

use super::checksums::Blocks;
use crate::error::StorageError;

/// Files whose checksums are kept at the same time. Past it all are forgotten, and checked again when they are read.
const FILES_MAX: usize = 4_096;

/// A store before which the files of [`CheckedStore::expect`] are checked, each block when it is first read.
#[derive(Debug)]
pub struct CheckedStore {
    store: Arc<dyn ObjectStore>,
    files: Mutex<HashMap<Path, Arc<Blocks>>>,
}

impl CheckedStore {
    /// A store that checks nothing yet.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, files: Mutex::default() }
    }

    /// From now on this file is read only as its checksums say. A file is never written again, so they stay.
    ///
    /// # Errors
    /// `Damaged`: the checksums are none.
    pub fn expect(&self, file: &BatchFile) -> std::result::Result<(), StorageError> {
        let path = Path::from(file.path.as_str());
        let mut files = self.files.lock();
        if files.contains_key(&path) {
            return Ok(());
        }
        let damaged = |reason| StorageError::Damaged { path: file.path.clone(), reason };
        if let Some(blocks) = Blocks::parse(&file.checksums, file.bytes).map_err(damaged)? {
            if files.len() == FILES_MAX {
                files.clear();
            }
            files.insert(path, Arc::new(blocks));
        }
        Ok(())
    }

    async fn check(&self, location: &Path, range: Option<&GetRange>) -> Result<()> {
        let Some(blocks) = self.files.lock().get(location).cloned() else { return Ok(()) };
        let length = blocks.length();
        let wanted = match range {
            None => 0..length,
            Some(GetRange::Bounded(range)) => range.clone(),
            Some(GetRange::Offset(start)) => *start..length,
            Some(GetRange::Suffix(bytes)) => length.saturating_sub(*bytes)..length,
        };
        let unchecked: Vec<(usize, Range<u64>)> = blocks.unchecked(&wanted).collect();
        for (number, range) in unchecked {
            let bytes = self.store.get_range(location, range).await?;
            blocks.check(number, &bytes).map_err(|cause| object_store::Error::Generic {
                store: "batch view",
                source: Box::new(StorageError::Damaged { path: location.to_string(), reason: cause.to_string() }),
            })?;
        }
        Ok(())
    }
}

impl fmt::Display for CheckedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checked {}", self.store)
    }
}

#[async_trait]
impl ObjectStore for CheckedStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !options.head {
            self.check(location, options.range.as_ref()).await?;
        }
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        coalesce_ranges(ranges, |range| self.get_range(location, range), OBJECT_STORE_COALESCE_DEFAULT).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(to, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
