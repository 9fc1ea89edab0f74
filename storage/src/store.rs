//! The store: where every stored document and file lives, behind a root URL.
//!
//! A local folder, S3, Google Cloud Storage, Azure or memory. On a local disk a written document is
//! durable when the call returns; object stores promise that themselves.
//!
//! What is asked of an object store: a put that creates only if nothing is there, reads that see what
//! was written, and listings, in any order. Nothing is renamed and nothing is appended to.

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Attribute, Attributes, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;
use uuid::Uuid;

use crate::error::StorageError;
use crate::owner::Ownership;

mod cache;
mod cached;
pub mod conformance;
pub mod durable;
pub(crate) mod ordered;
mod remote;
pub(crate) mod upload;

/// Metadata of an object that says who created it: of two writers of equal bytes only one has won.
/// Only letters: a name that every store and proxy passes on.
const WRITER: &str = "bifoldwriter";
/// How often an object is created anew that was refused although nothing is there.
const CREATE_ATTEMPTS_MAX: u32 = 6;
/// Before the first of these attempts; it doubles.
const CREATE_PAUSE: Duration = Duration::from_millis(20);

/// A root URL and the object store behind it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    url: Url,
    bucket: Arc<dyn ObjectStore>,
    /// For what is written, and what may have changed.
    direct: Arc<dyn ObjectStore>,
    /// For reading: through the cache, if there is one.
    inner: Arc<dyn ObjectStore>,
    kind: Kind,
    writer: Arc<str>,
    /// Where large objects are gathered before they go to a remote store.
    scratch: Option<Arc<FsPath>>,
    /// This process's hold on it, if others could take it over.
    owner: Option<Arc<Ownership>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The root folder.
    Local(PathBuf),
    Memory,
    Remote,
}

impl Store {
    /// Opens `s3://…`, `gs://…`, `az://…` (credentials from the environment), `file://…`, `memory:`
    /// or a plain folder path; a folder is created if it is not there.
    ///
    /// # Errors
    /// `Io` when the URL is none of these or the folder cannot be made.
    pub fn open(url_or_path: &str) -> Result<Self, StorageError> {
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            StorageError::io(format!("opening the store {url_or_path}"), cause)
        };
        if url_or_path == "memory:" || url_or_path.starts_with("memory://") {
            return Ok(Self::in_memory());
        }
        if !url_or_path.contains("://") {
            return Self::local(FsPath::new(url_or_path)).map_err(|cause| failed(cause.into()));
        }
        let mut url = Url::parse(url_or_path).map_err(|cause| failed(cause.into()))?;
        if url.scheme() == "file" {
            let folder = url.to_file_path().map_err(|()| failed("not a path of this machine".into()))?;
            return Self::local(&folder).map_err(|cause| failed(cause.into()));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let (bucket, prefix) = remote::open(&url).map_err(|cause| failed(cause.into()))?;
        Ok(Self::with_prefix(url, bucket, prefix, Kind::Remote))
    }

    /// An empty store in memory, for tests.
    ///
    /// # Panics
    /// Never.
    pub fn in_memory() -> Self {
        let bucket: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        #[expect(clippy::expect_used, reason = "a constant")]
        let url = Url::parse("memory:///").expect("a URL");
        Self::with_prefix(url, bucket, Path::default(), Kind::Memory)
    }

    /// Any object store under any URL: a test's failing one, for example. Paths of `url` are keys.
    pub fn of(url: Url, bucket: Arc<dyn ObjectStore>) -> Self {
        let prefix = Path::from_url_path(url.path()).unwrap_or_default();
        Self::with_prefix(url, bucket, prefix, Kind::Remote)
    }

    fn local(folder: &FsPath) -> Result<Self, std::io::Error> {
        durable::create_folder(folder)?;
        let folder = folder.canonicalize()?;
        let no_url = || std::io::Error::other("the folder has no URL");
        let url = Url::from_directory_path(&folder).map_err(|()| no_url())?;
        let prefix = Path::from_absolute_path(&folder).map_err(|_| no_url())?;
        let bucket = Arc::new(object_store::local::LocalFileSystem::new());
        Ok(Self::with_prefix(url, bucket, prefix, Kind::Local(folder)))
    }

