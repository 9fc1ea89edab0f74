//! Where a table's files are: a local folder or a prefix in an object store.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use url::Url;

use super::durable::DurableLocal;
use crate::error::StorageError;
use crate::store::durable::{create_folder, sync_folder};
use crate::store::ordered::Ordered;
use crate::store::{Store, upload};

/// The folder of a table. Its functions block: they are for threads that may.
#[derive(Debug)]
pub(super) struct Place {
    /// Ends with `/`.
    pub(super) root: Url,
    /// The store of the whole file system or bucket.
    pub(super) store: Arc<dyn ObjectStore>,
    handle: Handle,
    local: Option<PathBuf>,
}

/// The object store that a URL names; its options come from the environment (`AWS_…`, `AZURE_…`, `GOOGLE_…`).
pub(super) fn store_of(root: &Url) -> Result<Arc<dyn ObjectStore>, StorageError> {
    if root.scheme() == "file" {
        return Ok(Arc::new(DurableLocal::new()));
    }
    Ok(Store::open(root.as_str())?.bucket())
}

impl Place {
    /// The folder `root` in `store`. A local folder is made if it is missing.
    pub(super) fn new(root: &Url, store: Arc<dyn ObjectStore>, handle: Handle) -> Result<Self, StorageError> {
        let mut root = root.clone();
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", root.path()));
        }
        let local = (root.scheme() == "file").then(|| root.to_file_path()).transpose();
        let local = local.map_err(|()| StorageError::io(format!("opening {root}"), "not a path of this machine"))?;
        if let Some(folder) = &local {
            create_folder(folder).map_err(|e| StorageError::io(format!("making the folder {root}"), e))?;
        }
        let store = if local.is_some() { store } else { Arc::new(Ordered::new(store)) };
        Ok(Self { root, store, handle, local })
    }

    /// Runs a future of the store to its end, on whatever thread this is.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, object_store::Error> {
        match futures::executor::block_on(self.handle.spawn(future)) {
            Ok(result) => result,
            Err(join) => Err(object_store::Error::Generic { store: "master", source: join.into() }),
        }
    }

    /// The URL of a path as the Delta log has it: relative to the root, or absolute.
    fn url(&self, path: &str) -> Result<Url, StorageError> {
        self.root.join(path).map_err(|e| StorageError::io(format!("resolving {path} in {}", self.root), e))
    }

    /// The local path of a file; none if the table is not local.
    pub(super) fn local_path(&self, path: &str) -> Result<Option<PathBuf>, StorageError> {
        if self.local.is_none() {
            return Ok(None);
        }
        let file = self.url(path)?.to_file_path();
        file.map(Some).map_err(|()| StorageError::NotFound { path: path.to_string() })
    }

    /// The path of a file in the object store.
    pub(super) fn object_path(&self, path: &str) -> Result<Path, StorageError> {
        let url = self.url(path)?;
        Path::from_url_path(url.path()).map_err(|e| StorageError::io(format!("resolving {url}"), e))
    }

    /// Begins a file.
    pub(super) fn create(&self, name: &str) -> Result<Output, StorageError> {
        let Some(path) = self.local_path(name)? else {
            return Ok(Output::Memory(Vec::new()));
        };
        File::create_new(path).map(Output::Local).map_err(|e| StorageError::io(format!("creating {name}"), e))
    }

    /// Makes a file durable, but for its name in a local folder (see [`Place::sync_names`]), and
    /// returns its size.
    pub(super) fn finish(&self, name: &str, output: Output) -> Result<u64, StorageError> {
        let context = || format!("writing {name}");
        match output {
            Output::Local(file) => {
                let size = file.sync_all().and_then(|()| file.metadata());
                size.map(|metadata| metadata.len()).map_err(|e| StorageError::io(context(), e))
            }
            Output::Memory(bytes) => {
                let (store, path, size) = (self.store.clone(), self.object_path(name)?, bytes.len() as u64);
                let put = async move { upload::put(store.as_ref(), &path, bytes.into()).await };
                self.wait(put).map(|()| size).map_err(|e| StorageError::io(context(), e))
            }
        }
    }

    /// Makes the names of finished files durable.
    pub(super) fn sync_names(&self) -> Result<(), StorageError> {
        let Some(folder) = &self.local else { return Ok(()) };
        // It syncs the folder that the file would be in.
        sync_folder(&folder.join("_")).map_err(|e| StorageError::io(format!("syncing {}", self.root), e))
    }

    /// Removes a file.
    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let (store, path) = (self.store.clone(), self.object_path(name)?);
        let delete = async move { store.delete(&path).await };
        self.wait(delete).map_err(|e| StorageError::io(format!("removing {name}"), e))
    }

    /// Files of the folder itself, not of folders in it.
    pub(super) fn list(&self) -> Result<Vec<ObjectMeta>, StorageError> {
        let (store, prefix) = (self.store.clone(), self.object_path("")?);
        let list = async move { store.list_with_delimiter(Some(&prefix)).await };
        let listed = self.wait(list).map_err(|e| StorageError::io(format!("listing {}", self.root), e))?;
        Ok(listed.objects)
    }

    /// True if a Delta table is here.
    pub(super) fn has_table(&self) -> Result<bool, StorageError> {
        let (store, prefix) = (self.store.clone(), self.object_path("_delta_log/")?);
        let first = async move { store.list(Some(&prefix)).try_next().await };
        let first = self.wait(first).map_err(|e| StorageError::io(format!("listing {}", self.root), e))?;
        Ok(first.is_some())
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) enum Output {
    /// Straight into its place.
    Local(File),
    /// Gathered, and put at the end.
    Memory(Vec<u8>),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Local(file) => file.write(bytes),
            Self::Memory(buffer) => buffer.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Local(file) => file.flush(),
            Self::Memory(_) => Ok(()),
        }
    }
}
