//! What a store must do on every kind of storage. A test of one calls [`check`].

use bytes::Bytes;
use futures::future::join_all;

use super::Store;
use crate::error::StorageError;

/// A name of a long listing.
fn path(number: usize) -> String {
    format!("many/{number:020}.json")
}

/// Writers that race for one object.
const WRITERS: usize = 8;
/// Objects that they race for.
const RACES: usize = 25;
/// Objects of a listing: more than one page of some stores.
const LISTED: usize = 1_100;

/// Checks a place that two processes have opened; it must be empty, and is afterwards.
///
/// # Errors
/// The store failed where it must not.
///
/// # Panics
/// Where it does not behave.
pub async fn check(first: &Store, second: &Store) -> Result<(), StorageError> {
    overwrites(first, second).await?;
    creates_once(first, second).await?;
    equal_bytes_have_one_winner(first, second).await?;
    races_have_one_winner(first, second).await?;
    lists_everything_in_order(first).await?;
    first.delete_below("").await?;
    assert!(second.list("").await?.is_empty(), "what was removed is gone for everybody");
    Ok(())
}

async fn overwrites(first: &Store, second: &Store) -> Result<(), StorageError> {
    assert!(first.list("nothing/here").await?.is_empty());
    assert!(matches!(first.get("x/1").await, Err(StorageError::NotFound { .. })));
    first.put("x/1", Bytes::from_static(b"one")).await?;
    second.put("x/1", Bytes::from_static(b"three")).await?;
    assert_eq!(first.get("x/1").await?, "three", "a reader sees the last write");
    assert_eq!(first.get_range("x/1", 1..3).await?, "hr");
    first.put("x/0", Bytes::new()).await?;
    assert_eq!(second.list("x").await?, [("x/0".to_owned(), 0), ("x/1".to_owned(), 5)]);
    first.delete("x/0").await?;
    first.delete("x/0").await?;
    assert!(matches!(second.get("x/0").await, Err(StorageError::NotFound { .. })));
    let large: Bytes = (0..20_000_000_u32).map(|at| (at / 7) as u8).collect();
    first.put("x/large", large.clone()).await?;
    assert!(second.get("x/large").await? == large, "an object that goes up in parts is whole");
    Ok(())
}

async fn creates_once(first: &Store, second: &Store) -> Result<(), StorageError> {
    first.put_new("doc/1", Bytes::from_static(b"first")).await?;
    let late = second.put_new("doc/1", Bytes::from_static(b"second")).await;
    assert!(matches!(late, Err(StorageError::Conflict { path }) if path == "doc/1"));
    assert_eq!(second.get("doc/1").await?, "first");
    first.delete("doc/1").await?;
    second.put_new("doc/1", Bytes::from_static(b"second")).await?;
    Ok(())
}

/// The A-B-A of documents: bytes alone do not say who wrote them.
async fn equal_bytes_have_one_winner(first: &Store, second: &Store) -> Result<(), StorageError> {
    first.put_new("doc/2", Bytes::from_static(b"same")).await?;
    let late = second.put_new("doc/2", Bytes::from_static(b"same")).await;
    assert!(matches!(late, Err(StorageError::Conflict { .. })), "another writer's equal bytes are not ours");
    Ok(())
}

async fn races_have_one_winner(first: &Store, second: &Store) -> Result<(), StorageError> {
    for race in 0..RACES {
        let path = format!("race/{race}");
        let tries = (0..WRITERS).map(|writer| {
            let store = if writer % 2 == 0 { first.clone() } else { second.clone() };
            let path = path.clone();
            async move { store.put_new(&path, Bytes::from(vec![writer as u8; 100 + writer])).await }
        });
        let mut winners = vec![];
        for (writer, outcome) in join_all(tries).await.into_iter().enumerate() {
            match outcome {
                Ok(()) => winners.push(writer),
                Err(StorageError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        assert_eq!(winners.len(), 1, "of {WRITERS} writers exactly one wins");
        assert_eq!(first.get(&path).await?, vec![winners[0] as u8; 100 + winners[0]], "and its bytes are there");
    }
    Ok(())
}

async fn lists_everything_in_order(store: &Store) -> Result<(), StorageError> {
    let chunks: Vec<usize> = (0..LISTED).collect();
    for chunk in chunks.chunks(50) {
        let puts = chunk.iter().map(|&number| async move { store.put(&path(number), Bytes::from_static(b"{}")).await });
        for written in join_all(puts).await {
            written?;
        }
    }
    let listed: Vec<String> = store.list("many").await?.into_iter().map(|(path, _)| path).collect();
    assert!(listed == (0..LISTED).map(path).collect::<Vec<_>>(), "a listing is whole and sorted");
    Ok(())
}