    fn with_prefix(url: Url, bucket: Arc<dyn ObjectStore>, prefix: Path, kind: Kind) -> Self {
        let inner: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
            Arc::clone(&bucket)
        } else {
            Arc::new(PrefixStore::new(Arc::clone(&bucket), prefix))
        };
        let writer = Uuid::new_v4().simple().to_string().into();
        Self { url, bucket, direct: Arc::clone(&inner), inner, kind, writer, scratch: None, owner: None }
    }

    /// The same store; what is to become a large object is gathered in a local folder that nobody else uses,
    /// not in memory.
    #[must_use]
    pub fn with_scratch(self, folder: &FsPath) -> Self {
        Self { scratch: Some(folder.into()), ..self }
    }

    /// The same store, which this process owns for as long as nobody else takes it over.
    #[must_use]
    pub fn owned_by(self, owner: Arc<Ownership>) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// Number of this process among the store's owners; 0 where nobody else can take it over, or nothing is written.
    pub fn epoch(&self) -> u64 {
        self.owner.as_ref().map_or(0, |owner| owner.epoch())
    }

    /// Looks whether what this process has written up to here was still its own to write: before it removes what
    /// that stands for.
    ///
    /// # Errors
    /// `Fenced` when another process has taken the store over; `Io`
    pub async fn assert_owned(&self) -> Result<(), StorageError> {
        match &self.owner {
            Some(owner) => owner.assert_held().await,
            None => Ok(()),
        }
    }

    /// Refuses what an owner with a higher number has claimed.
    ///
    /// # Errors
    /// `Fenced`
    pub(crate) fn assert_not_fenced(&self, what: impl Fn() -> String, owner: u64) -> Result<(), StorageError> {
        let mine = self.epoch();
        if mine > 0 && owner > mine { Err(StorageError::Fenced { what: what(), owner, mine }) } else { Ok(()) }
    }

    /// A local file to gather an object in, if the store is remote and has a folder for that.
    pub(crate) fn scratch_file(&self) -> Option<PathBuf> {
        let folder = self.scratch.as_ref().filter(|_| self.is_shared())?;
        Some(folder.join(Uuid::new_v4().simple().to_string()))
    }

    /// Writes or overwrites an object with the bytes of a local file.
    ///
    /// # Errors
    /// `Io`: the object is the old one or the new one.
    pub(crate) async fn put_file(&self, path: &str, file: &FsPath) -> Result<(), StorageError> {
        upload::put_file(self.direct.as_ref(), &Path::from(path), file)
            .await
            .map_err(|cause| StorageError::io(format!("writing {path}"), cause))
    }

    /// The same store; objects that never change are kept in a local folder once they were read, at
    /// most so many bytes of them. A local store needs none and stays as it is.
    ///
    /// # Errors
    /// The folder could not be made or read.
    pub fn with_cache(self, folder: &FsPath, bytes_max: u64) -> Result<Self, StorageError> {
        if self.kind != Kind::Remote || bytes_max == 0 {
            return Ok(self);
        }
        let cache = cache::DiskCache::open(folder, bytes_max)
            .map_err(|cause| StorageError::io(format!("opening the cache {}", folder.display()), cause))?;
        let inner = Arc::new(cached::Cached::new(Arc::clone(&self.direct), &self.url, cache));
        Ok(Self { inner, ..self })
    }

    /// True if other machines may reach it too.
    pub fn is_shared(&self) -> bool {
        self.kind == Kind::Remote
    }

    /// The root, with a slash at its end.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The object store whose root is [`Store::url`]: its keys are the paths of `paths`.
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    /// The object store whose keys are whole URL paths (what `delta_kernel` and DataFusion expect).
    pub fn bucket(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.bucket)
    }

    /// The file of a path, if the store is a local folder.
    pub fn local_path(&self, path: &str) -> Option<PathBuf> {
        match &self.kind {
            Kind::Local(folder) => Some(folder.join(path)),
            Kind::Memory | Kind::Remote => None,
        }
    }

    /// A whole object.
    ///
    /// # Errors
    /// `NotFound`, `Io`
    pub async fn get(&self, path: &str) -> Result<Bytes, StorageError> {
        let read = async { self.inner.get(&Path::from(path)).await?.bytes().await };
        read.await.map_err(|cause| failure("reading", path, cause))
    }

    /// A part of an object.
    ///
    /// # Errors
    /// `NotFound`, `Io`
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.inner.get_range(&Path::from(path), range).await.map_err(|cause| failure("reading", path, cause))
    }

    /// Writes or overwrites an object, durably.
    ///
    /// # Errors
    /// `Io`: the object is the old one or the new one, never a mixture.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StorageError> {
        if let Some(file) = self.local_path(path) {
            return blocking("writing", path, move || durable::replace(&file, &bytes)).await;
        }
        let put = upload::put(self.direct.as_ref(), &Path::from(path), bytes).await;
        put.map_err(|cause| StorageError::io(format!("writing {path}"), cause))
    }

    /// Creates an object, durably; of several writers exactly one wins. The same bytes again from the same
    /// opened store (and its clones) are the same writer's: a caller may try again after an error.
    ///
    /// # Errors
    /// `Conflict` when another one is there; `Io` when it is not known to be there.
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), StorageError> {
        match &self.kind {
            Kind::Local(folder) => {
                let file = folder.join(path);
                blocking("creating", path, move || durable::create_new(&file, &bytes)).await
            }
            Kind::Memory => self.create(path, bytes).await.map_err(|cause| failure("creating", path, cause)),
            Kind::Remote => self.create_or_lose(path, &bytes).await,
        }
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let writer = (Attribute::Metadata(WRITER.into()), self.writer.to_string());
        let options =
            PutOptions { mode: PutMode::Create, attributes: Attributes::from_iter([writer]), ..PutOptions::default() };
        self.direct.put_opts(&Path::from(path), PutPayload::from_bytes(bytes), options).await.map(|_| ())
    }

    /// Whatever a request reports, what is stored tells who has won: one that was repeated below us may
    /// have won although it reports an error, and a store may refuse while others write (409) and then
    /// hold nothing.
    async fn create_or_lose(&self, path: &str, ours: &Bytes) -> Result<(), StorageError> {
        let mut pause = CREATE_PAUSE;
        let mut attempt = 1;
        loop {
            let Err(cause) = self.create(path, ours.clone()).await else { return Ok(()) };
            let was_refused = matches!(cause, Error::AlreadyExists { .. } | Error::Precondition { .. });
            match self.is_ours(path, ours).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(StorageError::Conflict { path: path.into() }),
                Err(Error::NotFound { .. }) if was_refused && attempt < CREATE_ATTEMPTS_MAX => {}
                Err(_) => return Err(StorageError::io(format!("creating {path}"), cause)),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }

    async fn is_ours(&self, path: &str, ours: &Bytes) -> Result<bool, Error> {
        let stored = self.direct.get(&Path::from(path)).await?;
        let writer = stored.attributes.get(&Attribute::Metadata(WRITER.into()));
        let is_writer = writer.is_some_and(|writer| writer.as_ref() == self.writer.as_ref());
        Ok(stored.bytes().await? == *ours && is_writer)
    }

    /// Removes an object; one that is missing is fine.
    ///
    /// # Errors
    /// `Io`
    pub async fn delete(&self, path: &str) -> Result<(), StorageError> {
        match self.direct.delete(&Path::from(path)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(failure("removing", path, cause)),
        }
    }

    /// Removes every object below a prefix.
    ///
    /// # Errors
    /// `Io`: some are gone.
    pub async fn delete_below(&self, prefix: &str) -> Result<(), StorageError> {
        for (path, _) in self.list(prefix).await? {
            self.delete(&path).await?;
        }
        Ok(())
    }

    /// Every object below a prefix, with its length in bytes, sorted by path.
    ///
    /// # Errors
    /// `Io`
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StorageError> {
        let mut objects: Vec<_> = self
            .direct
            .list(Some(&Path::from(prefix)))
            .map_ok(|object| (object.location.to_string(), object.size))
            .try_collect()
            .await
            // an empty folder is no error: what is not there is the bucket
            .map_err(|cause| StorageError::io(format!("listing {}{prefix}", self.url), cause))?;
        objects.sort_unstable();
        Ok(objects)
    }

    /// Removes what a killed process left half written in a local folder. Call it once at the start,
    /// when no other process works in the folder. Of a remote store it is what was gathered for it.
    ///
    /// # Errors
    /// `Io`
    pub async fn sweep(&self) -> Result<(), StorageError> {
        match (&self.kind, &self.scratch) {
            (Kind::Local(folder), _) => {
                let folder = folder.clone();
                blocking("sweeping", "", move || durable::sweep(&folder)).await
            }
            (Kind::Remote, Some(scratch)) => {
                let scratch = Arc::clone(scratch);
                blocking("sweeping", "", move || empty(&scratch)).await
            }
            _ => Ok(()),
        }
    }
}

/// An empty folder, whatever was in it.
fn empty(folder: &FsPath) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(cause),
        _ => std::fs::create_dir_all(folder),
    }
}

fn failure(doing: &str, path: &str, cause: Error) -> StorageError {
    match cause {
        Error::NotFound { .. } => StorageError::NotFound { path: path.into() },
        Error::AlreadyExists { .. } | Error::Precondition { .. } => StorageError::Conflict { path: path.into() },
        other => StorageError::io(format!("{doing} {path}"), other),
    }
}

/// Runs file work where it may block.
async fn blocking(
    doing: &str,
    path: &str,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<(), StorageError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).and_then(|result| result);
    done.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::AlreadyExists => StorageError::Conflict { path: path.into() },
        std::io::ErrorKind::StorageFull => StorageError::Full { what: format!("the disk of {path}") },
        _ => StorageError::io(format!("{doing} {path}"), cause),
    })
}

#[cfg(test)]
mod tests;
