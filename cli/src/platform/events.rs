//! `GET /v1/events/{stream}/{id}`: where is my event, and in which views was it counted?
//!
//! The record is found by its identity; whether a view counts it is decided by the code that counted it:
//! the view's own row program folds this one record.

mod answer;
mod find;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use ingest::dead_letters::Letter;
use ingest::service::IngestService;
use schemas::limits::ERRORS_LISTED_MAX;
use schemas::problem::did_you_mean;
use schemas::{Code, Problem};
use serde_json::{Value, json};
use serving::problem::HttpProblem;
use speed::SpeedService;
use tokio::sync::Semaphore;

use super::registry::{OpenStream, Registry};
use find::{EventKey, Found};

/// Searches of a whole master at a time.
const SEARCHES_MAX: usize = 1;

/// What the handler works with.
#[derive(Clone)]
pub(super) struct EventState {
    registry: Arc<Registry>,
    ingest: Arc<IngestService>,
    speed: Arc<SpeedService>,
    searches: Arc<Semaphore>,
}

/// The route.
pub(super) fn router(registry: &Arc<Registry>, ingest: &Arc<IngestService>, speed: &Arc<SpeedService>) -> Router {
    let (registry, ingest, speed) = (Arc::clone(registry), Arc::clone(ingest), Arc::clone(speed));
    let state = EventState { registry, ingest, speed, searches: Arc::new(Semaphore::new(SEARCHES_MAX)) };
    Router::new().route("/v1/events/{stream}/{id}", get(event)).with_state(state)
}

async fn event(
    State(state): State<EventState>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, HttpProblem> {
    let Path((stream, id)) =
        path.map_err(|error| Problem::new(Code::BadRequest, format!("path: {}", error.body_text())))?;
    Ok(Json(state.event(&stream, &id).await?))
}

impl EventState {
    async fn event(&self, stream: &str, id: &str) -> Result<Value, Problem> {
        let open = self.stream(stream)?;
        let key = EventKey::parse(&open.def, &self.registry.parts.limits, id)?;
        let known = self.ingest.find(stream, key.identity).await?;
        let found = match known {
            Some((partition, offset)) => Some(find::record(&open, partition, offset).await?),
            None => self.search(&open, &key).await?,
        };
        let letters = self.letters(stream, &key).await?;
        let Some(found) = found else {
            let state = if letters.is_empty() { "unknown" } else { "quarantined" };
            return Ok(json!({ "stream": stream, "id": id, "state": state, "dead_letters": letters, "views": [] }));
        };
        let views = self.views(&open, &found)?;
        let mut answer = answer::record(&open, &found);
        answer["stream"] = json!(stream);
        answer["id"] = json!(id);
        // a copy that comes now is a duplicate of this position
        answer["is_within_dedup_horizon"] = json!(known.is_some());
        answer["dead_letters"] = json!(letters);
        answer["views"] = json!(views);
        Ok(answer)
    }

    fn stream(&self, name: &str) -> Result<Arc<OpenStream>, Problem> {
        let streams = self.registry.streams();
        if let Some(open) = streams.iter().find(|open| open.def.name == name) {
            return Ok(Arc::clone(open));
        }
        if let Some(waiting) = self.registry.waiting().iter().find(|waiting| waiting.def.name == name) {
            return Err(waiting.problem());
        }
        let problem = Problem::new(Code::NotFound, format!("there is no stream {name}"));
        Err(match did_you_mean(name, streams.iter().map(|open| open.def.name.as_str())) {
            Some(close) => problem.with_hint(format!("did you mean {close}?")),
            None => problem,
        })
    }

    /// Past the horizon of duplicates nothing but the records themselves knows an id: they are read.
    async fn search(&self, open: &Arc<OpenStream>, key: &EventKey) -> Result<Option<Found>, Problem> {
        let busy = || Problem::new(Code::Overloaded, "another search for an event is going on");
        let _one_at_a_time = self.searches.try_acquire().map_err(|_| busy())?;
        let patience = Duration::from_millis(self.registry.parts.limits.query_timeout_ms);
        let searched = tokio::time::timeout(patience, find::search(open, key)).await;
        searched.unwrap_or_else(|_| {
            let detail = format!("stream {}: the search took longer than {} s", open.def.name, patience.as_secs());
            Err(Problem::new(Code::Timeout, detail))
        })
    }

    /// The newest dead letters with this id.
    async fn letters(&self, stream: &str, key: &EventKey) -> Result<Vec<Value>, Problem> {
        let mut letters = VecDeque::new();
        let visit = |letter: &Letter, replayed_us| {
            if letter.is_whole() && key.is_key_of(&letter.raw) {
                letters.push_back(answer::letter(letter, replayed_us));
                letters.drain(..letters.len().saturating_sub(ERRORS_LISTED_MAX));
            }
        };
        self.ingest.visit_newest_dead_letters(stream, visit).await?;
        Ok(letters.into())
    }

    fn views(&self, open: &OpenStream, found: &Found) -> Result<Vec<Value>, Problem> {
        use storage::layers::Speed;
        let snapshot = self.speed.current(open.def.id);
        let catalog = self.registry.parts.catalog.current();
        let mut views = vec![];
        for view in batch::Views::views(self.registry.as_ref()) {
            if view.stream.id == open.def.id {
                let seen = snapshot.as_ref().and_then(|snapshot| snapshot.views.get(&view.def.id));
                let mut answer = answer::view(&view, seen.map(AsRef::as_ref), found)?;
                if let Some(union) = catalog.union_of(view.def.id) {
                    answer["part_of"] = json!(union.name);
                }
                views.push(answer);
            }
        }
        Ok(views)
    }
}
