//! The schedule: starts a view's runs when they are due. What was missed while nothing ran is caught
//! up once.

mod cron;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::documents::run::{RunKind, RunTrigger};
use schemas::{Code, Problem, Refresh};
use storage::clock::Clock;
use storage::layers::Runs;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::cron::CronSchedule;
use crate::views::{BatchView, Views};

/// The wall clock is read again at least this often: it may be set.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);
/// Shorter intervals than a run could ever take.
const INTERVAL_US_MIN: i64 = 1_000_000;

/// Checks a refresh clause when a view is created.
///
/// # Errors
/// `invalid_sql`: the expression, the time zone or the interval is no valid one; the message says what is.
pub fn validate(refresh: &Refresh) -> Result<(), Problem> {
    match refresh {
        Refresh::Manual | Refresh::Never => Ok(()),
        Refresh::Every { interval_us } if *interval_us >= INTERVAL_US_MIN => Ok(()),
        Refresh::Every { .. } => {
            Err(Problem::new(Code::InvalidSql, "REFRESH EVERY: the interval must be at least one second"))
        }
        Refresh::Cron { expression, time_zone } => CronSchedule::parse(expression, time_zone).map(drop),
    }
}

/// When a run is due next, given when the last one was asked for; none for a view without a schedule.
///
/// # Errors
/// Those of [`validate`].
pub fn due_us(refresh: &Refresh, last_us: i64) -> Result<Option<i64>, Problem> {
    match refresh {
        Refresh::Manual | Refresh::Never => Ok(None),
        Refresh::Every { interval_us } => Ok(Some(last_us.saturating_add(*interval_us))),
        Refresh::Cron { expression, time_zone } => Ok(CronSchedule::parse(expression, time_zone)?.next_us(last_us)),
    }
}

/// Starts due runs.
pub struct Schedule {
    views: Arc<dyn Views>,
    runs: Arc<dyn Runs>,
    clock: Arc<dyn Clock>,
    /// Per view and version, when its last run was asked for.
    last: BTreeMap<(Uuid, u32), i64>,
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Schedule {
    /// A schedule of all views.
    pub fn new(views: Arc<dyn Views>, runs: Arc<dyn Runs>, clock: Arc<dyn Clock>) -> Self {
        Self { views, runs, clock, last: BTreeMap::new() }
    }

    /// Starts runs as they become due, until stopped.
    ///
    /// # Errors
    /// None: a run that cannot be started is due again at the next time.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Problem> {
        loop {
            let next_us = self.tick().await;
            let wait_us = next_us.map_or(i64::MAX, |next| next.saturating_sub(self.clock.now_us()));
            let wait = Duration::from_micros(u64::try_from(wait_us).unwrap_or(0)).min(LOOK_AT_CLOCK);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {}
            }
        }
    }

    /// Starts what is due and returns when the next run is.
    async fn tick(&mut self) -> Option<i64> {
        let mut next = None;
        let views = self.views.views();
        self.last
            .retain(|(id, version), _| views.iter().any(|view| view.def.id == *id && view.def.version == *version));
        for view in views {
            let due = self.look_at(&view).await;
            next = [next, due].into_iter().flatten().min();
        }
        next
    }

    async fn look_at(&mut self, view: &BatchView) -> Option<i64> {
        if matches!(view.def.refresh, Refresh::Manual | Refresh::Never) {
            return None;
        }
        let last = self.last_us(view).await?;
        let due = match due_us(&view.def.refresh, last) {
            Ok(due) => due?,
            Err(problem) => {
                tracing::warn!(view = %view.def.name, error = %problem, "the view's schedule cannot be read");
                return None;
            }
        };
        let now = self.clock.now_us();
        if due > now {
            return Some(due);
        }
        if let Err(problem) = self.runs.start(&view.def.name, RunKind::Full, RunTrigger::Schedule).await {
            tracing::warn!(view = %view.def.name, error = %problem, "a scheduled run was not started");
        }
        // from now on, not from when it was due: what was missed is caught up once
        self.last.insert((view.def.id, view.def.version), now);
        due_us(&view.def.refresh, now).ok().flatten()
    }

    /// When the view's last run was asked for; when the view was made, if there was none.
    async fn last_us(&mut self, view: &BatchView) -> Option<i64> {
        let key = (view.def.id, view.def.version);
        if let Some(last) = self.last.get(&key) {
            return Some(*last);
        }
        match self.runs.runs(Some(&view.def.name), 1).await {
            Ok(runs) => {
                let queued =
                    runs.first().filter(|run| run.view_id == view.def.id).map_or(i64::MIN, |run| run.queued_at_us);
                let last = queued.max(view.def.created_at_us);
                self.last.insert(key, last);
                Some(last)
            }
            Err(problem) => {
                tracing::warn!(view = %view.def.name, error = %problem, "the last run is not known yet");
                None
            }
        }
    }
}
