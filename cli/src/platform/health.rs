//! `/healthz`, `/readyz`, and the gauges that are measured when they are asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;
use speed::SpeedService;

use super::registry::Registry;

/// Records that the fold may lag behind the log and the platform still be called ready.
const READY_LAG_RECORDS: u64 = 1_000_000;

#[derive(Clone)]
pub(crate) struct HealthState {
    pub(crate) registry: Arc<Registry>,
    pub(crate) speed: Arc<SpeedService>,
}

/// The process answers.
pub(crate) async fn healthz() -> impl IntoResponse {
    Json(json!({ "status": "ok" }))
}

/// A node that only answers queries listens once it has read the store.
pub(crate) async fn ready() -> impl IntoResponse {
    Json(json!({ "status": "ready", "reasons": [] }))
}

/// Every stream is recovered and its fold is near the head of its log; otherwise 503 with the reasons. A stream that waits
/// for its broker is named, and keeps nobody from the others.
pub(crate) async fn readyz(State(state): State<HealthState>) -> impl IntoResponse {
    let mut reasons = vec![];
    for open in state.registry.streams() {
        let folded = state.speed.stream(open.def.id).map(|speed| speed.folded());
        let Some(folded) = folded else {
            reasons.push(format!("stream {}: not open yet", open.def.name));
            continue;
        };
        let lag = folded.records_until(&open.log.head());
        if lag > READY_LAG_RECORDS {
            reasons.push(format!("stream {}: {lag} records of its log are still to be folded", open.def.name));
        }
    }
    let waiting: Vec<String> = state.registry.waiting().iter().map(|waiting| waiting.problem().detail).collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if reasons.is_empty() { "ready" } else { "not ready" };
    (status, Json(json!({ "status": word, "reasons": reasons, "waiting": waiting })))
}

/// Sets the gauges of lag and size.
pub(crate) fn measure(state: &HealthState) {
    for open in state.registry.streams() {
        let stream = open.def.name.clone();
        let head = open.log.head();
        metrics::gauge!("bifold_log_head_records", "stream" => stream.clone()).set(head.total() as f64);
        let landed = open.landing.master().landed();
        metrics::gauge!("bifold_landing_lag_records", "stream" => stream.clone())
            .set(landed.records_until(&head) as f64);
        if let Some(lag) = open.connector.as_ref().and_then(|connector| connector.status().lag_records) {
            metrics::gauge!("bifold_source_lag_records", "stream" => stream.clone()).set(lag as f64);
        }
        let Some(speed) = state.speed.stream(open.def.id) else { continue };
        let lag = speed.folded().records_until(&head);
        metrics::gauge!("bifold_speed_lag_records", "stream" => stream.clone()).set(lag as f64);
        let behind = state.speed.durable(open.def.id).map_or(0, |durable| durable.records_until(&head));
        metrics::gauge!("bifold_speed_unchecked_records", "stream" => stream).set(behind as f64);
    }
}
