//! Bodies of requests in memory: bounded over all of them, as each one may be as large as a table that is sent with
//! its `CREATE TABLE`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use schemas::{Code, Problem};
use tokio::sync::Semaphore;

use crate::problem::HttpProblem;

/// So many of the largest bodies fit at the same time.
const LARGEST_AT_ONCE: usize = 2;
/// How long a refused body is read.
const DISCARD_MAX: Duration = Duration::from_secs(10);
/// What is counted.
const UNIT_BYTES: usize = 1_024;

/// Room for bodies.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    room: Arc<Semaphore>,
    units_max: usize,
}

impl Bodies {
    pub(super) fn new(body_bytes_max: usize) -> Self {
        let units_max = body_bytes_max.div_ceil(UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS / LARGEST_AT_ONCE);
        Self { room: Arc::new(Semaphore::new(LARGEST_AT_ONCE * units_max)), units_max }
    }

    /// What a body may take: what it says, or as much as any may if it does not say.
    fn units(&self, headers: &HeaderMap) -> usize {
        let announced = headers.get(CONTENT_LENGTH).map(HeaderValue::to_str);
        match announced {
            Some(Ok(length)) => length.parse().map_or(self.units_max, |bytes: usize| bytes.div_ceil(UNIT_BYTES)),
            None if !headers.contains_key(TRANSFER_ENCODING) => 0,
            _ => self.units_max,
        }
        .min(self.units_max)
    }
}

/// Lets a request in while there is room for its body; it keeps the room until it is answered.
pub(super) async fn admit(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    let units = u32::try_from(bodies.units(request.headers())).unwrap_or(u32::MAX);
    let Ok(_room) = bodies.room.try_acquire_many(units) else {
        let detail = format!(
            "bodies of {} bytes are in memory, more are not taken",
            LARGEST_AT_ONCE * bodies.units_max * UNIT_BYTES
        );
        discard(request, bodies.units_max * UNIT_BYTES).await;
        return HttpProblem(Problem::new(Code::Overloaded, detail)).into_response();
    };
    next.run(request).await
}

/// Reads a body without keeping it: a client that is cut off while it sends does not see why.
async fn discard(request: Request, bytes_max: usize) {
    let mut chunks = request.into_body().into_data_stream();
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    /// full is 429, and room comes back with the answer.
    #[tokio::test]
    async fn bodies_beyond_the_bound_are_refused_until_others_are_answered() {
        let (bodies, go_on) = (Bodies::new(10_000), Arc::new(Notify::new()));
        let waiting = Arc::clone(&go_on);
        let handler = move |_body: axum::body::Bytes| async move { waiting.notified().await };
        let router = Router::new().route("/", post(handler)).layer(from_fn_with_state(bodies.clone(), admit));
        let ask = |bytes: usize| {
            let request = Request::post("/").header(CONTENT_LENGTH, bytes).body(Body::from(vec![b'x'; bytes])).unwrap();
            router.clone().oneshot(request)
        };
        let two = [tokio::spawn(ask(10_000)), tokio::spawn(ask(9_900))];
        while bodies.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = ask(2_000).await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &HeaderValue::from_static("1"))
        );
        go_on.notify_waiters();
        for answered in two {
            assert_eq!(answered.await.unwrap().unwrap().status(), 200);
        }
        go_on.notify_one();
        assert_eq!(ask(2_000).await.unwrap().status(), 200);
    }

    #[test]
    fn what_does_not_say_how_long_it_is_may_be_of_any_length() {
        let bodies = Bodies::new(10 * UNIT_BYTES);
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse::<HeaderValue>().unwrap())).collect()
        };
        assert_eq!(bodies.units(&headers(&[])), 0);
        assert_eq!(bodies.units(&headers(&[("content-length", "1025")])), 2);
        assert_eq!(bodies.units(&headers(&[("content-length", "99999999999999999999")])), 10);
        assert_eq!(bodies.units(&headers(&[("transfer-encoding", "chunked")])), 10);
    }
}
