//! After a restart: what was interrupted is marked so and started again, once.

use std::collections::BTreeSet;

use schemas::documents::run::{RunDocument, RunState, RunTrigger};
use schemas::{Problem, Refresh};
use storage::paths;

use super::RunService;
use crate::{internal, stored};

/// Stored runs that are looked at: an unfinished one is among the newest.
const LOOKED_AT_MAX: usize = 1_000;

impl RunService {
    /// Takes up runs that the end of the process interrupted. Called once, before any run is executed.
    pub(super) async fn recover(&self) -> Result<(), Problem> {
        self.empty_spill_folder().await?;
        let stored_runs = self.documents.list(None, LOOKED_AT_MAX).await.map_err(|e| stored(&e))?;
        let mut again = Vec::new();
        let mut seen = BTreeSet::new();
        for mut run in stored_runs.into_iter().filter(|run| !run.state.is_final() && self.queue.get(run.id).is_none()) {
            let published = self.close(&mut run).await?;
            // twice interrupted: it may be the run that ends the process; the schedule tries again
            let is_second = run.trigger == RunTrigger::Restart;
            if !published && !is_second && seen.insert((run.view_id, run.trigger == RunTrigger::History)) {
                again.push(run);
            }
        }
        again.reverse();
        for run in again {
            self.start_again(&run).await;
        }
        self.complete_history().await
    }

    /// Ends an unfinished run's document. True if it had got as far as to be published.
    async fn close(&self, run: &mut RunDocument) -> Result<bool, Problem> {
        let manifest = self.manifests.by_run(run.view_id, run.id).await.map_err(|e| stored(&e))?;
        run.finished_at_us = Some(self.parts.clock.now_us());
        run.eta_ms = None;
        if let Some(manifest) = &manifest {
            run.state = RunState::Succeeded;
            run.verdict = Some(manifest.verdict);
            run.phase = "done".into();
        } else {
            run.state = RunState::Failed;
            run.error = Some("interrupted by a restart".into());
            self.parts.store.delete_below(&paths::batch_view(run.view_id, run.id)).await.map_err(|e| stored(&e))?;
        }
        self.documents.put(run).await.map_err(|e| stored(&e))?;
        Ok(manifest.is_some())
    }

    async fn start_again(&self, run: &RunDocument) {
        let Some(view) = self.parts.views.view(&run.view).filter(|view| view.def.id == run.view_id) else { return };
        let trigger = if run.trigger == RunTrigger::History { RunTrigger::History } else { RunTrigger::Restart };
        if let Err(problem) = self.enqueue(&view, run.kind, trigger).await {
            tracing::warn!(view = %run.view, error = %problem, "an interrupted run was not started again");
        }
    }

    /// A view that lacks its history gets a run over it, also if the process ended before one was
    /// queued: unless the history was left to the schedule, or a user cancelled that run.
    ///
    /// # Errors
    /// The documents of runs cannot be read.
    pub async fn complete_history(&self) -> Result<(), Problem> {
        for view in self.parts.views.views() {
            let left_to_schedule = view.def.with_no_data && view.def.refresh != Refresh::Never;
            if left_to_schedule || !self.lacks_history(&view).await? || self.queue.has_history_run(view.def.id) {
                continue;
            }
            let runs = self.documents.list(Some(&view.def.name), LOOKED_AT_MAX).await.map_err(|e| stored(&e))?;
            let begun = |run: &RunDocument| run.view_id == view.def.id && run.trigger == RunTrigger::History;
            let newest = runs.iter().find(|run| begun(run));
            if newest.is_none_or(|run| run.state == RunState::Failed) {
                self.ensure_history(&view).await?;
            }
        }
        Ok(())
    }

    async fn empty_spill_folder(&self) -> Result<(), Problem> {
        let folder = self.parts.spill.clone();
        let emptied = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await.map_err(internal)?;
        match emptied {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(internal(format!("spilled states: {error}")))
            }
            _ => Ok(()),
        }
    }
}
