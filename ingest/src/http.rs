//! `POST /v1/streams/{stream}/events`, the dead letters, the time.

mod dead_letters;
mod time;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use schemas::freshness::IngestAnswer;
use schemas::{Code, Problem};
use serde::Deserialize;

use crate::payload::{Encoding, Format, too_large};
use crate::service::{IngestOptions, IngestService, Payload, Reservation};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long the rest of a refused body is read.
const DISCARD_MAX: Duration = Duration::from_secs(10);

/// The routes of ingest.
pub fn router(service: Arc<IngestService>) -> Router {
    Router::new()
        .route("/v1/streams/{stream}/events", post(events))
        .route("/v1/time", get(time::now))
        .merge(dead_letters::routes())
        .layer(DefaultBodyLimit::disable())
        .with_state(service)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    wait: Option<Wait>,
    mode: Option<Mode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wait {
    Durable,
    Visible,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Quarantine,
    Strict,
    Check,
}

async fn events(
    State(service): State<Arc<IngestService>>,
    stream: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let bad = |what: &str, why: String| problem_response(&Problem::new(Code::BadRequest, format!("{what}: {why}")));
    let (stream, parameters) = match (stream, parameters) {
        (Ok(Path(stream)), Ok(Query(parameters))) => (stream, parameters),
        (Err(error), _) => return bad("path", error.body_text()),
        (_, Err(error)) => return bad("query", error.body_text()),
    };
    match take(&service, &stream, &parameters, &headers, body).await {
        Ok(answer) => Json(answer).into_response(),
        Err(problem) => problem_response(&problem),
    }
}

async fn take(
    service: &Arc<IngestService>,
    stream: &str,
    parameters: &Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<IngestAnswer, Problem> {
    let content_type = header(headers, &CONTENT_TYPE)?.unwrap_or("application/x-ndjson");
    let format = format_of(content_type)?;
    let encoding = encoding_of(header(headers, &CONTENT_ENCODING)?.unwrap_or("identity"))?;
    let options = IngestOptions {
        strict: parameters.mode == Some(Mode::Strict),
        check: parameters.mode == Some(Mode::Check),
        wait_visible: parameters.wait == Some(Wait::Visible),
        idempotency_key: header(headers, &IDEMPOTENCY_KEY)?.map(str::to_owned),
    };
    let timing = time::timing(headers, service.now_us())?;
    let mut reservation = service.reserve();
    if let Err(problem) = service.check_progress(stream) {
        discard(&mut body.into_data_stream(), service.limits().body_bytes_max).await;
        return Err(problem);
    }
    let bytes = read_body(body, headers, service.limits().body_bytes_max, &mut reservation).await?;
    let payload = Payload { bytes, encoding, format, content_type: content_type.to_owned(), timing };
    service.ingest_reserved(stream, payload, options, reservation).await
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let text = headers.get(name).map(HeaderValue::to_str).transpose();
    text.map_err(|_| Problem::new(Code::BadRequest, format!("header {name}: not ASCII")))
}

fn format_of(content_type: &str) -> Result<Format, Problem> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        ""
        | "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/octet-stream"
        | "text/plain" => Ok(Format::Ndjson),
        "application/json" => Ok(Format::Json),
        _ => Err(Problem::new(Code::UnsupportedMediaType, format!("content type {content_type:?}: not understood"))
            .with_hint("Content-Type: application/x-ndjson (an event a line) or application/json (an array)")),
    }
}

fn encoding_of(content_encoding: &str) -> Result<Encoding, Problem> {
    match content_encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        _ => {
            let detail = format!("content encoding {content_encoding:?}: not understood");
            Err(Problem::new(Code::UnsupportedMediaType, detail).with_hint("Content-Encoding: gzip, zstd or none"))
        }
    }
}

/// Reads the body within the limit; what is in memory is held by `reservation`.
async fn read_body(
    body: Body,
    headers: &HeaderMap,
    bytes_max: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, Problem> {
    let announced = header(headers, &CONTENT_LENGTH)?.and_then(|length| length.parse().ok()).unwrap_or(0_usize);
    if announced > bytes_max {
        return Err(too_large(bytes_max));
    }
    reservation.expect(announced);
    let mut chunks = body.into_data_stream();
    let read = collect(&mut chunks, announced, bytes_max, reservation).await;
    if read.is_err() {
        discard(&mut chunks, bytes_max).await;
    }
    read
}

/// Reads on without keeping anything: a client that is cut off while it sends does not see why.
async fn discard(chunks: &mut BodyDataStream, bytes_max: usize) {
    let mut bytes = 0;
    let rest = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            bytes += chunk.len();
            if bytes > bytes_max {
                break;
            }
        }
    };
    // who is slower than that is cut off
    let _ = tokio::time::timeout(DISCARD_MAX, rest).await;
}

async fn collect(
    chunks: &mut BodyDataStream,
    announced: usize,
    bytes_max: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Code::BadRequest, "body: ended before its end"))?;
        let bytes = first.len() + whole.len() + chunk.len();
        if bytes > bytes_max {
            return Err(too_large(bytes_max));
        }
        reservation.hold(bytes)?;
        if first.is_empty() && whole.is_empty() {
            // One chunk is the usual case for a small body: it is handed on as it is.
            first = chunk;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.max(bytes));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

fn problem_response(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
    if let Some(seconds) = problem.retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
