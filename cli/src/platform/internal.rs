//! The door for nodes that only answer queries: the newest states of a stream, which are not in the store yet.
//! Between nodes of one version; not part of the public interface.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use schemas::{Code, Cut, PositionToken, Problem, StreamDef};
use serde::Deserialize;
use serving::problem::HttpProblem;
use storage::layers::Snapshots;
use storage::snapshot::wire;
use uuid::Uuid;

use super::registry::Registry;

/// `?after=…&at_least=…&timeout_ms=…`
#[derive(Deserialize)]
pub(super) struct Wanted {
    after: String,
    at_least: Option<String>,
    timeout_ms: u64,
}

/// `GET /v1/internal/streams/{id}/tail`: a snapshot without the ranges that end at `after` or before.
pub(super) async fn tail(
    State(registry): State<Arc<Registry>>,
    Path(stream): Path<Uuid>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, HttpProblem> {
    let open = registry.streams().into_iter().find(|open| open.def.id == stream);
    let open = open.ok_or_else(|| Problem::new(Code::NotFound, format!("there is no stream {stream}")))?;
    let after = cut_of(&open.def, &wanted.after)?;
    let at_least = wanted.at_least.as_deref().map(|text| cut_of(&open.def, text)).transpose()?;
    let timeout = Duration::from_millis(wanted.timeout_ms.min(registry.parts.limits.query_timeout_ms));
    let snapshot = registry.parts.speed.snapshot(stream, at_least.as_ref(), timeout).await?;
    let encoded = tokio::task::spawn_blocking(move || wire::encode(&snapshot, &after)).await;
    let encoded = encoded.map_err(|error| Problem::new(Code::Internal, format!("encoding a tail: {error}")))?;
    let bytes = encoded.map_err(|error| error.problem())?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

fn cut_of(stream: &StreamDef, token: &str) -> Result<Cut, Problem> {
    let token: PositionToken =
        token.parse().map_err(|e: schemas::position::BadToken| Problem::new(Code::BadRequest, e.to_string()))?;
    if token.incarnation == stream.incarnation {
        return Ok(token.cut);
    }
    Err(Problem::new(Code::BadRequest, format!("stream {}: its log was made anew", stream.name)))
}
