//! The store: where every stored document and file lives, behind a root URL.
//!
//! A local folder, S3, Google Cloud Storage, Azure or memory. On a local disk a written document is
//! durable when the call returns; object stores promise that themselves.

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;

use crate::error::StorageError;

pub mod durable;

/// A root URL and the object store behind it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    url: Url,
    bucket: Arc<dyn ObjectStore>,
    inner: Arc<dyn ObjectStore>,
    kind: Kind,
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
        let (bucket, prefix) =
            object_store::parse_url_opts(&url, credentials()).map_err(|cause| failed(cause.into()))?;
        Ok(Self::with_prefix(url, Arc::from(bucket), prefix, Kind::Remote))
    }

    /// An empty store in memory, for tests.
    ///
    /// # Panics
    /// Never.
    pub fn in_memory() -> Self {
        let bucket: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        #[expect(clippy::expect_used, reason = "a constant")]
        let url = Url::parse("memory:///").expect("a URL");
        Self { url, inner: Arc::clone(&bucket), bucket, kind: Kind::Memory }
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
        Self { url, bucket, inner, kind }
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
        let payload = PutPayload::from_bytes(bytes);
        self.inner.put(&Path::from(path), payload).await.map_err(|cause| failure("writing", path, cause))?;
        Ok(())
    }

    /// Creates an object, durably; of several writers exactly one wins.
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
            Kind::Remote => {
                let Err(cause) = self.create(path, bytes.clone()).await else { return Ok(()) };
                self.who_won(path, &bytes, failure("creating", path, cause)).await
            }
        }
    }

    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.inner.put_opts(&Path::from(path), PutPayload::from_bytes(bytes), options).await.map(|_| ())
    }

    /// A request that was retried below us may have won although it reports an error: the stored
    /// bytes tell.
    async fn who_won(&self, path: &str, ours: &Bytes, error: StorageError) -> Result<(), StorageError> {
        match self.get(path).await {
            Ok(stored) if stored == *ours => Ok(()),
            Ok(_) => Err(StorageError::Conflict { path: path.into() }),
            Err(_) => Err(error),
        }
    }

    /// Removes an object; one that is missing is fine.
    ///
    /// # Errors
    /// `Io`
    pub async fn delete(&self, path: &str) -> Result<(), StorageError> {
        match self.inner.delete(&Path::from(path)).await {
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
        let objects: Vec<_> = self
            .inner
            .list(Some(&Path::from(prefix)))
            .map_ok(|object| (object.location.to_string(), object.size))
            .try_collect()
            .await
            .map_err(|cause| failure("listing", prefix, cause))?;
        let mut objects = objects;
        objects.sort_unstable();
        Ok(objects)
    }

    /// Removes what a killed process left half written in a local folder. Call it once at the start,
    /// when no other process works in the folder.
    ///
    /// # Errors
    /// `Io`
    pub async fn sweep(&self) -> Result<(), StorageError> {
        let Kind::Local(folder) = &self.kind else { return Ok(()) };
        let folder = folder.clone();
        blocking("sweeping", "", move || durable::sweep(&folder)).await
    }
}

/// The environment's variables in the spelling that object stores take their options in.
fn credentials() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?.to_lowercase();
        let ours = ["aws_", "google_", "azure_"].iter().any(|family| name.starts_with(family));
        if ours { Some((name, value.into_string().ok()?)) } else { None }
    })
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
