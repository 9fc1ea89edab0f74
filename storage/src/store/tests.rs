use std::sync::atomic::Ordering;

use super::*;
use crate::paths;
use unruly::Unruly;

mod unruly;

fn local() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("a/b").to_str().unwrap()).unwrap();
    (folder, store)
}

#[tokio::test]
async fn local_folder_conforms() {
    let (_folder, store) = local();
    let again = Store::open(store.url().as_str()).unwrap();
    conformance::check(&store, &again).await.unwrap();
    store.put("y/0", Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(store.inner().head(&Path::from("y/0")).await.unwrap().size, 1);
    let whole = Path::from_url_path(store.url().join("y/0").unwrap().path()).unwrap();
    assert_eq!(store.bucket().head(&whole).await.unwrap().size, 1);
}

#[tokio::test]
async fn memory_conforms() {
    let store = Store::open("memory:").unwrap();
    conformance::check(&store, &store.clone()).await.unwrap();
}

fn unruly() -> (Arc<Unruly>, Store) {
    let bucket = Arc::new(Unruly::default());
    let store = Store::of(Url::parse("s3://bucket/some/where/").unwrap(), bucket.clone());
    (bucket, store)
}

fn beside(bucket: &Arc<Unruly>) -> Store {
    Store::of(Url::parse("s3://bucket/some/where/").unwrap(), Arc::clone(bucket) as _)
}

/// A prefix of a bucket whose listings come in another order every time.
#[tokio::test]
async fn remote_prefix_conforms_whatever_the_order_of_listings() {
    let (bucket, store) = unruly();
    conformance::check(&store, &beside(&bucket)).await.unwrap();
    store.put("y/0", Bytes::from_static(b"y")).await.unwrap();
    assert!(bucket.inner.head(&Path::from("some/where/y/0")).await.is_ok());
}

#[tokio::test]
async fn remote_prefix_with_a_cache_conforms() {
    let (bucket, store) = unruly();
    let folder = tempfile::tempdir().unwrap();
    let store = store.with_cache(folder.path(), 1_000_000).unwrap();
    conformance::check(&store, &beside(&bucket)).await.unwrap();
}

/// A create whose answer is lost, or that was repeated below us, has won if its bytes are there.
#[tokio::test]
async fn create_whose_answer_is_lost_has_won() {
    let (bucket, store) = unruly();
    bucket.lie.store(1, Ordering::SeqCst);
    store.put_new("doc", Bytes::from_static(b"ours")).await.unwrap();
    store.put_new("doc", Bytes::from_static(b"ours")).await.unwrap();
    let other = beside(&bucket);
    for bytes in ["ours", "other"] {
        let late = other.put_new("doc", Bytes::from(bytes)).await;
        assert!(matches!(late, Err(StorageError::Conflict { .. })), "{bytes}");
    }
}

#[tokio::test]
async fn create_that_is_lost_is_an_error_and_leaves_nothing() {
    let (bucket, store) = unruly();
    bucket.lose.store(1, Ordering::SeqCst);
    let lost = store.put_new("doc", Bytes::from_static(b"ours")).await;
    assert!(matches!(lost, Err(StorageError::Io { .. })), "{lost:?}");
    assert!(store.list("").await.unwrap().is_empty());
    store.put_new("doc", Bytes::from_static(b"ours")).await.unwrap();
}

/// S3 refuses with 409 while another request for the same key is under way, whoever wins.
#[tokio::test(start_paused = true)]
async fn refusal_with_nothing_there_is_no_conflict() {
    let (bucket, store) = unruly();
    bucket.refuse.store(3, Ordering::SeqCst);
    store.put_new("doc", Bytes::from_static(b"ours")).await.unwrap();
    assert_eq!(store.get("doc").await.unwrap(), "ours");
    bucket.refuse.store(usize::MAX, Ordering::SeqCst);
    let never = store.put_new("doc2", Bytes::from_static(b"ours")).await;
    assert!(matches!(never, Err(StorageError::Io { .. })), "{never:?}");
}

#[tokio::test]
async fn immutable_objects_are_read_once() {
    let (bucket, store) = unruly();
    let folder = tempfile::tempdir().unwrap();
    for path in ["a.delta", "a.parquet", "a.json"] {
        store.put(path, Bytes::from_static(b"0123456789")).await.unwrap();
    }
    let reads = |store: Store| async move {
        assert_eq!(store.get("a.delta").await.unwrap(), "0123456789");
        assert_eq!(store.get_range("a.parquet", 2..5).await.unwrap(), "234");
        let ranges = store.inner().get_ranges(&Path::from("a.parquet"), &[7..9, 0..1]).await.unwrap();
        assert_eq!(ranges, ["78", "0"]);
    };
    let cached = store.clone().with_cache(folder.path(), 1_000_000).unwrap();
    reads(cached.clone()).await;
    assert_eq!(bucket.reads.load(Ordering::SeqCst), 3);
    reads(cached.clone()).await;
    let again = store.clone().with_cache(folder.path(), 1_000_000).unwrap();
    reads(again).await;
    assert_eq!(bucket.reads.load(Ordering::SeqCst), 3, "also after a restart");
    for n in 0..3 {
        store.put("a.json", Bytes::from(format!("{n}"))).await.unwrap();
        assert_eq!(cached.get("a.json").await.unwrap(), format!("{n}"));
    }
}

/// A store refuses a key that begins with another key and a slash: none of ours does.
#[test]
fn no_key_is_a_folder_of_another() {
    let id = Uuid::from_u128(7);
    let keys = [
        paths::catalog(1),
        paths::owner(1),
        paths::delta(id, 0, 1),
        paths::manifest(id, 1),
        paths::batch_view_part(id, 1, 0),
        paths::late_events(id, 1),
        paths::certificate(id, 1),
        paths::run(1),
        paths::table(id, 1),
        format!("{}part-0.parquet", paths::master(id)),
        format!("{}_delta_log/0.json", paths::master(id)),
    ];
    for (key, other) in keys.iter().flat_map(|key| keys.iter().map(move |other| (key, other))) {
        assert!(!other.starts_with(&format!("{key}/")), "{key} is a folder of {other}");
    }
}

#[tokio::test]
async fn of_many_creators_exactly_one_wins() {
    let (_folder, store) = local();
    let tries = (0..16).map(|n: u8| {
        let store = store.clone();
        async move { store.put_new("deep/er/doc", Bytes::from(vec![n; 9])).await.is_ok() }
    });
    let won = futures::future::join_all(tries).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
}

#[tokio::test]
async fn sweep_removes_half_written_files_only() {
    let (_folder, store) = local();
    store.put("x/doc", Bytes::from_static(b"kept")).await.unwrap();
    let half = durable::temporary_beside(&store.local_path("x/doc").unwrap()).unwrap();
    std::fs::write(&half, b"torn").unwrap();
    assert_eq!(store.list("").await.unwrap().len(), 1, "a half-written file is not listed");
    store.sweep().await.unwrap();
    assert!(!half.exists());
    assert_eq!(store.get("x/doc").await.unwrap(), "kept");
}
