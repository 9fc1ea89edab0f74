//! `GET /v1/time`, and what a client says of its clock.
//!
//! A sync: the client notes its clock before (`a`) and after (`b`) asking. The offset is
//! `(received + sent) / 2 − (a + b) / 2`, the round trip `(b − a) − (sent − received)`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use schemas::{Code, Problem};
use serde_json::json;

use super::header;
use crate::decode::time::{in_range, timestamp};
use crate::service::IngestService;
use crate::times::{ClockSync, Timing};

const SENT_AT: HeaderName = HeaderName::from_static("bifold-sent-at");
const CLOCK_OFFSET: HeaderName = HeaderName::from_static("bifold-clock-offset-ms");
const CLOCK_ROUND_TRIP: HeaderName = HeaderName::from_static("bifold-clock-round-trip-ms");

/// The server's clock, twice: when the question came and when the answer went. Microseconds.
pub(super) async fn now(State(service): State<Arc<IngestService>>) -> Response {
    let received_us = service.now_us();
    let answer = json!({ "received_us": received_us, "sent_us": service.now_us().max(received_us) });
    ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

/// The times of a request, from its headers.
pub(super) fn timing(headers: &HeaderMap, received_us: i64) -> Result<Timing, Problem> {
    let sent_us = header(headers, &SENT_AT)?.map(sent_at).transpose()?;
    let offset_ms = header(headers, &CLOCK_OFFSET)?.map(|text| milliseconds(&CLOCK_OFFSET, text)).transpose()?;
    let round_trip_ms =
        header(headers, &CLOCK_ROUND_TRIP)?.map(|text| milliseconds(&CLOCK_ROUND_TRIP, text)).transpose()?;
    let clock = match (offset_ms, round_trip_ms) {
        (None, None) => None,
        (Some(offset_ms), Some(round_trip_ms)) => Some(ClockSync::from_ms(offset_ms, round_trip_ms)?),
        _ => {
            let detail = format!("headers {CLOCK_OFFSET} and {CLOCK_ROUND_TRIP}: one without the other");
            return Err(Problem::new(Code::BadRequest, detail));
        }
    };
    if let Some(clock) = &clock {
        let wrong_s = clock.offset_us.unsigned_abs() as f64 / 1e6;
        metrics::histogram!("bifold_client_clock_offset_seconds").record(wrong_s);
    }
    Ok(Timing { received_us: Some(received_us), sent_us, clock })
}

/// RFC 3339, or milliseconds since the epoch.
fn sent_at(text: &str) -> Result<i64, Problem> {
    let ms = text.trim().parse::<i64>().ok().and_then(|ms| ms.checked_mul(1_000)).and_then(in_range);
    ms.or_else(|| timestamp(text.trim())).ok_or_else(|| {
        let detail = format!("header {SENT_AT}: expected RFC 3339 or milliseconds since the epoch, found {text:?}");
        Problem::new(Code::BadRequest, detail)
    })
}

fn milliseconds(name: &HeaderName, text: &str) -> Result<f64, Problem> {
    let detail = || format!("header {name}: expected milliseconds, found {text:?}");
    text.trim().parse().map_err(|_| Problem::new(Code::BadRequest, detail()))
}
