//! `REFRESH` and `ROLLBACK`: runs by the name of a view, or of a union of which each part has runs of its own.

use std::time::Duration;

use schemas::documents::run::{RunDocument, RunKind, RunState, RunTrigger};
use schemas::{Code, Problem, ViewDef};
use serving::parts::StatementAnswer;
use storage::layers::Runs;
use tokio::time::Instant;

use super::show::known_view;
use super::{StatementService, message};

impl StatementService {
    /// Starts a run, of a union one of each part, and waits for the end, but no longer than a query may take: clients
    /// give up.
    pub(super) async fn refresh(&self, name: &str, incremental: bool) -> Result<StatementAnswer, Problem> {
        let kind = if incremental { RunKind::Incremental } else { RunKind::Full };
        let catalog = self.registry.parts.catalog.current();
        let parts = known_view(&catalog, name)?;
        let mut started = vec![];
        for part in &parts {
            started.push(self.runs.start(&part.name, kind, RunTrigger::Manual).await?);
        }
        let deadline = Instant::now() + Duration::from_millis(self.registry.parts.limits.query_timeout_ms);
        let (mut ended, mut failed) = (vec![], false);
        for (part, run) in parts.iter().zip(started) {
            let run = self.ended(run.id, deadline).await?;
            failed |= run.state.is_final() && run.state != RunState::Succeeded;
            ended.push(said(part, run));
        }
        let text = ended.join("; ");
        if failed { Err(Problem::new(Code::ComputationFailed, text)) } else { Ok(message(text)) }
    }

    /// A run when it has ended, at the latest at a deadline or when the platform stops.
    async fn ended(&self, run: u64, deadline: Instant) -> Result<RunDocument, Problem> {
        let patience = deadline.saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            waited = self.runs.run(run, Some(patience)) => waited,
            () = self.stop.cancelled() => self.runs.run(run, None).await,
        }
    }

    /// The view that a run of this name was a run of: of a union, one of its parts.
    pub(super) async fn view_of_run(&self, name: &str, run: u64) -> Result<String, Problem> {
        let catalog = self.registry.parts.catalog.current();
        let parts = known_view(&catalog, name)?;
        if let [view] = parts.as_slice() {
            return Ok(view.name.clone());
        }
        let known = self.runs.run(run, None).await?;
        let part = parts.iter().find(|part| part.id == known.view_id);
        let other = || {
            Problem::new(Code::NotFound, format!("view {name}: run {run} is of {}, which is no part of it", known.view))
        };
        part.map(|part| part.name.clone()).ok_or_else(other)
    }
}

/// How a run has ended, or how to follow it.
fn said(view: &ViewDef, run: RunDocument) -> String {
    let (id, name) = (run.id, &view.name);
    let verdict = run.verdict.map_or("no certificate", schemas::Verdict::as_str);
    match run.state {
        RunState::Succeeded => format!("run {id} of {name} succeeded: {verdict}"),
        state if !state.is_final() => {
            let state = format!("{state:?}").to_lowercase();
            format!("run {id} of {name} is {state}: watch it with GET /v1/runs/{id} or bifold run show {id}")
        }
        state => {
            let why = run.error.unwrap_or_else(|| verdict.to_owned());
            format!("run {id} of {name}: {state:?}: {why}")
        }
    }
}
