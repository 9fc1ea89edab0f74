//! What is stored about the topic that a stream is read from.

use schemas::documents::source::{LogTopic, SourceDocument, SourcePosition};
use uuid::Uuid;

use crate::error::StorageError;
use crate::numbered::{self, Numbered};
use crate::paths;
use crate::store::Store;

/// The documents about one stream's topic.
#[derive(Debug, Clone)]
pub struct SourceStore {
    store: Store,
    stream: Uuid,
    documents: Numbered<SourceDocument>,
}

impl SourceStore {
    /// The documents of a stream.
    pub fn new(store: Store, stream: Uuid) -> Self {
        let documents = Numbered::new(store.clone(), paths::sources(stream));
        Self { store, stream, documents }
    }

    /// What is known, and its number; none before the topic was looked at first.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn latest(&self) -> Result<Option<(u64, SourceDocument)>, StorageError> {
        self.documents.latest().await
    }

    /// Writes what is known as document `number`.
    ///
    /// # Errors
    /// `Conflict` when another process was quicker: it reads this topic, too.
    pub async fn put_new(&self, number: u64, document: &SourceDocument) -> Result<(), StorageError> {
        self.documents.put_new(number, document).await
    }

    /// How far the topic had been read when that was written last.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn position(&self) -> Result<Option<SourcePosition>, StorageError> {
        match numbered::read(&self.store, &paths::source_position(self.stream)).await {
            Ok(position) => Ok(Some(position)),
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes how far the topic has been read.
    ///
    /// # Errors
    /// `Io`
    pub async fn put_position(&self, position: &SourcePosition) -> Result<(), StorageError> {
        numbered::overwrite(&self.store, &paths::source_position(self.stream), position).await
    }

    /// The topic that one of the stream's own logs was made in (`kind`: `records` or `dead-letters`).
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn log_topic(&self, kind: &str) -> Result<Option<LogTopic>, StorageError> {
        match numbered::read(&self.store, &paths::log_topic(self.stream, kind)).await {
            Ok(topic) => Ok(Some(topic)),
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes the topic that one of the stream's own logs was made in.
    ///
    /// # Errors
    /// `Io`
    pub async fn put_log_topic(&self, kind: &str, topic: &LogTopic) -> Result<(), StorageError> {
        numbered::overwrite(&self.store, &paths::log_topic(self.stream, kind), topic).await
    }

    /// Removes everything about the topic.
    ///
    /// # Errors
    /// `Io`: some are gone.
    pub async fn remove_all(&self) -> Result<(), StorageError> {
        self.store.delete_below(&paths::sources(self.stream)).await
    }
}

#[cfg(test)]
mod tests {
    use schemas::documents::source::{Epoch, Hole, HoleReason};

    use super::*;

    #[tokio::test]
    async fn documents_are_numbered_and_the_position_is_beside_them() {
        let sources = SourceStore::new(Store::in_memory(), Uuid::from_u128(1));
        assert!(sources.latest().await.unwrap().is_none() && sources.position().await.unwrap().is_none());
        let epoch = |number| Epoch {
            number,
            topic_id: Uuid::from_u128(7),
            starts: vec![3, 0],
            letters_from: 2,
            began_at_us: 5,
        };
        let first = SourceDocument { format: 1, topic: "t".into(), epochs: vec![epoch(0)], holes: vec![] };
        sources.put_new(1, &first).await.unwrap();
        assert!(matches!(sources.put_new(1, &first).await, Err(StorageError::Conflict { .. })));
        let position = SourcePosition { format: 1, epoch: 0, next: vec![4, 9], letters: 1, log: vec![3] };
        sources.put_position(&position).await.unwrap();
        let hole = Hole {
            epoch: 0,
            topic_id: Uuid::from_u128(7),
            partition: 1,
            from: 4,
            to: None,
            reason: HoleReason::Recreated,
            found_at_us: 6,
        };
        let second = SourceDocument { epochs: vec![epoch(0), epoch(1)], holes: vec![hole], ..first };
        sources.put_new(2, &second).await.unwrap();
        assert_eq!(sources.latest().await.unwrap(), Some((2, second)));
        assert_eq!(sources.position().await.unwrap(), Some(position));
        sources.remove_all().await.unwrap();
        assert!(sources.latest().await.unwrap().is_none() && sources.position().await.unwrap().is_none());
    }
}
