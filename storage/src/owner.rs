//! Whose a shared store is (invariant I9). The data folder has a lock, the store has this.
//!
//! ```text
//!  owners/1.json ──► 2.json ──► 3.json        created only if absent: of two processes that start at the same
//!  node A            node A     node B        time one loses; who sees a higher epoch than his own stops
//! ```
//!
//! Until it sees that, an owner that was overtaken may be about to write. So a new owner first claims whatever is next
//! in each chain of documents that are created only if absent (catalogue, manifests, deltas, master), and only then reads
//! them: what an older owner writes after that loses to the claim. See `docs/adr/0013-simulation.md`.

use std::sync::Arc;
use std::time::Duration;

use schemas::documents::owner::OwnerDocument;
use schemas::{Code, Problem};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::StorageError;
use crate::numbered::Numbered;
use crate::paths;
use crate::store::Store;

/// How often an owner looks whether it still is one.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// How often a claim is tried while an older owner goes on writing.
pub(crate) const CLAIMS_MAX: usize = 32;
/// Documents that are kept behind the current one.
const DOCUMENTS_KEPT: usize = 10;

/// Who asks for a store.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Identity of the data folder, kept in it.
    pub node: Uuid,
    /// For people: host and data folder.
    pub place: String,
}

/// This process's hold on a store.
#[derive(Debug)]
pub struct Ownership {
    documents: Numbered<OwnerDocument>,
    url: String,
    mine: OwnerDocument,
}

impl Ownership {
    /// Takes the store, if nobody has it or this data folder had it before.
    ///
    /// # Errors
    /// `in_use` when it is another data folder's, or when another process was quicker; the store failed.
    pub async fn take(store: &Store, claim: Claim, clock: &Arc<dyn Clock>) -> Result<Self, Problem> {
        let documents: Numbered<OwnerDocument> = Numbered::new(store.clone(), paths::OWNERS);
        let url = store.url().to_string();
        let newest = documents.latest().await.map_err(|e| e.problem())?.map(|(_, owner)| owner);
        if let Some(other) = newest.as_ref().filter(|owner| owner.node != claim.node) {
            return Err(taken(&url, other));
        }
        let mine = OwnerDocument {
            format: 1,
            epoch: newest.map_or(1, |owner| owner.epoch.saturating_add(1)),
            node: claim.node,
            process: Uuid::new_v4(),
            place: claim.place,
            started_at_us: clock.now_us(),
        };
        match documents.put_new(mine.epoch, &mine).await {
            Ok(()) => {}
            Err(StorageError::Conflict { .. }) => {
                let quicker = documents.read(mine.epoch).await.map_err(|e| e.problem())?;
                return Err(taken(&url, &quicker));
            }
            Err(error) => return Err(error.problem()),
        }
        let ownership = Self { documents, url, mine };
        ownership.prune().await;
        Ok(ownership)
    }

    /// Looks whether the store is still this process's.
    ///
    /// # Errors
    /// `in_use` when it is not: nothing may be written any more; the store failed.
    pub async fn check(&self) -> Result<(), Problem> {
        let newest = self.documents.latest().await.map_err(|e| e.problem())?;
        match newest {
            Some((_, owner)) if owner.process == self.mine.process => Ok(()),
            Some((_, owner)) => Err(taken(&self.url, &owner)),
            None => Err(Problem::new(Code::InUse, format!("{}: somebody has removed its owners/", self.url))),
        }
    }

