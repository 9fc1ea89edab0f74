//! `/v1/streams`: the catalogue of streams, and creating and dropping by statement.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use schemas::problem::{SqlPosition, did_you_mean};
use schemas::statement::{ObjectKind, Placed, Statement, parse_script};
use schemas::{Catalog, Code, Problem, StreamDef};
use serde::{Deserialize, Serialize};

use super::filter::quoted;
use super::{Answer, HttpState, Path, Payload, json, parse_body};
use crate::times::rfc3339;

/// The body of `POST /v1/streams` and `POST /v1/views`: the statement that creates one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBody {
    sql: String,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct ColumnAnswer {
    name: String,
    #[serde(rename = "type")]
    sql_type: String,
    nullable: bool,
}

#[derive(Debug, Serialize)]
struct StreamAnswer {
    name: String,
    id: String,
    columns: Vec<ColumnAnswer>,
    primary_key: Vec<String>,
    time_column: Option<String>,
    watermark_delay_ms: i64,
    partitions: u32,
    dedup_horizon_ms: i64,
    late: schemas::LatePolicy,
    on_bad_data: schemas::OnBadData,
    /// Records in the log, by partition.
    head: BTreeMap<u32, u64>,
    views: Vec<String>,
    created_at: String,
}

fn answer(state: &HttpState, catalog: &Catalog, stream: &StreamDef) -> StreamAnswer {
    let head = state.engine.parts.logs.log(stream.id).map(|log| log.head()).unwrap_or_default();
    let column = |column: &schemas::ColumnDef| ColumnAnswer {
        name: column.name.clone(),
        sql_type: column.sql_type.sql(),
        nullable: column.nullable,
    };
    StreamAnswer {
        name: stream.name.clone(),
        id: stream.id.to_string(),
        columns: stream.columns.iter().map(column).collect(),
        primary_key: stream.primary_key.clone(),
        time_column: stream.time_column.clone(),
        watermark_delay_ms: stream.watermark_delay_us / 1_000,
        partitions: stream.partitions,
        dedup_horizon_ms: stream.dedup_horizon_us / 1_000,
        late: stream.late,
        on_bad_data: stream.on_bad_data,
        head: head.iter().collect(),
        views: catalog.views_of(stream.id).map(|view| view.name.clone()).collect(),
        created_at: rfc3339(stream.created_at_us),
    }
}

pub(super) async fn list(State(state): State<HttpState>) -> Answer {
    let catalog = state.engine.parts.catalogs.current();
    let streams: Vec<StreamAnswer> = catalog.streams.iter().map(|stream| answer(&state, &catalog, stream)).collect();
    json(&serde_json::json!({ "streams": streams }))
}

pub(super) async fn one(State(state): State<HttpState>, Path(name): Path<String>) -> Answer {
    let catalog = state.engine.parts.catalogs.current();
    let Some(stream) = catalog.stream(&name) else {
        let problem = Problem::new(Code::NotFound, format!("there is no stream {name}"));
        let close = did_you_mean(&name, catalog.streams.iter().map(|stream| stream.name.as_str()));
        return Err(match close {
            Some(close) => problem.with_hint(format!("did you mean {close}?")).into(),
            None => problem.into(),
        });
    };
    json(&answer(&state, &catalog, stream))
}

pub(super) async fn create(State(state): State<HttpState>, headers: HeaderMap, Payload(body): Payload) -> Answer {
    let body: CreateBody = parse_body(&headers, &body)?;
    execute_create(&state, &body, "CREATE STREAM", |s| matches!(s, Statement::CreateStream(_))).await
}

pub(super) async fn drop(State(state): State<HttpState>, Path(stream): Path<String>) -> Answer {
    let text = format!("DROP STREAM {}", quoted(&stream));
    execute_drop(&state, ObjectKind::Stream, stream, text).await
}

/// Carries out the one statement of a body, which has to be of the kind that the route is for.
pub(super) async fn execute_create(
    state: &HttpState,
    body: &CreateBody,
    wanted: &str,
    fits: impl Fn(&Statement) -> bool,
) -> Answer {
    let script = parse_script(&body.sql)?;
    let [placed] = script.as_slice() else {
        return Err(Problem::new(Code::BadRequest, format!("sql: expected one {wanted} statement")).into());
    };
    if !fits(&placed.statement) {
        let problem = Problem::new(Code::BadRequest, format!("sql: expected a {wanted} statement"));
        return Err(problem.with_hint("send other statements to POST /v1/sql").into());
    }
    let (done, status) = if body.dry_run {
        (state.statements.rehearse().check(placed, &BTreeMap::new())?, StatusCode::OK)
    } else {
        (state.statements.execute(placed, &BTreeMap::new()).await?, StatusCode::CREATED)
    };
    let message = serde_json::json!({ "message": done.message }).to_string();
    Ok((status, [(CONTENT_TYPE, "application/json")], message).into_response())
}

/// Drops something by name.
pub(super) async fn execute_drop(state: &HttpState, kind: ObjectKind, name: String, text: String) -> Answer {
    let statement = Statement::Drop { kind, name, if_exists: false };
    let placed = Placed { statement, text, position: SqlPosition { line: 1, column: 1 } };
    let done = state.statements.execute(&placed, &BTreeMap::new()).await?;
    json(&serde_json::json!({ "message": done.message }))
}
