//! Manifests: which batch view of a view is the current one.
//!
//! ```text
//!  1 run 4 ──► 2 run 5 ──► 3 run 5, claimed by owner 8 ──► 4 run 6      owner 7, in the middle of a run when 8 took over,
//!                                                                      would publish 3: that is taken, and nobody may
//!                                                                      build on what a newer owner has written
//! ```

use std::sync::Arc;

use schemas::documents::manifest::Manifest;
use uuid::Uuid;

use crate::error::StorageError;
use crate::numbered::Numbered;
use crate::owner::CLAIMS_MAX;
use crate::paths;
use crate::store::Store;

/// Documents of one publication that are kept: itself or the newest claims on it.
const CLAIMS_KEPT: usize = 2;

/// How far the publications of a view are: what a new one is decided on, and its place.
#[derive(Debug, Clone)]
pub struct Head {
    /// The current manifest; none before the first.
    pub manifest: Option<Arc<Manifest>>,
    /// The sequence that a publication on top of it takes.
    pub next: u64,
}

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

    /// Number of this process among the owners of the store: what it publishes carries it.
    pub fn epoch(&self) -> u64 {
        self.store.epoch()
    }

    /// Publishes: creates the manifest under its sequence. This is the compare-and-swap of a view.
    ///
    /// # Errors
    /// `Conflict` when that sequence was published already, or claimed by a newer owner.
    pub async fn publish(&self, manifest: &Manifest) -> Result<(), StorageError> {
        self.of(manifest.view).put_new(manifest.sequence, manifest).await
    }

    /// What the next publication of a view is decided on.
    ///
    /// # Errors
    /// `Fenced` when a newer owner has written it; `Damaged`, `Io`
    pub async fn head(&self, view: Uuid) -> Result<Head, StorageError> {
        let Some((sequence, newest)) = self.of(view).latest().await? else {
            return Ok(Head { manifest: None, next: 1 });
        };
        self.store.assert_not_fenced(|| paths::manifest(view, sequence), newest.epoch)?;
        let manifest = Some(newest).filter(Manifest::has_batch_view).map(Arc::new);
        Ok(Head { manifest, next: sequence.saturating_add(1) })
    }

    /// Takes the next sequence of a view, so that an older owner cannot publish any more (invariant I9). Of a store
    /// that nobody else can take over nothing is claimed.
    ///
    /// # Errors
    /// `Fenced` when a newer owner was quicker; `Conflict` when somebody publishes without end; `Damaged`, `Io`
    pub async fn claim(&self, view: Uuid) -> Result<(), StorageError> {
        let epoch = self.store.epoch();
        if epoch == 0 {
            return Ok(());
        }
        for attempt in 1.. {
            let head = self.head(view).await?;
            let claim = match &head.manifest {
                Some(current) => current.claimed(epoch),
                None => Manifest::empty_claim(view, head.next, epoch),
            };
            match self.publish(&claim).await {
                Err(StorageError::Conflict { .. }) if attempt < CLAIMS_MAX => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.prune(view).await
    }

    /// Removes older documents of one publication: every start of an owner adds one.
    async fn prune(&self, view: Uuid) -> Result<(), StorageError> {
        let all = self.documents(view).await?;
        for (at, manifest) in all.iter().enumerate() {
            let newer = all[at + 1..].iter().filter(|newer| newer.is_same_publication(manifest)).count();
            if newer >= CLAIMS_KEPT {
                self.remove(view, manifest.sequence).await?;
            }
        }
        Ok(())
    }

    /// The current manifest, for those who only read.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn current(&self, view: Uuid) -> Result<Option<Arc<Manifest>>, StorageError> {
        let newest = self.of(view).latest().await?.map(|(_, manifest)| manifest);
        Ok(newest.filter(Manifest::has_batch_view).map(Arc::new))
    }

    /// All kept manifests, the oldest first.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn list(&self, view: Uuid) -> Result<Vec<Arc<Manifest>>, StorageError> {
        let mut manifests = self.documents(view).await?;
        manifests.retain(|manifest| manifest.has_batch_view());
        Ok(manifests)
    }

    async fn documents(&self, view: Uuid) -> Result<Vec<Arc<Manifest>>, StorageError> {
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
    use schemas::{Cut, Verdict};

    use super::*;
    use crate::owner::testing::{bucket, next_owner};

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
            epoch: 0,
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

    /// I9: an owner that is about to publish when another one takes over does not, and never again.
    #[tokio::test]
    async fn overtaken_owner_publishes_nothing() {
        let (bucket, view) = (bucket(), Uuid::from_u128(5));
        let old = ManifestStore::new(next_owner(&bucket).await);
        old.claim(view).await.unwrap();
        let head = old.head(view).await.unwrap();
        assert!(head.manifest.is_none());
        let published = Manifest { epoch: old.epoch(), ..manifest(head.next, 4) };
        old.publish(&published).await.unwrap();
        let planned = old.head(view).await.unwrap();
        let new = ManifestStore::new(next_owner(&bucket).await);
        new.claim(view).await.unwrap();
        assert!(matches!(old.publish(&manifest(planned.next, 5)).await, Err(StorageError::Conflict { .. })));
        assert!(
            matches!(old.head(view).await, Err(StorageError::Fenced { owner: 2, mine: 1, .. })),
            "nor plans on top"
        );
        assert!(matches!(old.claim(view).await, Err(StorageError::Fenced { .. })));
        let head = new.head(view).await.unwrap();
        let current = head.manifest.unwrap();
        assert_eq!((current.run, current.epoch, head.next), (4, 2, planned.next + 1));
        assert_eq!(*current, Manifest { sequence: planned.next, epoch: 2, ..published }, "the same batch view");
        new.publish(&Manifest { epoch: 2, ..manifest(head.next, 6) }).await.unwrap();
        assert_eq!(new.current(view).await.unwrap().unwrap().run, 6);
    }

    /// The first publication of a view is fenced as well.
    #[tokio::test]
    async fn overtaken_owner_does_not_publish_first() {
        let (bucket, view) = (bucket(), Uuid::from_u128(5));
        let old = ManifestStore::new(next_owner(&bucket).await);
        let planned = old.head(view).await.unwrap();
        let new = ManifestStore::new(next_owner(&bucket).await);
        new.claim(view).await.unwrap();
        assert!(matches!(old.publish(&manifest(planned.next, 5)).await, Err(StorageError::Conflict { .. })));
        assert!(new.current(view).await.unwrap().is_none() && new.list(view).await.unwrap().is_empty());
        assert_eq!(new.head(view).await.unwrap().next, 2);
        assert!(ManifestStore::new(bucket).current(view).await.unwrap().is_none(), "also for those who only read");
    }

    #[tokio::test]
    async fn claims_of_many_starts_do_not_pile_up() {
        let (bucket, view) = (bucket(), Uuid::from_u128(5));
        let mut runs = vec![];
        for start in 1..=8 {
            let owner = ManifestStore::new(next_owner(&bucket).await);
            owner.claim(view).await.unwrap();
            if start % 4 == 0 {
                let next = owner.head(view).await.unwrap().next;
                let published = Manifest { published_at_us: start, ..manifest(next, start as u64) };
                owner.publish(&published).await.unwrap();
                runs.push(start as u64);
            }
            assert!(owner.documents(view).await.unwrap().len() <= 6, "start {start}");
            assert_eq!(owner.current(view).await.unwrap().map(|manifest| manifest.run), runs.last().copied());
        }
        let unowned = ManifestStore::new(bucket);
        assert!(unowned.by_run(view, 4).await.unwrap().is_some());
        let before = unowned.head(view).await.unwrap().next;
        unowned.claim(view).await.unwrap();
        assert_eq!(unowned.head(view).await.unwrap().next, before, "nobody else could take that store over");
    }
}
