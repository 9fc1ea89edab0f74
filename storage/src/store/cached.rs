//! An object store that keeps what it has read of immutable objects on the local disk.
//!
//! Immutable by their names (see `paths`): deltas, Parquet files of batch views, versions of tables. Everything
//! else, and every write, goes through.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use url::Url;

use super::cache::{DiskCache, Piece};

/// A store and the cache before it.
#[derive(Debug)]
pub(super) struct Cached {
    store: Arc<dyn ObjectStore>,
    /// Two stores may share a folder.
    root: String,
    cache: Arc<DiskCache>,
}

impl Cached {
    pub(super) fn new(store: Arc<dyn ObjectStore>, root: &Url, cache: DiskCache) -> Self {
        Self { store, root: root.to_string(), cache: Arc::new(cache) }
    }

    /// What a read is remembered by; none for one that is not remembered.
    fn key(&self, location: &Path, options: &GetOptions) -> Option<String> {
        let is_plain = options.if_match.is_none()
            && options.if_none_match.is_none()
            && options.if_modified_since.is_none()
            && options.if_unmodified_since.is_none()
            && options.version.is_none()
            && !options.head;
        if !is_plain || !matches!(location.extension(), Some("delta" | "parquet")) {
            return None;
        }
        match &options.range {
            None => Some(format!("{}{location}", self.root)),
            Some(GetRange::Bounded(range)) => Some(format!("{}{location}#{}-{}", self.root, range.start, range.end)),
            Some(GetRange::Offset(_) | GetRange::Suffix(_)) => None,
        }
    }

    async fn known(&self, key: &str) -> Option<Piece> {
        let (cache, key) = (Arc::clone(&self.cache), key.to_owned());
        let found = tokio::task::spawn_blocking(move || cache.get(&key)).await.ok().flatten();
        let name = if found.is_some() { "bifold_store_cache_hits_total" } else { "bifold_store_cache_misses_total" };
        metrics::counter!(name).increment(1);
        found
    }

    /// The cache is a convenience: a full disk costs speed, never an answer.
    async fn keep(&self, key: String, piece: Piece) {
        let cache = Arc::clone(&self.cache);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || cache.put(&key, &piece)).await {
            metrics::counter!("bifold_store_cache_failures_total").increment(1);
            tracing::debug!(%error, "a piece of an object was not kept");
        }
    }
}

/// What a store would have answered.
fn result_of(location: &Path, range: Option<&GetRange>, piece: Piece) -> GetResult {
    let length = piece.bytes.len() as u64;
    let start = match range {
        Some(GetRange::Bounded(range)) => range.start,
        _ => 0,
    };
    let meta = ObjectMeta {
        location: location.clone(),
        last_modified: DateTime::UNIX_EPOCH,
        size: piece.size,
        e_tag: None,
        version: None,
    };
    let payload = GetResultPayload::Stream(futures::stream::once(std::future::ready(Ok(piece.bytes))).boxed());
    GetResult { payload, meta, range: start..start + length, attributes: Attributes::new() }
}

impl fmt::Display for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cached {}", self.store)
    }
}

#[async_trait]
impl ObjectStore for Cached {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(key) = self.key(location, &options) else { return self.store.get_opts(location, options).await };
        let range = options.range.clone();
        if let Some(piece) = self.known(&key).await {
            return Ok(result_of(location, range.as_ref(), piece));
        }
        let read = self.store.get_opts(location, options).await?;
        if read.range.end - read.range.start > self.cache.piece_bytes_max() {
            return Ok(read);
        }
        let (size, length) = (read.meta.size, read.range.end - read.range.start);
        let bytes: Bytes = read.bytes().await?;
        let piece = Piece { size, bytes };
        if piece.bytes.len() as u64 == length {
            self.keep(key, piece.clone()).await;
        }
        Ok(result_of(location, range.as_ref(), piece))
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(to, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fetch = |range: Range<u64>| async move {
            let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            self.get_opts(location, options).await?.bytes().await
        };
        // neighbours in one request, as the store itself does: the same ranges give the same requests
        object_store::coalesce_ranges(ranges, fetch, object_store::OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
