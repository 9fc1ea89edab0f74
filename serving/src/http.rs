//! The HTTP door: `/v1/sql`, `/v1/views`, `/v1/streams`, `/v1/runs`, `/v1/status` (INTERFACES §2).

mod bodies;
mod certificates;
mod changes;
mod conditions;
mod filter;
mod runs;
mod sql;
mod status;
mod streams;
#[cfg(test)]
mod tests;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::QueryEngine;
use crate::parts::Statements;
use crate::problem::{HttpProblem, method_not_allowed};
use schemas::{Code, Problem};

/// What the handlers share.
#[derive(Clone)]
pub struct HttpState {
    /// Answers queries.
    pub engine: Arc<QueryEngine>,
    /// Carries out everything else.
    pub statements: Arc<dyn Statements>,
}

impl std::fmt::Debug for HttpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpState").finish_non_exhaustive()
    }
}

/// What a handler answers.
type Answer = Result<Response, HttpProblem>;

/// All routes of serving. `cli` merges them with ingest's and adds tokens, health and metrics.
pub fn router(state: HttpState) -> Router {
    let body_bytes_max = state.engine.parts.limits.body_bytes_max;
    let bodies = bodies::Bodies::new(body_bytes_max);
    Router::new()
        .route("/v1/sql", post(sql::post).get(sql::get))
        .route("/v1/views", get(views::list).post(views::create))
        .route("/v1/views/{view}", get(views::look_up).delete(views::drop))
        .route("/v1/views/{view}/changes", get(changes::changes))
        .route("/v1/views/{view}/runs", post(runs::start).get(runs::of_view))
        .route("/v1/views/{view}/certificates", get(certificates::list))
        .route("/v1/views/{view}/certificates/{run}", get(certificates::one))
        .route("/v1/streams", get(streams::list).post(streams::create))
        .route("/v1/streams/{stream}", get(streams::one).delete(streams::drop))
        .route("/v1/runs", get(runs::list))
        .route("/v1/runs/{id}", get(runs::one))
        .route("/v1/runs/{id}", delete(runs::cancel))
        .route("/v1/status", get(status::status))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(middleware::from_fn_with_state(bodies, bodies::admit))
        .with_state(state)
}

/// A request's body, within its limit.
struct Payload(Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = HttpProblem;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpProblem> {
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Code::PayloadTooLarge
            } else {
                Code::BadRequest
            };
            Problem::new(code, format!("the body: {}", rejection.body_text().to_lowercase()))
        })?;
        Ok(Self(body))
    }
}

/// The names in a path.
struct Path<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(names)) => Ok(Self(names)),
            Err(rejection) => {
                let what = format!("the path: {}", rejection.body_text().to_lowercase());
                Err(Problem::new(Code::BadRequest, what).into())
            }
        }
    }
}

/// A JSON body from a request.
fn parse_body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_lowercase();
    // what curl -d sends unless it is told otherwise
    if !matches!(media_type.as_str(), "application/json" | "application/x-www-form-urlencoded") {
        let what = format!("content type {media_type:?} is not understood");
        return Err(Problem::new(Code::UnsupportedMediaType, what).with_hint("send application/json"));
    }
    serde_json::from_slice(body).map_err(|e| Problem::new(Code::BadRequest, format!("the body: {e}")))
}

/// A document as JSON.
fn json<T: Serialize>(document: &T) -> Answer {
    let bytes = serde_json::to_vec(document).map_err(|e| Problem::new(Code::Internal, format!("writing JSON: {e}")))?;
    Ok(([(CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// The parameters of a query string, in order.
fn parameters(query: Option<&str>) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect()
}
