//! `GET /v1/views/{v}/changes`: the changes of a view as server-sent events.
//!
//! ```text
//!  event: snapshot   {"reason":…,"mode":…,"version":…,"columns":[…],"key":[…]}     forget what you have
//!  event: change     {"version":…,"upserts":[{…}],"deletes":[{key}]}              its rows; later, what changes
//!  event: correction {…}                                                          in mode append
//!  event: published  {"run":…,"verdict":…,"cut":{…}}
//!  event: progress   {"to":{…},"records":…}      id: the cursor; everything before it belongs to one step
//!  event: problem    the problem, as an HTTP answer has it; nothing follows
//! ```
//! Only `progress` has an id: a client that was cut off in the middle of a step gets the whole step again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use futures::stream::unfold;
use schemas::documents::certificate::by_partition;
use schemas::problem::did_you_mean;
use schemas::{Code, OutputMode, Problem};
use serde_json::json;

use super::{Answer, HttpState, Path, parameters};
use crate::changes::{Cursor, Event, Feed, FeedRequest, json as text};
use crate::format::named;
use crate::times::parse_duration;

/// The pause between two looks where the client does not say.
const EVERY: Duration = Duration::from_millis(100);
/// The shortest and the longest pause that a client may ask for.
const EVERY_MIN: Duration = Duration::from_millis(10);
const EVERY_MAX: Duration = Duration::from_hours(1);
/// The header by which a client says what it has seen last (HTML, server-sent events).
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) async fn changes(
    State(state): State<HttpState>,
    Path(view): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let request = request(view, query.as_deref(), &headers)?;
    let mode = request.mode;
    let mut feed = Feed::open(&Arc::clone(&state.engine), request)?;
    // what keeps the view from being read is an answer with a status, not an event
    feed.check().await?;
    let events = unfold(Some(feed), move |feed| async move {
        let mut feed = feed?;
        match next(&mut feed, mode).await {
            Ok(Some(event)) => Some((event, Some(feed))),
            Ok(None) => None,
            Err(problem) => Some((said_problem(&problem), None)),
        }
    });
    let body = Body::from_stream(futures::StreamExt::map(events, |event| Ok::<_, Infallible>(Bytes::from(event))));
    Ok(([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")], body).into_response())
}

fn request(view: String, query: Option<&str>, headers: &HeaderMap) -> Result<FeedRequest, Problem> {
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    let mut request =
        FeedRequest { view, mode: OutputMode::Update, every: EVERY, cursor: None, has_whole_steps: false };
    let given = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut cursor = given.filter(|id| !id.is_empty());
    for (name, value) in parameters(query) {
        match name.as_str() {
            "mode" => {
                let modes = OutputMode::ALL.map(OutputMode::as_str);
                let found = OutputMode::ALL.into_iter().find(|mode| mode.as_str() == value);
                request.mode = found.ok_or_else(|| {
                    let problem = bad(format!("mode: {value:?} is none of {}", modes.join(", ")));
                    match did_you_mean(&value, modes) {
                        Some(close) => problem.with_hint(format!("did you mean {close}?")),
                        None => problem,
                    }
                })?;
            }
            "every" => request.every = parse_duration(&value)?.clamp(EVERY_MIN, EVERY_MAX),
            // what a browser cannot send as a header when it connects first
            "cursor" => cursor = cursor.or(Some(value)),
            other => {
                let problem = bad(format!("unknown parameter {other:?}"));
                return Err(problem.with_hint("there are: mode, every, cursor"));
            }
        }
    }
    let parsed = |text: String| {
        let wrong = |_| bad(format!("not a cursor: {:?}", text.chars().take(80).collect::<String>()));
        text.parse::<Cursor>().map_err(|e| wrong(e).with_hint("send the id of the last event as it is, or none"))
    };
    request.cursor = cursor.map(parsed).transpose()?;
    Ok(request)
}

/// The next event as text.
async fn next(feed: &mut Feed, mode: OutputMode) -> Result<Option<String>, Problem> {
    let Some(event) = feed.next().await? else { return Ok(None) };
    Ok(Some(match event {
        Event::Snapshot { reason, version } => {
            let (schema, keys) = feed.columns()?;
            let key: Vec<&String> = keys.iter().map(|key| schema.field(*key).name()).collect();
            let columns = named(&schema);
            let data = json!({ "reason": reason, "mode": mode, "version": version, "columns": columns, "key": key });
            said("snapshot", None, &data.to_string())
        }
        Event::Changed(changes) => said("change", None, &text::changes(&changes)?),
        Event::Corrected(changes) => said("correction", None, &text::changes(&changes)?),
        Event::Published(published) => said("published", None, &json!(published).to_string()),
        Event::Progress(cursor) => {
            let data = json!({ "to": by_partition(&cursor.to), "records": cursor.to.total() });
            said("progress", Some(&cursor), &data.to_string())
        }
    }))
}

fn said(name: &str, id: Option<&Cursor>, data: &str) -> String {
    let id = id.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n")
}

fn said_problem(problem: &Problem) -> String {
    let data = serde_json::to_string(problem).unwrap_or_else(|_| text::quoted(&problem.detail));
    said("problem", None, &data)
}
