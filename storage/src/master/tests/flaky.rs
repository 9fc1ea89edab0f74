//! An object store that loses commits, or the answers to them, and lists from the end to the beginning.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::*;

#[derive(Debug, Default)]
struct Flaky {
    inner: InMemory,
    /// So many of the next commits are not written.
    lose: AtomicUsize,
    /// So many of the next commits are written, but say that they were not.
    lie: AtomicUsize,
}

fn due(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn lost() -> Error {
    Error::Generic { store: "flaky", source: "connection reset".into() }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_commit = location.extension() == Some("json");
        if is_commit && due(&self.lose) {
            return Err(lost());
        }
        let put = self.inner.put_opts(location, payload, options).await?;
        if is_commit && due(&self.lie) { Err(lost()) } else { Ok(put) }
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // in memory: it is ready at once
        let listed = futures::executor::block_on(self.inner.list(prefix).collect::<Vec<_>>());
        futures::stream::iter(listed.into_iter().rev()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn open_flaky(stream: &StreamDef) -> (Arc<Flaky>, Url, Arc<Master>) {
    let (store, root) = (Arc::new(Flaky::default()), Url::parse("memory:///master/s/").unwrap());
    let master = Master::open_with(store.clone(), &root, stream, Arc::new(SystemClock), 0).await.unwrap();
    (store, root, master)
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_whose_answer_is_lost_lands_once() {
    let stream = plain(2);
    let (store, root, master) = open_flaky(&stream).await;
    store.lie.store(1, Ordering::SeqCst);
    let landed = master.land(vec![frame(&stream, 0, 0, 10), frame(&stream, 1, 0, 4)]).await.unwrap();
    assert_eq!((landed.version, &landed.to, landed.files.len()), (1, &Cut(vec![10, 4]), 2));
    master.land(vec![frame(&stream, 0, 10, 10)]).await.unwrap();
    let again = Master::open_with(store.clone(), &root, &stream, Arc::new(SystemClock), 0).await.unwrap();
    assert_eq!((again.landed(), again.version()), (Cut(vec![20, 4]), 2));
    assert_eq!(ids(&again).await, ids_below(&[20, 4]));
}

/// Of two processes that land the same records one has landed them; the other sees that.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_that_land_one_wins() {
    let stream = plain(1);
    let (store, root, first) = open_flaky(&stream).await;
    let second = Master::open_with(store.clone(), &root, &stream, Arc::new(SystemClock), 0).await.unwrap();
    for round in 0..10 {
        let frames = || vec![frame(&stream, 0, round * 10, 10)];
        let (one, other) = tokio::join!(first.land(frames()), second.land(frames()));
        assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|won| **won).count(), 1, "{one:?} {other:?}");
        first.refresh().await.unwrap();
        second.refresh().await.unwrap();
    }
    let again = Master::open_with(store, &root, &stream, Arc::new(SystemClock), 0).await.unwrap();
    assert_eq!(ids(&again).await, ids_below(&[100]));
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_that_is_lost_is_tried_again() {
    let stream = plain(1);
    let (store, _, master) = open_flaky(&stream).await;
    store.lose.store(3, Ordering::SeqCst);
    master.land(vec![frame(&stream, 0, 0, 10)]).await.unwrap();
    assert_eq!((master.landed(), master.version()), (Cut(vec![10]), 1));
    assert_eq!(ids(&master).await, ids_below(&[10]));
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_takes_no_commits_is_an_error_and_nothing_lands() {
    let stream = plain(1);
    let (store, _, master) = open_flaky(&stream).await;
    store.lose.store(usize::MAX, Ordering::SeqCst);
    let failed = master.land(vec![frame(&stream, 0, 0, 10)]).await;
    assert!(matches!(failed, Err(StorageError::Io { .. })), "{failed:?}");
    assert_eq!(master.landed(), Cut(vec![0]));
    store.lose.store(0, Ordering::SeqCst);
    master.land(vec![frame(&stream, 0, 0, 10)]).await.unwrap();
    assert_eq!(ids(&master).await, ids_below(&[10]));
}
