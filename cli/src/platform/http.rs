//! One HTTP interface: the routers of ingest and serving, tokens, health, metrics.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use schemas::{Code, Problem};
use serving::problem::HttpProblem;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;

use super::health::{self, HealthState};
use super::reader::Reader;
use super::{Wired, http_state, internal};

/// Buckets of every histogram of seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// The process's metrics; one recorder, however many platforms a test starts.
pub(super) fn metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // another platform of this process may have been quicker: its recorder is the one that counts
    match metrics::set_global_recorder(recorder) {
        Ok(()) => Ok(HANDLE.get_or_init(|| handle).clone()),
        Err(_) => Ok(HANDLE.get().cloned().unwrap_or(handle)),
    }
}

/// How often samples of histograms are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Samples pile up until somebody reads them: nobody may ever do.
pub(super) async fn keep_metrics_small(metrics: PrometheusHandle, stop: CancellationToken) -> Result<(), Problem> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(UPKEEP) => metrics.run_upkeep(),
        }
    }
}

/// All routes.
pub(super) fn router(wired: &Wired, token: &str, metrics: PrometheusHandle) -> Router {
    let health = HealthState { registry: Arc::clone(&wired.registry), speed: Arc::clone(&wired.speed) };
    let open = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(render_metrics).with_state((health.clone(), metrics)))
        .method_not_allowed_fallback(serving::problem::method_not_allowed)
        .with_state(health);
    let for_nodes = Router::new()
        .route("/v1/internal/streams/{stream}/tail", get(internal::tail))
        .with_state(Arc::clone(&wired.registry));
    let guarded = serving::http::router(http_state(wired))
        .merge(ingest::http::router(Arc::clone(&wired.ingest)))
        .merge(super::events::router(&wired.registry, &wired.ingest, &wired.speed));
    assemble(guarded.merge(for_nodes), open, token)
}

/// All routes of a node that only answers queries.
pub(super) fn reader_router(reader: &Reader, token: &str, metrics: PrometheusHandle) -> Router {
    let statements = Arc::clone(&reader.statements);
    let state =
        serving::http::HttpState { engine: Arc::clone(&reader.engine), statements: Arc::clone(&statements) as _ };
    let open = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(move || async move { rendered(&metrics) }));
    let no_events = any(move || async move { HttpProblem(statements.no_events()) });
    let guarded = serving::http::router(state).route("/v1/streams/{stream}/events", no_events);
    assemble(guarded, open, token)
}

fn assemble(guarded: Router, open: Router, token: &str) -> Router {
    let token: Arc<str> = Arc::from(token);
    guarded
        .fallback(serving::problem::unknown_route)
        .method_not_allowed_fallback(serving::problem::method_not_allowed)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(token, authorize))
        .merge(open)
}

async fn render_metrics(State((health, metrics)): State<(HealthState, PrometheusHandle)>) -> impl IntoResponse {
    health::measure(&health);
    rendered(&metrics)
}

fn rendered(metrics: &PrometheusHandle) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}

async fn authorize(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    match given {
        Some(given) if same(given.as_bytes(), token.as_bytes()) => next.run(request).await,
        Some(_) => refused("the token is not known to this server"),
        None => refused("no token: send it as `Authorization: Bearer …`"),
    }
}

fn refused(detail: &str) -> Response {
    let problem = Problem::new(Code::Unauthorized, detail)
        .with_hint("the admin token is in the file admin-token of the data folder");
    let mut response = HttpProblem(problem).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
    response
}

/// Takes the same time wherever the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}
