//! Publication, retirement, rollback.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemas::documents::manifest::Manifest;
use schemas::{Code, Problem};
use storage::{StorageError, paths};

use super::RunService;
use crate::stored;
use crate::views::BatchView;

impl RunService {
    /// Publishes: the manifest first (the compare-and-swap), then the readers' snapshot.
    ///
    /// # Errors
    /// Another run or a rollback was published meanwhile; the store failed; speed refuses (I1).
    pub(super) async fn publish(&self, view: &BatchView, manifest: Manifest) -> Result<(), Problem> {
        match self.manifests.publish(&manifest).await {
            Ok(()) => {}
            Err(StorageError::Conflict { .. }) => {
                let detail = format!("view {}: another batch view was published meanwhile", view.def.name);
                return Err(Problem::new(Code::InUse, detail));
            }
            Err(error) => return Err(stored(&error)),
        }
        self.parts.speed.publish(view.stream.id, Arc::new(manifest)).await
    }

    /// A manifest that was stored and that readers do not have yet: a publication that stopped half-way.
    pub(super) async fn catch_up(&self, view: &BatchView, current: Option<&Arc<Manifest>>) -> Result<(), Problem> {
        let snapshot = self.parts.speed.current(view.stream.id);
        let Some(seen) = snapshot.as_ref().and_then(|snapshot| snapshot.views.get(&view.def.id)) else { return Ok(()) };
        let Some(current) = current else { return Ok(()) };
        if seen.manifest.as_ref().is_some_and(|manifest| manifest.sequence == current.sequence) {
            return Ok(());
        }
        self.parts.speed.publish(view.stream.id, Arc::clone(current)).await
    }

    /// Removes batch views of runs beyond those that are kept, and manifests that name them.
    pub(super) async fn retire(&self, view: &BatchView) -> Result<(), StorageError> {
        let manifests = self.manifests.list(view.def.id).await?;
        let kept = self.kept(&manifests);
        let surplus = || manifests.iter().filter(|manifest| !kept.contains(&manifest.run));
        // all manifests first, for a rollback has two of one run: one that is there names files that exist (I4)
        for manifest in surplus() {
            self.manifests.remove(view.def.id, manifest.sequence).await?;
        }
        let runs: BTreeSet<u64> = surplus().map(|manifest| manifest.run).collect();
        for run in runs {
            self.parts.store.delete_below(&paths::batch_view(view.def.id, run)).await?;
        }
        Ok(())
    }

    /// The runs whose batch views are kept: the newest ones.
    fn kept(&self, manifests: &[Arc<Manifest>]) -> BTreeSet<u64> {
        let keep = self.parts.limits.runs_kept.max(2);
        let mut kept = BTreeSet::new();
        for manifest in manifests.iter().rev() {
            if kept.len() < keep {
                kept.insert(manifest.run);
            }
        }
        kept
    }

    /// Makes an older run's batch view the current one: a manifest that points to it (I10).
    pub(super) async fn roll_back(&self, view: &BatchView, run: u64) -> Result<Manifest, Problem> {
        // a run's publication must not remove what this one is about to point to
        let _alone = self.publishing.lock().await;
        let not_kept =
            || Problem::new(Code::NotFound, format!("view {}: the batch view of run {run} is not kept", view.def.name));
        let head = self.manifests.head(view.def.id).await.map_err(|e| stored(&e))?;
        let current = head.manifest.ok_or_else(not_kept)?;
        if current.run == run {
            return Err(Problem::new(Code::InUse, format!("view {}: run {run} is the current one", view.def.name)));
        }
        let manifests = self.manifests.list(view.def.id).await.map_err(|e| stored(&e))?;
        // one that is to be retired may be there still, while an owner before this one is removing it
        let is_kept = self.kept(&manifests).contains(&run);
        let older = manifests.into_iter().rev().find(|manifest| is_kept && manifest.run == run).ok_or_else(not_kept)?;
        if older.semantic_hash != view.view.semantic_hash() {
            return Err(not_kept());
        }
        let manifest = Manifest {
            sequence: head.next,
            published_at_us: self.parts.clock.now_us(),
            rolled_back_from: Some(current.run),
            epoch: self.manifests.epoch(),
            ..Manifest::clone(&older)
        };
        self.publish(view, manifest.clone()).await?;
        Ok(manifest)
    }
}
