//! `run VIEW [--wait]`, `run ls|show|cancel`.

use std::time::Duration;

use serde_json::{Value, json};

use super::Session;
use crate::arguments::{RunAction, RunArguments};
use crate::client::{Client, RunAnswer};
use crate::exit::{Exit, fail};
use crate::output::{Format, Table, cell_text, grouped, note};
use crate::progress::Progress;

/// How long one request waits for the end of a run; between two the progress is shown.
const POLL: Duration = Duration::from_millis(500);
/// What a list shows on a terminal; other formats have everything.
const COLUMNS: [&str; 8] = ["id", "view", "kind", "state", "verdict", "rows", "started_at", "error"];

pub(super) async fn run(session: &Session, options: RunArguments) -> anyhow::Result<()> {
    match options.action {
        Some(RunAction::Ls) => {
            let list = session.client.get(&["v1", "runs"]).await?;
            let runs = list.get("runs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            match session.output.format() {
                Format::Table => {
                    let brief: Vec<Value> = runs.iter().map(brief).collect();
                    session.output.table(&Table::of_objects(&brief, &COLUMNS))
                }
                _ => session.output.table(&Table::of_objects(runs, &COLUMNS)),
            }
        }
        Some(RunAction::Show { id }) => session.output.document(&session.client.run(id, Duration::ZERO).await?.raw),
        Some(RunAction::Cancel { id }) => {
            session.client.cancel_run(id).await?;
            note(&format!("run {id} is being cancelled"));
            Ok(())
        }
        None => {
            let view = options.named_view.or(options.view).unwrap_or_default();
            start(session, &view, options.wait).await
        }
    }
}

/// A run with what a list shows.
fn brief(run: &Value) -> Value {
    let members = COLUMNS.iter().map(|name| ((*name).to_owned(), run.get(name).cloned().unwrap_or(Value::Null)));
    Value::Object(members.collect())
}

async fn start(session: &Session, view: &str, wait: bool) -> anyhow::Result<()> {
    let started = session.client.start_runs(view).await?;
    if !wait {
        for id in started {
            note(&format!("run {id} of {view} is started; watch it with `bifold run show {id}`"));
            session.output.document(&json!({ "id": id, "view": view }))?;
        }
        return Ok(());
    }
    let mut ended = vec![];
    for id in started {
        let run = wait_for(&session.client, id, &mut |_| ()).await?;
        session.output.document(&run.raw)?;
        ended.push(run);
    }
    // of several runs, a violation is what is said
    ended.sort_by_key(|run| run.state != "blocked");
    ended.iter().try_for_each(check)
}

/// Waits for the end of a run, with a progress bar; `seen` is told every state in between.
pub async fn wait_for(client: &Client, id: u64, seen: &mut dyn FnMut(&RunAnswer)) -> anyhow::Result<RunAnswer> {
    let mut progress = Progress::rows();
    loop {
        let run = client.run(id, POLL).await?;
        if run.is_final() {
            progress.finish();
            return Ok(run);
        }
        seen(&run);
        progress.set_total(run.rows_total);
        progress.set(run.rows, progress_text(&run));
    }
}

fn progress_text(run: &RunAnswer) -> String {
    let phase = run.raw.get("phase").map_or_else(|| run.state.clone(), cell_text);
    let eta = run.eta_ms.map_or(String::new(), |ms| format!("  ETA {:.1} s", ms as f64 / 1e3));
    format!("{phase}  {} rows/s{eta}", grouped(run.rows_per_second as u64))
}

/// Nothing if a run succeeded, else why it did not and the exit code.
pub fn check(run: &RunAnswer) -> anyhow::Result<()> {
    let reason = run.error.clone().map_or(String::new(), |error| format!(": {error}"));
    match run.state.as_str() {
        "succeeded" => Ok(()),
        "blocked" => {
            fail(Exit::CheckFailed, format!("run {} is not published: its certificate is a violation{reason}", run.id))
        }
        state => fail(Exit::Failed, format!("run {} {state}{reason}", run.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    fn ended(state: &str) -> RunAnswer {
        RunAnswer {
            id: 8,
            view: "v".into(),
            state: state.into(),
            rows: 0,
            rows_total: 0,
            rows_per_second: 0.0,
            eta_ms: None,
            verdict: None,
            error: Some("why".into()),
            raw: Value::Null,
        }
    }

    #[test]
    fn blocked_run_exits_with_3_and_failed_run_with_1() {
        assert!(check(&ended("succeeded")).is_ok());
        assert_eq!(exit::code(&check(&ended("blocked")).unwrap_err()), Exit::CheckFailed);
        let failed = check(&ended("failed")).unwrap_err();
        assert_eq!(exit::code(&failed), Exit::Failed);
        assert_eq!(failed.to_string(), "run 8 failed: why");
    }
}
