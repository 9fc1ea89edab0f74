use super::*;

fn local() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("a/b").to_str().unwrap()).unwrap();
    (folder, store)
}

async fn behaves(store: &Store) {
    assert!(store.list("nothing/here").await.unwrap().is_empty());
    assert!(matches!(store.get("x/1").await, Err(StorageError::NotFound { .. })));
    store.put_new("x/1", Bytes::from_static(b"one")).await.unwrap();
    let again = store.put_new("x/1", Bytes::from_static(b"two")).await;
    assert!(matches!(again, Err(StorageError::Conflict { path }) if path == "x/1"));
    assert_eq!(store.get("x/1").await.unwrap(), "one");
    store.put("x/1", Bytes::from_static(b"three")).await.unwrap();
    assert_eq!(store.get_range("x/1", 1..3).await.unwrap(), "hr");
    store.put("x/0", Bytes::from_static(b"")).await.unwrap();
    store.put("y/0", Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(store.list("x").await.unwrap(), [("x/0".to_owned(), 0), ("x/1".to_owned(), 5)]);
    store.delete("x/0").await.unwrap();
    store.delete("x/0").await.unwrap();
    store.delete_below("x").await.unwrap();
    assert_eq!(store.list("").await.unwrap(), [("y/0".to_owned(), 1)]);
}

#[tokio::test]
async fn local_folder_behaves() {
    let (_folder, store) = local();
    behaves(&store).await;
    assert_eq!(store.inner().head(&Path::from("y/0")).await.unwrap().size, 1);
    let whole = Path::from_url_path(store.url().join("y/0").unwrap().path()).unwrap();
    assert_eq!(store.bucket().head(&whole).await.unwrap().size, 1);
}

#[tokio::test]
async fn memory_behaves() {
    behaves(&Store::open("memory:").unwrap()).await;
}

#[tokio::test]
async fn store_under_a_url_prefix_behaves() {
    let bucket = Arc::new(object_store::memory::InMemory::new());
    let store = Store::of(Url::parse("s3://bucket/some/where/").unwrap(), bucket.clone());
    behaves(&store).await;
    assert!(bucket.head(&Path::from("some/where/y/0")).await.is_ok());
}

#[tokio::test]
async fn create_that_was_retried_and_had_won_is_no_conflict() {
    let bucket = Arc::new(object_store::memory::InMemory::new());
    let store = Store::of(Url::parse("s3://bucket/").unwrap(), bucket);
    store.put_new("doc", Bytes::from_static(b"ours")).await.unwrap();
    store.put_new("doc", Bytes::from_static(b"ours")).await.unwrap();
    assert!(matches!(store.put_new("doc", Bytes::from_static(b"other")).await, Err(StorageError::Conflict { .. })));
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
