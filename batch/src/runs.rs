//! Runs: queued, executed, audited, published, rolled back. Implements [`Runs`].
//!
//! ```text
//!  start ──► queue ──► plan ──► land ──► scan ──► sort ──► audit ──► publish ──► retire
//!                      cut C′   C′ is in  states   Parquet  certificate  manifest   old runs
//!                               master                      violation: blocked
//! ```

mod execute;
mod files;
mod live;
mod publish;
mod recover;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use schemas::documents::manifest::Manifest;
use schemas::documents::run::{RunDocument, RunKind, RunState, RunTrigger};
use schemas::{Certificate, Code, Limits, Problem, Refresh};
use storage::catalog::CatalogStore;
use storage::certificates::CertificateStore;
use storage::clock::Clock;
use storage::layers::{Intake, Runs, Speed};
use storage::manifests::ManifestStore;
use storage::runs::RunStore;
use storage::{StorageError, Store};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::live::{LiveRun, Queue};
use crate::views::{BatchView, Views};
use crate::{internal, metrics, stored};

/// Run documents that are kept; older ones are removed.
const RUNS_KEPT_MAX: u64 = 10_000;

/// What runs work with.
#[derive(Clone)]
pub struct RunParts {
    /// The compiled views.
    pub views: Arc<dyn Views>,
    /// Numbers the runs.
    pub catalog: Arc<CatalogStore>,
    /// Where batch views and documents go.
    pub store: Store,
    /// The speed layer.
    pub speed: Arc<dyn Speed>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub limits: Limits,
    /// A folder for spilled states that nobody else uses: it is emptied at the start.
    pub spill: PathBuf,
    /// Threads of a run.
    pub threads: usize,
    /// What came in, for the certificates; none where ingest is not known.
    pub intake: Option<Arc<dyn Intake>>,
}

/// The runs of all views.
pub struct RunService {
    parts: RunParts,
    manifests: ManifestStore,
    documents: RunStore,
    certificates: CertificateStore,
    queue: Queue,
    /// A run was queued or has ended.
    changed: Notify,
    /// Held while it is decided whether a view needs a run over its history.
    history: tokio::sync::Mutex<()>,
    /// Held by a publication until what it retires is gone, and by a rollback.
    publishing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for RunService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunService").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl RunService {
    /// A service that queues runs; [`RunService::work`] executes them.
    pub fn new(parts: RunParts) -> Self {
        let store = &parts.store;
        Self {
            manifests: ManifestStore::new(store.clone()),
            documents: RunStore::new(store.clone()),
            certificates: CertificateStore::new(store.clone()),
            queue: Queue::default(),
            changed: Notify::new(),
            history: tokio::sync::Mutex::new(()),
            publishing: tokio::sync::Mutex::new(()),
            parts,
        }
    }

