//! The object store as one process sees it: every request passes the simulation.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use storage::Store;
use url::Url;

use super::link::{Fate, Link};

/// One process's connection to the bucket.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedStore(Arc<Link>);

impl SimulatedStore {
    /// The platform's store over it.
    pub(crate) fn open(link: &Arc<Link>) -> Store {
        let url = Url::parse("s3://simulation/").expect("a URL");
        Store::of(url, Arc::new(Self(Arc::clone(link))))
    }

    /// Waits for the request's turn; an error if it has no effect.
    async fn begin(&self, kind: &str, path: &str) -> Result<Fate> {
        match self.0.pass(kind, path).await {
            Fate::FailsBefore | Fate::Dead | Fate::DiesBefore => Err(lost()),
            fate => Ok(fate),
        }
    }

    /// What the process hears of a request that took effect.
    fn end<T>(fate: Fate, heard: Result<T>) -> Result<T> {
        match fate {
            // to the dead it makes no difference
            Fate::FailsAfter | Fate::DiesAfter => Err(lost()),
            _ => heard,
        }
    }
}

fn lost() -> Error {
    Error::Generic { store: "simulation", source: "the connection broke".into() }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulation")
    }
}

#[async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let is_new = options.mode == PutMode::Create;
        let bytes = Bytes::from(payload.clone());
        if at.as_ref().starts_with("deltas/") && !self.0.is_dead() {
            let barriers = self.0.barriers();
            self.0.world.state().note_delta(at.as_ref(), &bytes, &barriers);
        }
        let fate = self.begin(if is_new { "create" } else { "put" }, at.as_ref()).await?;
        if self.0.world.bugs.forgets_claims && self.0.world.state().is_claim(at.as_ref(), &bytes) {
            return Self::end(fate, Ok(PutResult { e_tag: None, version: None }));
        }
        if self.0.world.bugs.skips_the_fence {
            options.mode = PutMode::Overwrite;
        }
        let put = self.0.world.bucket.put_opts(at, payload, options).await;
        if put.is_ok() {
            self.0.world.state().put(at.as_ref(), &bytes);
        }
        Self::end(fate, put)
    }

    async fn put_multipart_opts(&self, at: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotSupported { source: format!("{at}: nothing of a simulation is so large").into() })
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = self.begin("get", at.as_ref()).await?;
        Self::end(fate, self.0.world.bucket.get_opts(at, options).await)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Result<Path>| {
            let store = store.clone();
            async move {
                let path = path?;
                let fate = store.begin("delete", path.as_ref()).await?;
                let deleted = store.0.world.bucket.delete(&path).await;
                store.0.world.state().objects.remove(path.as_ref());
                Self::end(fate, deleted).map(|()| path)
            }
        };
        paths.then(delete).boxed()
    }

    /// Backwards: nobody may count on an order.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let fate = store.begin("list", prefix.as_ref().map_or("", AsRef::as_ref)).await?;
            let listed: Result<Vec<ObjectMeta>> = store.0.world.bucket.list(prefix.as_ref()).try_collect().await;
            let mut objects = Self::end(fate, listed)?;
            objects.reverse();
            Ok::<_, Error>(futures::stream::iter(objects.into_iter().map(Ok)))
        };
        futures::stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fate = self.begin("list", prefix.map_or("", AsRef::as_ref)).await?;
        Self::end(fate, self.0.world.bucket.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotSupported { source: format!("{from}: nothing is ever copied").into() })
    }
}
