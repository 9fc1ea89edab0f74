//! Problems as HTTP answers: `application/problem+json`, `Retry-After` (RFC 9457, RFC 9110).

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use schemas::{Code, Problem};

/// A problem that a handler ends with.
#[derive(Debug)]
pub struct HttpProblem(pub Problem);

impl From<Problem> for HttpProblem {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let problem = self.0;
        if problem.code == Code::Internal {
            tracing::error!(detail = %problem.detail, "a request failed by our fault");
        }
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = problem.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The answer for a path that no door knows: `Router::fallback` of the whole server.
///
/// # Errors
/// Always `unknown_route`.
#[expect(clippy::unused_async, reason = "axum's handlers are asynchronous")]
pub async fn unknown_route(uri: Uri) -> Result<(), HttpProblem> {
    let hint = "see /v1/streams, /v1/views, /v1/sql, /v1/runs, /v1/status";
    Err(Problem::new(Code::UnknownRoute, format!("there is nothing at {}", uri.path())).with_hint(hint).into())
}

/// The answer for a path that is known, but not with this method: `Router::method_not_allowed_fallback`.
/// axum adds the header `Allow`.
pub async fn method_not_allowed(method: Method, uri: Uri) -> HttpProblem {
    HttpProblem(Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retryable_problem_has_retry_after_and_media_type() {
        let response = HttpProblem(Problem::new(Code::Overloaded, "full").with_retry_after(7)).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let other = HttpProblem(Problem::new(Code::NotFound, "no")).into_response();
        assert!(other.headers().get(RETRY_AFTER).is_none());
    }
}
