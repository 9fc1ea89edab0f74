//! `/v1/streams/{stream}/dead_letters`: look at them, replay them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use schemas::limits::DEAD_LETTERS_AT_ONCE;
use schemas::{Code, Offset, Problem};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem_response;
use crate::dead_letters::Letter;
use crate::service::{Correction, IngestService};

/// Letters that a list has unless it is asked for more or fewer.
const LISTED: usize = 100;
/// Bytes of a request for a replay: offsets, and the text of one record.
const REPLAY_BYTES_MAX: usize = 8 << 20;

pub(super) fn routes() -> Router<Arc<IngestService>> {
    Router::new()
        .route("/v1/streams/{stream}/dead_letters", get(list))
        .route("/v1/streams/{stream}/dead_letters/replay", post(replay))
        .route("/v1/streams/{stream}/dead_letters/{offset}", get(one))
        .route("/v1/streams/{stream}/dead_letters/{offset}/raw", get(raw))
        .layer(DefaultBodyLimit::max(REPLAY_BYTES_MAX))
}

type PathOf<T> = Result<Path<T>, PathRejection>;

fn names<T>(path: PathOf<T>) -> Result<T, Problem> {
    path.map(|Path(names)| names).map_err(|error| bad_request(&format!("path: {}", error.body_text())))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    from: Offset,
    limit: Option<usize>,
}

async fn list(
    State(service): State<Arc<IngestService>>,
    path: PathOf<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let listed = async {
        let stream = names(path)?;
        let Query(parameters) = parameters.map_err(|error| bad_request(&format!("query: {}", error.body_text())))?;
        let limit = parameters.limit.unwrap_or(LISTED).clamp(1, DEAD_LETTERS_AT_ONCE);
        let letters = service.dead_letters(&stream, parameters.from, limit).await?;
        let next = letters.last().map(|(letter, _)| letter.offset + 1);
        let more = match next {
            Some(next) => !service.dead_letters(&stream, next, 1).await?.is_empty(),
            None => false,
        };
        let shown: Vec<Value> = letters.iter().map(|(letter, replayed)| show(letter, *replayed)).collect();
        Ok(json!({ "dead_letters": shown, "next": next.filter(|_| more) }))
    };
    answer(listed.await)
}

async fn one(State(service): State<Arc<IngestService>>, path: PathOf<(String, String)>) -> Response {
    answer(letter(&service, path).await.map(|(letter, replayed)| show(&letter, replayed)))
}

/// The bytes as they were sent, of no type that a browser would run.
async fn raw(State(service): State<Arc<IngestService>>, path: PathOf<(String, String)>) -> Response {
    match letter(&service, path).await {
        Ok((letter, _)) => {
            let headers = [
                (CONTENT_TYPE, "application/octet-stream"),
                (CONTENT_DISPOSITION, "attachment"),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, letter.raw).into_response()
        }
        Err(problem) => problem_response(&problem),
    }
}

async fn replay(
    State(service): State<Arc<IngestService>>,
    path: PathOf<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let replayed = async {
        let stream = names(path)?;
        let body = body.map_err(|error| bad_request(&format!("body: {}", error.body_text())))?;
        let correction: Correction = if body.is_empty() {
            Correction::default()
        } else {
            serde_json::from_slice(&body).map_err(|error| bad_request(&format!("body: {error}")))?
        };
        service.replay(&stream, correction).await
    };
    match replayed.await {
        Ok(replayed) => Json(replayed).into_response(),
        Err(problem) => problem_response(&problem),
    }
}

async fn letter(
    service: &Arc<IngestService>,
    path: PathOf<(String, String)>,
) -> Result<(Letter, Option<i64>), Problem> {
    let (stream, offset) = names(path)?;
    let missing = || Problem::new(Code::NotFound, format!("stream {stream}: there is no dead letter {offset}"));
    let wanted: Offset = offset.parse().map_err(|_| missing())?;
    let found = service.dead_letters(&stream, wanted, 1).await?.into_iter().next();
    found.filter(|(letter, _)| letter.offset == wanted).ok_or_else(missing)
}

fn show(letter: &Letter, replayed_us: Option<i64>) -> Value {
    json!({
        "offset": letter.offset,
        "received_at": rfc3339(letter.received_us),
        "sent_at": letter.sent_us.map(rfc3339),
        "code": letter.code,
        "column": letter.column,
        "message": letter.message,
        // null if it is no text: the bytes are at …/raw
        "raw": std::str::from_utf8(&letter.raw).ok(),
        "bytes": letter.bytes,
        "is_whole": letter.is_whole(),
        "content_type": letter.content_type,
        "request_id": letter.request_id,
        "index": letter.index,
        "replayed_at": replayed_us.map(rfc3339),
    })
}

fn rfc3339(time_us: i64) -> Option<String> {
    use arrow::temporal_conversions::timestamp_us_to_datetime;
    timestamp_us_to_datetime(time_us).map(|time| format!("{}Z", time.format("%Y-%m-%dT%H:%M:%S%.6f")))
}

fn bad_request(detail: &str) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

fn answer(result: Result<Value, Problem>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(problem) => problem_response(&problem),
    }
}
