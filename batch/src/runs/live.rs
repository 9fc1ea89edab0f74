//! Runs that are not final: the queue, and the state of each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemas::documents::run::{RunDocument, RunState, RunTrigger};
use schemas::{Code, Problem, Verdict};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::recompute::Progress;

/// Runs that wait.
const WAITING_MAX: usize = 100;

/// How a run ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its batch view is the current one.
    Published(Verdict),
    /// The audit found a violation: its first sentence.
    Blocked(String),
}

/// A run that waits or is at work.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) id: u64,
    pub(super) view: String,
    pub(super) view_id: Uuid,
    pub(super) stop: CancellationToken,
    pub(super) progress: Arc<Progress>,
    document: Mutex<RunDocument>,
    phase: Mutex<Option<(&'static str, Instant)>>,
    scan_started: Mutex<Option<Instant>>,
    ended: watch::Sender<bool>,
}

impl LiveRun {
    pub(super) fn new(document: RunDocument) -> Self {
        Self {
            id: document.id,
            view: document.view.clone(),
            view_id: document.view_id,
            stop: CancellationToken::new(),
            progress: Arc::default(),
            document: Mutex::new(document),
            phase: Mutex::new(None),
            scan_started: Mutex::new(None),
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut RunDocument)) {
        change(&mut self.document.lock());
    }

    /// The document as it stands, with the progress of this moment.
    pub(super) fn document(&self) -> RunDocument {
        let mut run = self.document.lock().clone();
        let Some(started) = *self.scan_started.lock() else { return run };
        if run.phase == "scan" {
            run.rows = self.progress.rows();
            let seconds = started.elapsed().as_secs_f64().max(1e-6);
            run.rows_per_second = run.rows as f64 / seconds;
            let left = run.rows_total.saturating_sub(run.rows) as f64;
            run.eta_ms = (run.rows > 0).then(|| (left / run.rows_per_second * 1e3) as u64);
        }
        run
    }

    /// Ends the current phase and begins the next.
    pub(super) fn enter(&self, phase: &'static str) {
        let now = Instant::now();
        let before = self.phase.lock().replace((phase, now));
        let mut run = self.document.lock();
        if let Some((name, since)) = before {
            run.phase_ms.push((name.into(), now.duration_since(since).as_millis() as u64));
            if name == "scan" {
                run.rows = self.progress.rows();
                run.rows_per_second = run.rows as f64 / now.duration_since(since).as_secs_f64().max(1e-6);
                run.eta_ms = None;
            }
        }
        run.phase = phase.into();
        if phase == "scan" {
            *self.scan_started.lock() = Some(now);
        }
    }

    /// Writes the end into the document; waiters are told by [`LiveRun::publish_end`].
    pub(super) fn end(&self, result: Result<Outcome, Problem>, now_us: i64) {
        self.enter("done");
        let mut run = self.document.lock();
        run.finished_at_us = Some(now_us);
        run.eta_ms = None;
        match result {
            Ok(Outcome::Published(verdict)) => {
                run.state = RunState::Succeeded;
                run.verdict = Some(verdict);
                run.eta_ms = Some(0);
            }
            Ok(Outcome::Blocked(why)) => {
                run.state = RunState::Blocked;
                run.verdict = Some(Verdict::Violation);
                run.error = Some(why);
            }
            Err(problem) => {
                run.state = if problem.code == Code::Cancelled { RunState::Cancelled } else { RunState::Failed };
                run.error = Some(problem.detail);
            }
        }
    }

    /// Wakes those who wait: the end is stored.
    pub(super) fn publish_end(&self) {
        self.ended.send_replace(true);
    }

    /// Until the run has ended, at the longest for `wait`.
    pub(super) async fn wait(&self, wait: Duration) {
        let mut ended = self.ended.subscribe();
        // too late, or the run was taken from us: the caller shows what there is
        let _ = tokio::time::timeout(wait, ended.wait_for(|ended| *ended)).await;
    }
}

/// The runs that are not final.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<u64>,
    live: BTreeMap<u64, Arc<LiveRun>>,
}

impl Inner {
    fn is_waiting(&self, id: u64) -> bool {
        self.waiting.contains(&id)
    }
}

impl Queue {
    pub(super) fn get(&self, id: u64) -> Option<Arc<LiveRun>> {
        self.0.lock().live.get(&id).cloned()
    }

    pub(super) fn check_room(&self) -> Result<(), Problem> {
        if self.0.lock().waiting.len() < WAITING_MAX {
            return Ok(());
        }
        Err(Problem::new(Code::Overloaded, format!("{WAITING_MAX} runs wait already")))
    }

    pub(super) fn push(&self, run: LiveRun) -> Result<(), Problem> {
        self.check_room()?;
        let mut inner = self.0.lock();
        inner.waiting.push_back(run.id);
        inner.live.insert(run.id, Arc::new(run));
        Ok(())
    }

    /// The oldest waiting run whose view has no run at work.
    pub(super) fn take_next(&self) -> Option<Arc<LiveRun>> {
        let mut inner = self.0.lock();
        let busy: Vec<Uuid> =
            inner.live.values().filter(|run| !inner.is_waiting(run.id)).map(|run| run.view_id).collect();
        let index =
            inner.waiting.iter().position(|id| inner.live.get(id).is_some_and(|run| !busy.contains(&run.view_id)))?;
        let id = inner.waiting.remove(index)?;
        inner.live.get(&id).cloned()
    }

    /// Takes one run out of the queue; false if it does not wait.
    pub(super) fn take_waiting(&self, id: u64) -> bool {
        let mut inner = self.0.lock();
        let before = inner.waiting.len();
        inner.waiting.retain(|waiting| *waiting != id);
        inner.waiting.len() < before
    }

    /// The view's waiting run; one over its history is a thing of its own.
    pub(super) fn waiting(&self, view: Uuid, trigger: RunTrigger) -> Option<Arc<LiveRun>> {
        let inner = self.0.lock();
        let is_history = |run: &LiveRun| run.document.lock().trigger == RunTrigger::History;
        let same = |run: &&Arc<LiveRun>| run.view_id == view && is_history(run) == (trigger == RunTrigger::History);
        inner.waiting.iter().filter_map(|id| inner.live.get(id)).find(same).cloned()
    }

    /// True if a run over the view's history waits or is at work.
    pub(super) fn has_history_run(&self, view: Uuid) -> bool {
        let inner = self.0.lock();
        inner.live.values().any(|run| run.view_id == view && run.document.lock().trigger == RunTrigger::History)
    }

    pub(super) fn remove(&self, id: u64) {
        self.0.lock().live.remove(&id);
    }

    /// Tells every run to stop.
    pub(super) fn stop_all(&self) {
        for run in self.0.lock().live.values() {
            run.stop.cancel();
        }
    }
}
