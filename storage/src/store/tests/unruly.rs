//! An object store as it may be on a bad day: shuffled listings, lost requests, lost answers, refusals
//! that mean nothing.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutResult, Result,
};

use super::*;

#[derive(Debug, Default)]
pub(super) struct Unruly {
    pub(super) inner: InMemory,
    /// So many of the next puts are not carried out.
    pub(super) lose: AtomicUsize,
    /// So many of the next puts are carried out, but say that they were not.
    pub(super) lie: AtomicUsize,
    /// So many of the next puts are refused as if something were there (409).
    pub(super) refuse: AtomicUsize,
    /// Reads so far.
    pub(super) reads: AtomicUsize,
    turns: AtomicU64,
}

fn due(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn lost() -> Error {
    Error::Generic { store: "unruly", source: "connection reset".into() }
}

impl Unruly {
    /// Another order every time.
    fn shuffle(&self, mut objects: Vec<Result<ObjectMeta>>) -> Vec<Result<ObjectMeta>> {
        let mut seed = self.turns.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        for at in (1..objects.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            objects.swap(at, (seed >> 33) as usize % (at + 1));
        }
        objects
    }

    fn shuffled(&self, listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        // in memory: it is ready at once
        let objects = futures::executor::block_on(listed.collect::<Vec<_>>());
        futures::stream::iter(self.shuffle(objects)).boxed()
    }
}

impl fmt::Display for Unruly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unruly")
    }
}

#[async_trait]
impl ObjectStore for Unruly {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if due(&self.lose) {
            return Err(lost());
        }
        if due(&self.refuse) {
            return Err(Error::AlreadyExists { path: location.to_string(), source: "409".into() });
        }
        let put = self.inner.put_opts(location, payload, options).await;
        if due(&self.lie) { Err(lost()) } else { put }
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shuffled(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shuffled(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
