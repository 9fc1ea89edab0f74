//! A local object store whose puts are on the disk when they return.
//!
//! `object_store`'s own writes neither the file's bytes nor its name through to the disk, so that
//! after a power cut the newest commit of a table could be an empty file.

use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path as FsPath;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::store::durable;

/// `LocalFileSystem` with the root `/`, but every put is fsynced before its name appears, and the
/// name before the put returns.
#[derive(Debug, Clone)]
pub(super) struct DurableLocal(LocalFileSystem);

impl DurableLocal {
    /// The whole file system.
    pub(super) fn new() -> Self {
        Self(LocalFileSystem::new())
    }

    async fn put_durable(&self, location: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let path = self.0.path_to_filesystem(location)?;
        let named = location.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, payload, &mode));
        match written.await {
            Ok(Ok(())) => Ok(PutResult { e_tag: None, version: None }),
            Ok(Err(source)) if source.kind() == ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: named.to_string(), source: source.into() })
            }
            Ok(Err(source)) => Err(Error::Generic { store: "durable local", source: source.into() }),
            Err(source) => Err(Error::Generic { store: "durable local", source: source.into() }),
        }
    }
}

fn write(path: &FsPath, payload: PutPayload, mode: &PutMode) -> std::io::Result<()> {
    let bytes = Bytes::from(payload);
    match mode {
        PutMode::Create => durable::create_new(path, &bytes),
        PutMode::Overwrite | PutMode::Update(_) => durable::replace(path, &bytes),
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "durable {}", self.0)
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) {
            return self.0.put_opts(location, payload, options).await;
        }
        self.put_durable(location, payload, options.mode).await
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(WholeUpload { store: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// Parts kept in memory until they are put as one: only checkpoints come this way.
#[derive(Debug)]
struct WholeUpload {
    store: DurableLocal,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for WholeUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend(data);
        Box::pin(async { Ok(()) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload = std::mem::take(&mut self.parts).into_iter().collect();
        self.store.put_durable(&self.location, payload, PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
