//! `/v1/runs`: triggering, watching and cancelling batch runs.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use schemas::documents::certificate::{CutByPartition, Verdict, by_partition};
use schemas::documents::run::{RunDocument, RunKind, RunState, RunTrigger};
use schemas::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::conditions::number;
use super::{Answer, HttpState, Path, Payload, json, parameters, parse_body};
use crate::times::{parse_duration, rfc3339};

/// The longest that `?wait=` waits; a client asks again.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// Runs listed when no limit is given.
const LISTED: usize = 100;

/// A run as INTERFACES §2 shows it.
#[derive(Debug, Serialize)]
pub(super) struct RunAnswer {
    id: u64,
    view: String,
    kind: RunKind,
    trigger: RunTrigger,
    state: RunState,
    phase: String,
    rows: u64,
    rows_total: u64,
    rows_per_second: f64,
    eta_ms: Option<u64>,
    cut: Option<CutByPartition>,
    phase_ms: BTreeMap<String, u64>,
    queued_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    verdict: Option<Verdict>,
    error: Option<String>,
}

impl From<RunDocument> for RunAnswer {
    fn from(run: RunDocument) -> Self {
        Self {
            id: run.id,
            view: run.view,
            kind: run.kind,
            trigger: run.trigger,
            state: run.state,
            phase: run.phase,
            rows: run.rows,
            rows_total: run.rows_total,
            rows_per_second: run.rows_per_second,
            eta_ms: if run.state.is_final() { Some(0) } else { run.eta_ms },
            cut: run.cut.as_ref().map(by_partition),
            phase_ms: run.phase_ms.into_iter().collect(),
            queued_at: rfc3339(run.queued_at_us),
            started_at: run.started_at_us.map(rfc3339),
            finished_at: run.finished_at_us.map(rfc3339),
            verdict: run.verdict,
            error: run.error,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    kind: Option<RunKind>,
}

pub(super) async fn start(
    State(state): State<HttpState>,
    Path(view): Path<String>,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Answer {
    let body: StartBody = if body.is_empty() { StartBody::default() } else { parse_body(&headers, &body)? };
    let kind = body.kind.unwrap_or(RunKind::Full);
    let started = state.engine.start_runs(&view, kind).await?;
    let mut runs = started.into_iter().map(RunAnswer::from);
    let (Some(first), rest) = (runs.next(), runs.collect::<Vec<_>>()) else {
        return Err(Problem::new(Code::NotFound, format!("there is no view {view}")).into());
    };
    let location = format!("/v1/runs/{}", first.id);
    let body = if rest.is_empty() { json(&first)? } else { json(&StartedAnswer::of(view, first, rest))? };
    let mut response = (StatusCode::ACCEPTED, [(LOCATION, location)], body.into_body()).into_response();
    let media_type = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    Ok(response)
}

/// The runs of a union: one of each part.
#[derive(Debug, Serialize)]
struct StartedAnswer {
    /// The first of them.
    id: u64,
    view: String,
    runs: Vec<RunAnswer>,
}

impl StartedAnswer {
    fn of(view: String, first: RunAnswer, rest: Vec<RunAnswer>) -> Self {
        Self { id: first.id, view, runs: std::iter::once(first).chain(rest).collect() }
    }
}

pub(super) async fn one(State(state): State<HttpState>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let mut wait = None;
    for (name, value) in parameters(query.as_deref()) {
        match name.as_str() {
            "wait" => wait = Some(parse_duration(&value)?.min(WAIT_MAX)),
            _ => return Err(Problem::new(Code::BadRequest, format!("there is no parameter {name}")).into()),
        }
    }
    let run = state.engine.parts.runs.run(run_id(&id)?, wait).await?;
    json(&RunAnswer::from(run))
}

pub(super) async fn cancel(State(state): State<HttpState>, Path(id): Path<String>) -> Answer {
    json(&RunAnswer::from(state.engine.parts.runs.cancel(run_id(&id)?).await?))
}

pub(super) fn run_id(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::new(Code::NotFound, format!("there is no run {text:?}")))
}

pub(super) async fn list(State(state): State<HttpState>, RawQuery(query): RawQuery) -> Answer {
    listed(&state, None, query.as_deref()).await
}

pub(super) async fn of_view(
    State(state): State<HttpState>,
    Path(view): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    listed(&state, Some(view), query.as_deref()).await
}

async fn listed(state: &HttpState, mut view: Option<String>, query: Option<&str>) -> Answer {
    let mut limit = LISTED;
    for (name, value) in parameters(query) {
        match name.as_str() {
            "limit" => limit = number(&name, &value)?,
            "view" => view = Some(value),
            _ => return Err(Problem::new(Code::BadRequest, format!("there is no parameter {name}")).into()),
        }
    }
    let runs = state.engine.runs(view.as_deref(), limit).await?;
    let runs: Vec<RunAnswer> = runs.into_iter().map(RunAnswer::from).collect();
    json(&serde_json::json!({ "runs": runs }))
}
