//! How the sinks do: `system.sinks`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::{Cut, Problem};
use uuid::Uuid;

/// What a sink does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SinkState {
    /// It begins.
    #[default]
    Starting,
    /// It delivers, or has delivered everything.
    Running,
    /// It failed, and waits before it tries again.
    Retrying,
}

impl SinkState {
    /// As `system.sinks` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
        }
    }
}

/// How one sink does.
#[derive(Debug, Clone, Default)]
pub struct SinkStatus {
    /// What it does.
    pub state: SinkState,
    /// Everything below it has arrived; none before the first step.
    pub to: Option<Cut>,
    /// Rows and keys that have arrived since the process began.
    pub rows: u64,
    /// When the last step had arrived, microseconds.
    pub delivered_at_us: Option<i64>,
    /// Why it failed last.
    pub error: Option<String>,
    /// How often it has failed since the last step that arrived.
    pub retries: u64,
}

/// The books of all sinks of this process.
#[derive(Debug, Default, Clone)]
pub struct SinkBook(Arc<Mutex<BTreeMap<Uuid, SinkStatus>>>);

impl SinkBook {
    /// How a sink does; none if it does not run here.
    pub fn status(&self, sink: Uuid) -> Option<SinkStatus> {
        self.0.lock().get(&sink).cloned()
    }

    pub(super) fn begin(&self, sink: Uuid) {
        self.0.lock().entry(sink).or_default();
    }

    pub(super) fn forget(&self, sink: Uuid) {
        self.0.lock().remove(&sink);
    }

    pub(super) fn opened(&self, sink: Uuid, to: Option<&Cut>) {
        self.change(sink, |status| {
            status.state = SinkState::Running;
            status.to = to.cloned();
        });
    }

    pub(super) fn arrived(&self, sink: Uuid, to: &Cut, rows: u64, now_us: i64) {
        self.change(sink, |status| {
            status.state = SinkState::Running;
            status.to = Some(to.clone());
            status.rows += rows;
            status.delivered_at_us = Some(now_us);
            status.error = None;
            status.retries = 0;
        });
    }

    pub(super) fn failed(&self, sink: Uuid, problem: &Problem) {
        self.change(sink, |status| {
            status.state = SinkState::Retrying;
            status.error = Some(problem.text());
            status.retries += 1;
        });
    }

    fn change(&self, sink: Uuid, change: impl FnOnce(&mut SinkStatus)) {
        if let Some(status) = self.0.lock().get_mut(&sink) {
            change(status);
        }
    }
}
