//! JSON documents that are numbered in one folder and, once written, never change.

use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StorageError;
use crate::paths;
use crate::store::Store;

/// The version of every JSON document that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// The documents of one folder.
#[derive(Debug, Clone)]
pub struct Numbered<T> {
    store: Store,
    folder: String,
    documents: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Numbered<T> {
    /// The documents of `folder`, a folder of [`paths`] that ends with a slash.
    pub fn new(store: Store, folder: impl Into<String>) -> Self {
        Self { store, folder: folder.into(), documents: PhantomData }
    }

    /// Creates the document with that number.
    ///
    /// # Errors
    /// `Conflict` when the number is taken.
    pub async fn put_new(&self, number: u64, document: &T) -> Result<(), StorageError> {
        let path = self.path(number);
        let bytes = encode(&path, document)?;
        self.store.put_new(&path, bytes).await
    }

    /// Creates the document with the number after the highest one and returns that number.
    ///
    /// # Errors
    /// `Conflict` when somebody else took it at the same time.
    pub async fn put_next(&self, document: &T) -> Result<u64, StorageError> {
        let next = self.list().await?.last().map_or(1, |last| last.saturating_add(1));
        self.put_new(next, document).await?;
        Ok(next)
    }

    /// The document with the highest number.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn latest(&self) -> Result<Option<(u64, T)>, StorageError> {
        match self.list().await?.last() {
            Some(&number) => Ok(Some((number, self.read(number).await?))),
            None => Ok(None),
        }
    }

    /// The document with that number.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`
    pub async fn read(&self, number: u64) -> Result<T, StorageError> {
        read(&self.store, &self.path(number)).await
    }

    /// All numbers, ascending.
    ///
    /// # Errors
    /// `Io`
    pub async fn list(&self) -> Result<Vec<u64>, StorageError> {
        let listed = self.store.list(&self.folder).await?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|(path, _)| paths::parse_numbered(path)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes the document with that number; a missing one is fine.
    ///
    /// # Errors
    /// `Io`
    pub async fn delete(&self, number: u64) -> Result<(), StorageError> {
        self.store.delete(&self.path(number)).await
    }

    fn path(&self, number: u64) -> String {
        paths::numbered(&self.folder, number)
    }
}

/// Reads a JSON document at any path.
pub(crate) async fn read<T: DeserializeOwned>(store: &Store, path: &str) -> Result<T, StorageError> {
    decode(path, &store.get(path).await?)
}

/// Writes or overwrites a JSON document at any path.
pub(crate) async fn overwrite<T: Serialize>(store: &Store, path: &str, document: &T) -> Result<(), StorageError> {
    store.put(path, encode(path, document)?).await
}

fn encode<T: Serialize>(path: &str, document: &T) -> Result<Bytes, StorageError> {
    let mut bytes =
        serde_json::to_vec_pretty(document).map_err(|cause| StorageError::io(format!("encoding {path}"), cause))?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}

fn decode<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, StorageError> {
    let damaged = |cause: serde_json::Error| StorageError::Damaged { path: path.into(), reason: cause.to_string() };
    let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT {
        let reason = format!("format {format}, this program reads format {FORMAT}");
        return Err(StorageError::Damaged { path: path.into(), reason });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Catalog;

    fn documents() -> Numbered<Catalog> {
        Numbered::new(Store::in_memory(), paths::CATALOG)
    }

    #[tokio::test]
    async fn numbers_grow_and_are_taken_once() {
        let documents = documents();
        assert!(documents.latest().await.unwrap().is_none());
        assert_eq!(documents.put_next(&Catalog::default()).await.unwrap(), 1);
        let second = Catalog { sequence: 2, ..Catalog::default() };
        documents.put_new(2, &second).await.unwrap();
        assert!(matches!(documents.put_new(2, &Catalog::default()).await, Err(StorageError::Conflict { .. })));
        assert_eq!(documents.latest().await.unwrap(), Some((2, second)));
        documents.delete(2).await.unwrap();
        assert_eq!(documents.list().await.unwrap(), [1]);
        assert!(matches!(documents.read(2).await, Err(StorageError::NotFound { .. })));
    }

    #[tokio::test]
    async fn newer_format_and_torn_document_are_damage() {
        let documents = documents();
        for text in ["{\"format\": 2, \"sequence\": 1}", "{\"format\": 1, \"sequ", ""] {
            documents.store.put(&paths::catalog(1), Bytes::from(text)).await.unwrap();
            assert!(matches!(documents.read(1).await, Err(StorageError::Damaged { .. })), "{text}");
        }
    }
}
