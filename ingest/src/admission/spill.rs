//! Moves tables of ids to disk, behind the requests.
//!
//! A run outlives the process, so it may only have ids of records that are durable: it is written when
//! every append before the freeze ended well. After a failure there is another state, and nothing of the
//! old one gets in.

use std::sync::Arc;
use std::time::Duration;

use schemas::Partition;
use storage::StorageError;

use super::index::{Disk, Frozen};
use super::{Admission, Ticket};

/// Pause after a write that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A frozen table of one partition, and the appends that it waits for.
#[derive(Debug, Clone)]
struct Due {
    partition: Partition,
    frozen: Frozen,
    disk: Disk,
    ticket: Ticket,
    generation: u64,
}

impl Admission {
    /// Begins to move what is due. A task of its own: the request that found it does not wait.
    pub(super) fn spill_if_due(self: &Arc<Self>) {
        if self.memory.folder.is_none() {
            return;
        }
        while let Some(due) = self.freeze_one() {
            let admission = Arc::clone(self);
            self.spills.spawn(async move { admission.spill_until_done(due).await });
        }
    }

    fn freeze_one(&self) -> Option<Due> {
        let mut place = self.state.lock();
        let state = place.as_mut()?;
        let generation = state.generation;
        let ids_max = self.table_ids_max();
        let (partition, due) = (0..).zip(&mut state.partitions).find(|(_, p)| p.index.is_due(ids_max))?;
        let (frozen, disk) = due.index.freeze(due.next)?;
        let ticket = self.ticket(false);
        Some(Due { partition, frozen, disk, ticket, generation })
    }

    /// Meanwhile the table stays in memory: ids past the bound are refused, not forgotten.
    async fn spill_until_done(self: Arc<Self>, due: Due) {
        if self.wait_for_appends_before(due.ticket).await.is_err() {
            return;
        }
        // one at a time: two that merge the same runs would do it twice
        let _turn = self.spilling.lock().await;
        while let Err(error) = self.spill(&due).await {
            tracing::warn!(stream = %self.stream.name, %error, "ids were not moved to disk; it is tried again");
            let is_current = self.with_index(due.partition, due.generation, |_| ()).is_some();
            if self.spills.is_closed() || !is_current {
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn spill(self: &Arc<Self>, due: &Due) -> Result<(), StorageError> {
        let Due { partition, frozen, disk, generation, .. } = due.clone();
        let admission = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let run = disk.write(&frozen)?;
            admission.with_index(partition, generation, |index| index.spilled(run));
            loop {
                let next = admission.with_index(partition, generation, |index| index.mergeable());
                let Some((disk, pair)) = next.flatten() else { return Ok(()) };
                let merged = disk.merge(&pair)?;
                admission.with_index(partition, generation, |index| index.replace(merged));
            }
        });
        work.await.unwrap_or_else(|error| Err(StorageError::io("moving ids to disk", error)))
    }

    /// None if the state is another one by now.
    fn with_index<T>(
        &self,
        partition: Partition,
        generation: u64,
        change: impl FnOnce(&mut super::index::Index) -> T,
    ) -> Option<T> {
        let mut place = self.state.lock();
        let state = place.as_mut().filter(|state| state.generation == generation)?;
        state.partitions.get_mut(partition as usize).map(|partition| change(&mut partition.index))
    }
}
