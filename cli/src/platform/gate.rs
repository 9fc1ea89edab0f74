//! What a platform answers from its first moment on: until it is recovered how far that is, and "later"
//! to everything else; then all its routes.
//!
//! ```text
//!  request ─► gate ─┬─ recovering: /healthz 200, /readyz 503 with the reasons, the rest 503 + Retry-After
//!                   └─ open: the routes of the whole platform
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::{Mutex, RwLock};
use schemas::{Code, Cut, Problem};
use serde_json::json;
use serving::problem::{HttpProblem, method_not_allowed};
use tokio::sync::watch;
use tower::ServiceExt;

use super::health;
use crate::output::grouped;

/// Said while no stream has anything to say.
const OPENING: &str = "recovering: opening the data folder";

/// The routes that are in force.
#[derive(Debug)]
pub(crate) struct Gate {
    routes: RwLock<Router>,
}

impl Gate {
    /// A gate that only says how far `progress` is.
    pub(crate) fn new(progress: Progress) -> Arc<Self> {
        Arc::new(Self { routes: RwLock::new(recovering(progress)) })
    }

    /// Puts the routes of a recovered platform in.
    pub(crate) fn open(&self, routes: Router) {
        *self.routes.write() = routes;
    }

    /// The routes of the server, for good.
    pub(crate) fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(pass).with_state(Arc::clone(self))
    }
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let routes = gate.routes.read().clone();
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn recovering(progress: Progress) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(not_ready))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(later)
        .with_state(progress)
}

async fn not_ready(State(progress): State<Progress>) -> impl IntoResponse {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "reasons": progress.reasons() })))
}

async fn later(State(progress): State<Progress>) -> HttpProblem {
    HttpProblem(Problem::new(Code::NotReady, progress.reasons().join("; ")))
}

/// How far the recovery of each stream is. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<BTreeMap<String, String>>>);

impl Progress {
    /// Says how far a stream is.
    pub(crate) fn say(&self, stream: &str, how_far: impl Into<String>) {
        self.0.lock().insert(stream.to_owned(), how_far.into());
    }

    /// Waits until the fold of a stream, which stands at `folded`, has replayed the log up to `head`.
    pub(crate) async fn replay(&self, stream: &str, head: &Cut, mut folded: watch::Receiver<Cut>) {
        let (total, started) = (folded.borrow().records_until(head), Instant::now());
        let reached = folded.wait_for(|cut| {
            let done = grouped(total - cut.records_until(head));
            self.say(stream, format!("{done} of {} records replayed", grouped(total)));
            head.is_at_most(cut)
        });
        // a fold that is gone is the end of the platform: nothing is waited for any more
        let _ = reached.await;
        tracing::info!(stream, records = total, elapsed_ms = %started.elapsed().as_millis(), "replayed the log");
        self.0.lock().remove(stream);
    }

    /// Why the platform is not ready, a line a stream; never empty.
    fn reasons(&self) -> Vec<String> {
        let known = self.0.lock();
        let lines: Vec<String> =
            known.iter().map(|(stream, far)| format!("recovering stream {stream}: {far}")).collect();
        if lines.is_empty() { vec![OPENING.to_owned()] } else { lines }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};

    use super::*;

    async fn ask(gate: &Arc<Gate>, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = gate.router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn replay_says_how_far_it_is_and_ends_at_the_head() {
        let progress = Progress::default();
        let gate = Gate::new(progress.clone());
        assert!(ask(&gate, "/readyz").await.1.contains(OPENING));
        let (folded, stands) = watch::channel(Cut(vec![1_000, 0]));
        let head = Cut(vec![2_001_000, 1_000_000]);
        let replay = tokio::spawn({
            let progress = progress.clone();
            async move { progress.replay("commits", &head, stands).await }
        });
        for (cut, text) in [
            (None, "recovering stream commits: 0 of 3,000,000 records replayed"),
            (Some([1_001_000, 200_000]), "recovering stream commits: 1,200,000 of 3,000,000 records replayed"),
        ] {
            if let Some(cut) = cut {
                folded.send_replace(Cut(cut.to_vec()));
            }
            while progress.reasons() != [text] {
                tokio::task::yield_now().await;
            }
            let (status, body) = ask(&gate, "/readyz").await;
            assert_eq!(status, 503);
            assert!(body.contains(text), "{body}");
        }
        // beyond the head, for events come in again before anybody looks
        folded.send_replace(Cut(vec![2_001_000, 1_000_007]));
        replay.await.unwrap();
        gate.open(Router::new().route("/readyz", get(health::healthz)));
        assert_eq!(ask(&gate, "/readyz").await.0, 200);
        assert_eq!(ask(&gate, "/v1/sql").await.0, 404);
    }
}
