//! A run: one batch recomputation, as `GET /v1/runs/{id}` shows it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::certificate::Verdict;
use crate::position::Cut;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waits for its turn.
    Queued,
    /// Is at work.
    Running,
    /// Published.
    Succeeded,
    /// Its certificate is a violation: not published.
    Blocked,
    /// Ended with an error; the view that was there goes on serving.
    Failed,
    /// Stopped by a user.
    Cancelled,
}

impl RunState {
    /// True when nothing more will happen.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What a run reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Everything, from the master.
    Full,
    /// Only what is new since the last run, onto its batch view.
    Incremental,
}

/// Who asked for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunTrigger {
    /// A user.
    Manual,
    /// The view's schedule.
    Schedule,
    /// The first run over the history that lay before the view.
    History,
    /// A restart found it unfinished.
    Restart,
}

/// The state of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDocument {
    /// Format of this document: 1.
    pub format: u32,
    /// The run's number; grows over all views.
    pub id: u64,
    /// The view's name when it was started.
    pub view: String,
    /// The view.
    pub view_id: Uuid,
    /// What it reads.
    pub kind: RunKind,
    /// Who asked for it.
    pub trigger: RunTrigger,
    /// Where it stands.
    pub state: RunState,
    /// Its cut, once planned.
    pub cut: Option<Cut>,
    /// Records read so far.
    pub rows: u64,
    /// Records to read.
    pub rows_total: u64,
    /// Records a second, over the scan.
    pub rows_per_second: f64,
    /// Expected remaining time, milliseconds; none while unknown.
    pub eta_ms: Option<u64>,
    /// What it does: `plan`, `land`, `scan`, `sort`, `audit`, `publish`, `done`.
    pub phase: String,
    /// Milliseconds that each finished phase took, in order.
    pub phase_ms: Vec<(String, u64)>,
    /// Microseconds since the epoch.
    pub queued_at_us: i64,
    /// Microseconds since the epoch.
    pub started_at_us: Option<i64>,
    /// Microseconds since the epoch.
    pub finished_at_us: Option<i64>,
    /// The certificate's verdict.
    pub verdict: Option<Verdict>,
    /// Why it failed or was blocked.
    pub error: Option<String>,
}
