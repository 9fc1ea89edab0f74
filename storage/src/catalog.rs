//! The stored catalogue: every change is a new version, created only if absent.

use std::sync::Arc;
use std::time::Duration;

use schemas::{Catalog, Code, Problem};
use tokio::sync::{Mutex, watch};

use crate::error::StorageError;
use crate::numbered::Numbered;
use crate::owner::CLAIMS_MAX;
use crate::paths;
use crate::store::Store;

/// Versions that are kept behind the current one.
const VERSIONS_KEPT: usize = 10;
/// How often a change is written while the store fails.
const WRITES_MAX: u32 = 4;
/// Between two of these writes.
const WRITE_PAUSE: Duration = Duration::from_millis(250);

/// The catalogue of one store.
#[derive(Debug)]
pub struct CatalogStore {
    store: Store,
    documents: Numbered<Catalog>,
    current: watch::Sender<Arc<Catalog>>,
    changing: Mutex<()>,
}

impl CatalogStore {
    /// Reads the newest version; an empty catalogue where there is none. The owner of a store that others could
    /// take over writes the next one: an owner before it can change nothing from then on (invariant I9).
    ///
    /// # Errors
    /// `Fenced` when a newer owner was quicker; `Damaged`, `Io`
    pub async fn open(store: Store) -> Result<Self, StorageError> {
        let documents = Numbered::new(store.clone(), paths::CATALOG);
        let current = documents.latest().await?.map(|(_, catalog)| catalog).unwrap_or_default();
        let current = watch::Sender::new(Arc::new(current));
        let catalog = Self { store, documents, current, changing: Mutex::new(()) };
        if catalog.store.epoch() > 0 {
            catalog.claim().await?;
        }
        Ok(catalog)
    }

    async fn claim(&self) -> Result<(), StorageError> {
        for attempt in 1.. {
            let mut next = Catalog::clone(&self.current());
            self.assert_not_fenced(&next)?;
            next.sequence = next.sequence.saturating_add(1);
            next.epoch = self.store.epoch();
            match self.write(next.sequence, &next).await {
                Err(StorageError::Conflict { .. }) if attempt < CLAIMS_MAX => {
                    self.refresh().await?;
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    self.current.send_replace(Arc::new(next));
                    break;
                }
            }
        }
        Ok(())
    }

    fn assert_not_fenced(&self, catalog: &Catalog) -> Result<(), StorageError> {
        self.store.assert_not_fenced(|| paths::catalog(catalog.sequence), catalog.epoch)
    }