    /// Ends, with the reason, when another process has taken the store. A store that fails is asked again.
    ///
    /// # Errors
    /// `in_use`
    pub async fn watch(self: Arc<Self>) -> Result<(), Problem> {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            match self.check().await {
                Err(problem) if problem.code == Code::InUse => return Err(problem),
                Err(problem) => tracing::debug!(error = %problem, "the store's owner could not be read"),
                Ok(()) => {}
            }
        }
    }

    /// This owner's number: it grows with every start of an owner.
    pub(crate) fn epoch(&self) -> u64 {
        self.mine.epoch
    }

    /// [`Ownership::check`] for the store itself.
    ///
    /// # Errors
    /// `Fenced`; the store failed.
    pub(crate) async fn assert_held(&self) -> Result<(), StorageError> {
        let newest = self.documents.latest().await?.map(|(_, owner)| owner);
        if newest.as_ref().is_some_and(|owner| owner.process == self.mine.process) {
            return Ok(());
        }
        let owner = newest.map_or(0, |owner| owner.epoch);
        Err(StorageError::Fenced { what: self.url.clone(), owner, mine: self.mine.epoch })
    }

    async fn prune(&self) {
        let Ok(epochs) = self.documents.list().await else { return };
        for epoch in epochs.iter().rev().skip(1 + DOCUMENTS_KEPT) {
            if let Err(error) = self.documents.delete(*epoch).await {
                tracing::debug!(%error, "an old owner's document was not removed");
            }
        }
    }
}

fn taken(url: &str, owner: &OwnerDocument) -> Problem {
    let what =
        format!("{url} belongs to {} (epoch {}): the log that it was made from is there", owner.place, owner.epoch);
    Problem::new(Code::InUse, what).with_hint(
        "one process at a time writes to a store: stop this one, give it a store_url of its own, or let it only answer \
         queries with --role serving",
    )
}

/// What tests of other modules need of owners.
#[cfg(test)]
pub(crate) mod testing {
    use url::Url;

    use super::*;
    use crate::clock::SystemClock;

    /// An empty store that several processes reach.
    pub(crate) fn bucket() -> Store {
        let objects = Arc::new(object_store::memory::InMemory::new());
        Store::of(Url::parse("s3://bucket/").unwrap(), objects)
    }

    /// The store as the next owner has it: it writes under another name, and whoever had it is overtaken.
    pub(crate) async fn next_owner(bucket: &Store) -> Store {
        let store = Store::of(bucket.url().clone(), bucket.bucket());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let claim = Claim { node: Uuid::from_u128(1), place: "a test".into() };
        let owner = Ownership::take(&store, claim, &clock).await.unwrap();
        store.owned_by(Arc::new(owner))
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use url::Url;

    use super::*;
    use crate::clock::SystemClock;

    fn claim(node: u128) -> Claim {
        Claim { node: Uuid::from_u128(node), place: format!("host {node}") }
    }

    fn clock() -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    #[tokio::test]
    async fn store_is_its_first_owners_also_after_restarts() {
        let store = Store::in_memory();
        for epoch in 1..=15 {
            let owner = Ownership::take(&store, claim(1), &clock()).await.unwrap();
            assert_eq!(owner.mine.epoch, epoch);
            owner.check().await.unwrap();
        }
        assert_eq!(store.list(paths::OWNERS).await.unwrap().len(), 11);
        let refused = Ownership::take(&store, claim(2), &clock()).await.unwrap_err();
        assert_eq!(refused.code, Code::InUse);
        assert!(refused.detail.contains("belongs to host 1 (epoch 15)"), "{}", refused.detail);
    }

    #[tokio::test]
    async fn of_many_that_start_at_once_one_owns() {
        let bucket: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        // also on copies of one data folder
        let starts = [1, 1, 1, 2, 3, 4].map(|node| {
            let store = Store::of(Url::parse("s3://bucket/").unwrap(), Arc::clone(&bucket));
            async move { Ownership::take(&store, claim(node), &clock()).await.ok() }
        });
        let owners: Vec<Ownership> = join_all(starts).await.into_iter().flatten().collect();
        let mut holding = vec![];
        for owner in &owners {
            if owner.check().await.is_ok() {
                holding.push(owner.mine.epoch);
            }
        }
        assert_eq!(holding.len(), 1, "{owners:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn owner_that_was_overtaken_stops_with_the_reason() {
        let store = Store::in_memory();
        let first = Ownership::take(&store, claim(1), &clock()).await.unwrap();
        let watching = tokio::spawn(Arc::new(first).watch());
        let copy = Claim { place: "the copy".into(), ..claim(1) };
        Ownership::take(&store, copy, &clock()).await.unwrap();
        let stopped = watching.await.unwrap().unwrap_err();
        assert!(stopped.detail.contains("belongs to the copy (epoch 2)"), "{}", stopped.detail);
    }
}
