//! Manifests: which batch view of a view is the current one.

use std::sync::Arc;

use schemas::documents::manifest::Manifest;
use uuid::Uuid;

use crate::error::StorageError;
use crate::numbered::Numbered;
use crate::paths;
use crate::store::Store;

/// The manifests of every view.
#[derive(Debug, Clone)]
pub struct ManifestStore {
    store: Store,
}

impl ManifestStore {
    /// The manifests in a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Publishes: creates the manifest under its sequence. This is the compare-and-swap of a view.
    ///
    /// # Errors
    /// `Conflict` when that sequence was published already.
    pub async fn publish(&self, manifest: &Manifest) -> Result<(), StorageError> {
        self.of(manifest.view).put_new(manifest.sequence, manifest).await
    }

    /// The current manifest.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn current(&self, view: Uuid) -> Result<Option<Arc<Manifest>>, StorageError> {
        Ok(self.of(view).latest().await?.map(|(_, manifest)| Arc::new(manifest)))
    }

    /// All kept manifests, the oldest first.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn list(&self, view: Uuid) -> Result<Vec<Arc<Manifest>>, StorageError> {
        let documents = self.of(view);
        let mut manifests = vec![];
        for sequence in documents.list().await? {
            manifests.push(Arc::new(documents.read(sequence).await?));
        }
        Ok(manifests)
    }

    /// The newest manifest that names the batch view of that run.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn by_run(&self, view: Uuid, run: u64) -> Result<Option<Arc<Manifest>>, StorageError> {
        Ok(self.list(view).await?.into_iter().rev().find(|manifest| manifest.run == run))
    }

    /// Removes one that is no longer kept.
    ///
    /// # Errors
    /// `Io`
    pub async fn remove(&self, view: Uuid, sequence: u64) -> Result<(), StorageError> {
        self.of(view).delete(sequence).await
    }

    fn of(&self, view: Uuid) -> Numbered<Manifest> {
        Numbered::new(self.store.clone(), paths::manifests(view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{Cut, Verdict};

    fn manifest(sequence: u64, run: u64) -> Manifest {
        Manifest {
            format: 1,
            sequence,
            view: Uuid::from_u128(5),
            semantic_hash: "h".into(),
            run,
            cut: Cut(vec![run, 2]),
            files: vec![],
            cells: 0,
            ledger: vec![],
            verdict: Verdict::Exact,
            published_at_us: 1,
            rolled_back_from: None,
        }
    }

    /// I4: of two publications of one sequence the second is refused.
    #[tokio::test]
    async fn highest_sequence_is_current_and_taken_once() {
        let manifests = ManifestStore::new(Store::in_memory());
        let view = Uuid::from_u128(5);
        assert!(manifests.current(view).await.unwrap().is_none());
        for (sequence, run) in [(1, 7), (2, 9), (3, 7)] {
            manifests.publish(&manifest(sequence, run)).await.unwrap();
        }
        assert!(matches!(manifests.publish(&manifest(3, 8)).await, Err(StorageError::Conflict { .. })));
        assert_eq!(*manifests.current(view).await.unwrap().unwrap(), manifest(3, 7));
        assert_eq!(manifests.by_run(view, 7).await.unwrap().unwrap().sequence, 3, "the newest of that run");
        assert!(manifests.by_run(view, 8).await.unwrap().is_none());
        manifests.remove(view, 1).await.unwrap();
        assert_eq!(manifests.list(view).await.unwrap().len(), 2);
        assert!(manifests.current(Uuid::from_u128(6)).await.unwrap().is_none());
    }
}