    /// Takes up what a restart interrupted, then executes queued runs until stopped.
    ///
    /// # Errors
    /// The store failed at the start. A failing run is not an error of the service.
    pub async fn work(self: Arc<Self>, stop: CancellationToken) -> Result<(), Problem> {
        self.recover().await?;
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.parts.limits.runs_at_once.max(1) {
                let Some(live) = self.queue.take_next() else { break };
                let (service, stop) = (Arc::clone(&self), stop.clone());
                running.spawn(async move { service.work_off(live, &stop).await });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.changed.notified() => {}
                Some(ended) = running.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "a run ended abnormally");
                },
            }
        }
        self.queue.stop_all();
        while running.join_next().await.is_some() {}
        Ok(())
    }

    /// One run from start to end. What is cut short by the end of the process is left as it is
    /// stored: the next start takes it up.
    async fn work_off(self: Arc<Self>, live: Arc<LiveRun>, stop: &CancellationToken) {
        let now = self.parts.clock.now_us();
        live.change(|run| {
            run.state = RunState::Running;
            run.started_at_us = Some(now);
        });
        metrics::run_state(&live.view, RunState::Running);
        self.persist(&live).await;
        let result = AssertUnwindSafe(self.execute(&live)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| Err(internal("the run panicked: this is a bug of Bifold")));
        if stop.is_cancelled() && result.is_err() {
            self.queue.remove(live.id);
            return;
        }
        let now = self.parts.clock.now_us();
        live.end(result, now);
        let document = live.document();
        metrics::run_state(&live.view, document.state);
        metrics::run_finished(
            &live.view,
            document.rows,
            document.phase_ms.iter().map(|(_, ms)| *ms as f64 / 1e3).sum(),
        );
        self.persist(&live).await;
        self.forget_old(live.id).await;
        self.queue.remove(live.id);
        live.publish_end();
        self.changed.notify_one();
    }

    /// Writes the run's document. A failing store does not end the run: the next state is written again.
    async fn persist(&self, live: &LiveRun) {
        if let Err(error) = self.documents.put(&live.document()).await {
            tracing::warn!(run = live.id, %error, "the run's document was not written");
        }
    }

    async fn forget_old(&self, id: u64) {
        if let Some(old) = id.checked_sub(RUNS_KEPT_MAX)
            && let Err(error) = self.documents.remove(old).await
        {
            tracing::debug!(run = old, %error, "an old run's document was not removed");
        }
    }

    fn view(&self, name: &str) -> Result<Arc<BatchView>, Problem> {
        let view = self.parts.views.view(name);
        view.ok_or_else(|| Problem::new(Code::NotFound, format!("there is no view {name}")))
    }

    /// Queues a run; a run of the view that waits already is the one that is asked for.
    async fn enqueue(&self, view: &BatchView, kind: RunKind, trigger: RunTrigger) -> Result<RunDocument, Problem> {
        if let Some(waiting) = self.queue.waiting(view.def.id, trigger) {
            return Ok(waiting.document());
        }
        self.queue.check_room()?;
        let id = self
            .parts
            .catalog
            .update(|catalog| {
                let id = catalog.next_run;
                catalog.next_run = catalog.next_run.saturating_add(1);
                Ok(id)
            })
            .await?;
        let document = RunDocument {
            format: 1,
            id,
            view: view.def.name.clone(),
            view_id: view.def.id,
            kind,
            trigger,
            state: RunState::Queued,
            cut: None,
            rows: 0,
            rows_total: 0,
            rows_per_second: 0.0,
            eta_ms: None,
            phase: "queued".into(),
            phase_ms: vec![],
            queued_at_us: self.parts.clock.now_us(),
            started_at_us: None,
            finished_at_us: None,
            verdict: None,
            error: None,
        };
        self.documents.put(&document).await.map_err(|e| stored(&e))?;
        metrics::run_state(&document.view, RunState::Queued);
        self.queue.push(LiveRun::new(document.clone()))?;
        self.changed.notify_one();
        Ok(document)
    }

    /// True if the view's history is still to be computed: its deltas begin later than the log.
    async fn lacks_history(&self, view: &BatchView) -> Result<bool, Problem> {
        if view.def.from.total() == 0 {
            return Ok(false);
        }
        Ok(self.manifests.current(view.def.id).await.map_err(|e| stored(&e))?.is_none())
    }

    /// Queues the run over a view's history, if it lacks it and none is under way.
    async fn ensure_history(&self, view: &BatchView) -> Result<(), Problem> {
        let _turn = self.history.lock().await;
        // in this order: a run that ends in between has published before it is gone from the queue
        if !self.queue.has_history_run(view.def.id) && self.lacks_history(view).await? {
            self.enqueue(view, RunKind::Full, RunTrigger::History).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Runs for RunService {
    async fn start(&self, view: &str, kind: RunKind, trigger: RunTrigger) -> Result<RunDocument, Problem> {
        let view = self.view(view)?;
        if view.def.refresh == Refresh::Never && !matches!(trigger, RunTrigger::History | RunTrigger::Restart) {
            if self.lacks_history(&view).await? {
                return self.enqueue(&view, RunKind::Full, RunTrigger::History).await;
            }
            let problem =
                Problem::new(Code::InvalidSql, format!("view {} is never refreshed (REFRESH NEVER)", view.def.name));
            return Err(problem.with_hint("create it with REFRESH MANUAL, EVERY or CRON"));
        }
        // what lies before the view comes first, as a run of its own: its cut is where the deltas begin
        if trigger != RunTrigger::History {
            self.ensure_history(&view).await?;
        }
        self.enqueue(&view, kind, trigger).await
    }

    async fn run(&self, id: u64, wait: Option<Duration>) -> Result<RunDocument, Problem> {
        let Some(live) = self.queue.get(id) else { return self.stored_run(id).await };
        if let Some(wait) = wait {
            live.wait(wait).await;
        }
        Ok(live.document())
    }

    async fn runs(&self, view: Option<&str>, limit: usize) -> Result<Vec<RunDocument>, Problem> {
        let mut runs = self.documents.list(view, limit).await.map_err(|e| stored(&e))?;
        for run in &mut runs {
            if let Some(live) = self.queue.get(run.id) {
                *run = live.document();
            }
        }
        Ok(runs)
    }

    async fn cancel(&self, id: u64) -> Result<RunDocument, Problem> {
        let Some(live) = self.queue.get(id) else {
            let run = self.stored_run(id).await?;
            return Err(Problem::new(
                Code::InUse,
                format!("run {id} has ended already: {:?}", run.state).to_lowercase(),
            ));
        };
        if self.queue.take_waiting(id) {
            let now = self.parts.clock.now_us();
            live.end(Err(Problem::new(Code::Cancelled, "the run was cancelled")), now);
            metrics::run_state(&live.view, RunState::Cancelled);
            self.persist(&live).await;
            self.queue.remove(id);
            live.publish_end();
            self.changed.notify_one();
            return Ok(live.document());
        }
        live.stop.cancel();
        Ok(live.document())
    }

    async fn certificate(&self, view: &str, run: Option<u64>) -> Result<Certificate, Problem> {
        let view = self.view(view)?;
        let found = match run {
            Some(run) => self.certificates.get(view.def.id, run).await.map(Some),
            None => self.certificates.latest(view.def.id).await,
        };
        let missing = || {
            let which = run.map_or("no run has".to_owned(), |run| format!("run {run} has no"));
            Problem::new(Code::NotFound, format!("view {}: {which} certificate", view.def.name))
        };
        match found {
            Ok(certificate) => certificate.ok_or_else(missing),
            Err(StorageError::NotFound { .. }) => Err(missing()),
            Err(error) => Err(stored(&error)),
        }
    }

    async fn certificates(&self, view: &str, limit: usize) -> Result<Vec<Certificate>, Problem> {
        let view = self.view(view)?;
        self.certificates.list(view.def.id, limit).await.map_err(|e| stored(&e))
    }

    async fn rollback(&self, view: &str, run: u64) -> Result<Manifest, Problem> {
        let view = self.view(view)?;
        self.roll_back(&view, run).await
    }
}

impl RunService {
    async fn stored_run(&self, id: u64) -> Result<RunDocument, Problem> {
        match self.documents.get(id).await {
            Ok(run) => Ok(run),
            Err(StorageError::NotFound { .. }) => Err(Problem::new(Code::NotFound, format!("there is no run {id}"))),
            Err(error) => Err(stored(&error)),
        }
    }
}