    /// The current version.
    pub fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.borrow())
    }

    /// The current version, as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.current.subscribe()
    }

    /// Makes one change, durably, then swaps it in. Changes come one after the other.
    ///
    /// # Errors
    /// The change's own problem: nothing is written then; `in_use` when a newer owner has the store; or it failed.
    pub async fn update<T>(
        &self,
        change: impl FnOnce(&mut Catalog) -> Result<T, Problem> + Send,
    ) -> Result<T, Problem> {
        let _turn = self.changing.lock().await;
        let mut next = Catalog::clone(&self.current());
        self.assert_not_fenced(&next).map_err(|fenced| fenced.problem())?;
        let answer = change(&mut next)?;
        next.sequence = next.sequence.saturating_add(1);
        next.epoch = next.epoch.max(self.store.epoch());
        let sequence = next.sequence;
        match self.write(sequence, &next).await {
            Ok(()) => {}
            Err(StorageError::Conflict { .. }) => return Err(self.lost().await),
            Err(cause) => return Err(cause.problem()),
        }
        self.current.send_replace(Arc::new(next));
        self.prune().await;
        Ok(answer)
    }

    /// After a failure it is open whether the version is there: the same bytes again settle it.
    async fn write(&self, sequence: u64, next: &Catalog) -> Result<(), StorageError> {
        for _ in 1..WRITES_MAX {
            match self.documents.put_new(sequence, next).await {
                Err(StorageError::Io { .. }) => tokio::time::sleep(WRITE_PAUSE).await,
                written => return written,
            }
        }
        self.documents.put_new(sequence, next).await
    }

    /// Takes over a newer version that another process has made.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn refresh(&self) -> Result<Arc<Catalog>, StorageError> {
        if let Some((_, newest)) = self.documents.latest().await? {
            self.current.send_if_modified(|current| {
                let is_newer = newest.sequence > current.sequence;
                if is_newer {
                    *current = Arc::new(newest);
                }
                is_newer
            });
        }
        Ok(self.current())
    }

    /// Another process (or a write of ours that failed half-way) was first: takes over its version,
    /// so that the same request can succeed when it is sent again.
    async fn lost(&self) -> Problem {
        match self.documents.latest().await {
            Ok(Some((_, catalog))) => {
                let fenced = self.assert_not_fenced(&catalog);
                self.current.send_replace(Arc::new(catalog));
                if let Err(fenced) = fenced {
                    return fenced.problem();
                }
                Problem::new(Code::StorageUnavailable, "the catalogue was changed by another process; try again")
            }
            Ok(None) => Problem::new(Code::StorageUnavailable, "the catalogue could not be read"),
            Err(cause) => cause.problem(),
        }
    }

    /// Old versions are of use to nobody; one that cannot be removed goes with the next change.
    async fn prune(&self) {
        let Ok(numbers) = self.documents.list().await else { return };
        for number in numbers.iter().rev().skip(1 + VERSIONS_KEPT) {
            if let Err(cause) = self.documents.delete(*number).await {
                tracing::warn!(error = %cause, "an old version of the catalogue was not removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::testing::{bucket, next_owner};

    #[tokio::test]
    async fn changes_are_numbered_kept_and_read_again() {
        let store = Store::in_memory();
        let catalog = CatalogStore::open(store.clone()).await.unwrap();
        let mut watched = catalog.watch();
        for _ in 0..15 {
            let run = catalog.update(|c| {
                c.next_run += 1;
                Ok(c.next_run)
            });
            run.await.unwrap();
        }
        assert!(watched.has_changed().unwrap());
        assert_eq!(watched.borrow_and_update().next_run, 16);
        assert_eq!(catalog.documents.list().await.unwrap(), (5..=15).collect::<Vec<_>>());
        let again = CatalogStore::open(store).await.unwrap();
        assert_eq!(again.current(), catalog.current());
    }

    #[tokio::test]
    async fn refused_change_leaves_no_trace() {
        let catalog = CatalogStore::open(Store::in_memory()).await.unwrap();
        let refused = catalog.update(|c| {
            c.next_run = 99;
            Err::<(), _>(Problem::new(Code::NotFound, "no such view"))
        });
        assert_eq!(refused.await.unwrap_err().code, Code::NotFound);
        assert_eq!(catalog.current().next_run, 1);
        assert!(catalog.documents.list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn second_process_loses_then_sees_the_winner() {
        let store = Store::in_memory();
        let winner = CatalogStore::open(store.clone()).await.unwrap();
        let loser = CatalogStore::open(store).await.unwrap();
        winner.update(|c| Ok(c.next_run = 7)).await.unwrap();
        let lost = loser.update(|c| Ok(c.next_run = 8)).await.unwrap_err();
        assert!(lost.retryable);
        assert_eq!(loser.current().next_run, 7);
        loser.update(|c| Ok(c.next_run += 1)).await.unwrap();
        assert_eq!(loser.current().next_run, 8);
    }

    /// I9: what an overtaken owner was about to change stays as the new owner has found it.
    #[tokio::test]
    async fn overtaken_owner_changes_nothing() {
        let bucket = bucket();
        let old = CatalogStore::open(next_owner(&bucket).await).await.unwrap();
        old.update(|c| Ok(c.next_run = 7)).await.unwrap();
        let new = CatalogStore::open(next_owner(&bucket).await).await.unwrap();
        assert_eq!(new.current().next_run, 7);
        for _ in 0..2 {
            let refused = old.update(|c| Ok(c.next_run = 8)).await.unwrap_err();
            assert_eq!((refused.code, refused.retryable), (Code::InUse, false), "{}", refused.detail);
        }
        new.update(|c| Ok(c.next_run += 2)).await.unwrap();
        let reader = CatalogStore::open(bucket).await.unwrap();
        assert_eq!((reader.current().next_run, reader.current().epoch), (9, 2));
    }
}
