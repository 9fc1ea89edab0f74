//! Run documents: one per run, overwritten as it goes on.

use schemas::documents::run::RunDocument;

use crate::error::StorageError;
use crate::numbered::{self, Numbered};
use crate::paths;
use crate::store::Store;

/// The runs of every view.
#[derive(Debug, Clone)]
pub struct RunStore {
    store: Store,
}

impl RunStore {
    /// The runs in a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Writes a run's state over the older one.
    ///
    /// # Errors
    /// `Io`
    pub async fn put(&self, run: &RunDocument) -> Result<(), StorageError> {
        numbered::overwrite(&self.store, &paths::run(run.id), run).await
    }

    /// One run.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`
    pub async fn get(&self, id: u64) -> Result<RunDocument, StorageError> {
        numbered::read(&self.store, &paths::run(id)).await
    }

    /// At most `limit` runs, the newest first, of the view of that name or of all.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn list(&self, view: Option<&str>, limit: usize) -> Result<Vec<RunDocument>, StorageError> {
        let numbers = Numbered::<RunDocument>::new(self.store.clone(), paths::RUNS).list().await?;
        let mut runs = vec![];
        for id in numbers.into_iter().rev() {
            if runs.len() >= limit {
                break;
            }
            let run = self.get(id).await?;
            if view.is_none_or(|view| view == run.view) {
                runs.push(run);
            }
        }
        Ok(runs)
    }

    /// Removes one that is no longer kept.
    ///
    /// # Errors
    /// `Io`
    pub async fn remove(&self, id: u64) -> Result<(), StorageError> {
        self.store.delete(&paths::run(id)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::documents::run::{RunKind, RunState, RunTrigger};
    use uuid::Uuid;

    fn run(id: u64, view: &str) -> RunDocument {
        RunDocument {
            format: 1,
            id,
            view: view.into(),
            view_id: Uuid::from_u128(1),
            kind: RunKind::Full,
            trigger: RunTrigger::Manual,
            state: RunState::Queued,
            cut: None,
            rows: 0,
            rows_total: 9,
            rows_per_second: 2.5,
            eta_ms: None,
            phase: "plan".into(),
            phase_ms: vec![("plan".into(), 3)],
            queued_at_us: 1,
            started_at_us: None,
            finished_at_us: None,
            verdict: None,
            error: None,
        }
    }

    #[tokio::test]
    async fn runs_are_overwritten_and_listed_newest_first() {
        let runs = RunStore::new(Store::in_memory());
        for (id, view) in [(1, "a"), (2, "b"), (3, "a"), (11, "a")] {
            runs.put(&run(id, view)).await.unwrap();
        }
        let done = RunDocument { state: RunState::Succeeded, ..run(3, "a") };
        runs.put(&done).await.unwrap();
        assert_eq!(runs.get(3).await.unwrap(), done);
        let ids = |list: Vec<RunDocument>| list.iter().map(|run| run.id).collect::<Vec<_>>();
        assert_eq!(ids(runs.list(None, 3).await.unwrap()), [11, 3, 2]);
        assert_eq!(ids(runs.list(Some("a"), 10).await.unwrap()), [11, 3, 1]);
        assert!(matches!(runs.get(4).await, Err(StorageError::NotFound { .. })));
    }
}
