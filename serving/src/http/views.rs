//! `GET /v1/views/{v}`: look-ups without SQL. `/v1/views`: the catalogue of views.

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use operators::WINDOW_FINAL;
use schemas::statement::{ObjectKind, Statement};
use schemas::{Code, Problem, ViewDef};
use serde::Serialize;

use super::filter::{Selection, quoted};
use super::streams::{CreateBody, execute_create, execute_drop};
use super::{Answer, HttpState, Path, Payload, json, parameters, parse_body};
use crate::engine::{QueryAnswer, Referenced, resolve};
use crate::format::{Format, respond};
use crate::system::refresh_text;
use crate::times::rfc3339;

#[derive(Debug, Serialize)]
struct ViewAnswer {
    name: String,
    id: String,
    version: u32,
    stream: String,
    refresh: String,
    sql: String,
    created_at: String,
}

pub(super) async fn list(State(state): State<HttpState>) -> Answer {
    let catalog = state.engine.parts.catalogs.current();
    let view = |def: &ViewDef| ViewAnswer {
        name: def.name.clone(),
        id: def.id.to_string(),
        version: def.version,
        stream: catalog.stream_by_id(def.stream).map(|stream| stream.name.clone()).unwrap_or_default(),
        refresh: refresh_text(&def.refresh),
        sql: def.sql.clone(),
        created_at: rfc3339(def.created_at_us),
    };
    json(&serde_json::json!({ "views": catalog.views.iter().map(view).collect::<Vec<_>>() }))
}

pub(super) async fn create(State(state): State<HttpState>, headers: HeaderMap, Payload(body): Payload) -> Answer {
    let body: CreateBody = parse_body(&headers, &body)?;
    execute_create(&state, &body, "CREATE MATERIALIZED VIEW", |s| matches!(s, Statement::CreateView(_))).await
}

pub(super) async fn drop(State(state): State<HttpState>, Path(view): Path<String>) -> Answer {
    let text = format!("DROP MATERIALIZED VIEW {}", quoted(&view));
    execute_drop(&state, ObjectKind::View, view, text).await
}

pub(super) async fn look_up(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let engine = &state.engine;
    let catalog = engine.parts.catalogs.current();
    let reference = datafusion::common::TableReference::partial("speed", name.clone());
    let Referenced::View(def, _) = resolve(&catalog, &reference, "")? else {
        return Err(Problem::new(Code::NotFound, format!("there is no view {name}")).into());
    };
    let view = engine.parts.views.view(def.id);
    let view = view.ok_or_else(|| Problem::new(Code::NotReady, format!("view {name} is being set up")))?;
    // what is read by key has no watermark with it: a query says whether a window is final
    let asks_for_final = query.as_deref().is_some_and(|query| query.contains(WINDOW_FINAL));
    let schema = if asks_for_final { view.output_schema_with_finality()? } else { view.output_schema() };
    let selection = Selection::parse(&parameters(query.as_deref()), &schema)?;
    let format = Format::choose(selection.format.as_deref(), &headers)?;
    let text = format!("GET /v1/views/{name}?{}", query.as_deref().unwrap_or_default());
    let mut request = selection.conditions.request(&text)?;
    request.row_limit = selection.limit.or(request.row_limit);
    if request.row_limit == Some(0) {
        return Err(Problem::new(Code::BadRequest, "limit: a page has at least one row").into());
    }
    if let Some(key) = selection.key(&view).filter(|_| !asks_for_final)
        && let Some(found) = engine.look_up(&name, &key, &request).await?
    {
        let answer = projected(found, &selection.projection(&schema)?)?;
        if !answer.truncated {
            return Ok(respond(format, &answer, &[])?);
        }
    }
    let (sql, params) = selection.sql(&view, &schema, &name)?;
    (request.sql, request.params) = (sql, params);
    let mut answer = engine.query(&request).await?;
    if answer.truncated {
        answer.next = Some(selection.next(answer.row_count()));
    }
    Ok(respond(format, &answer, &[])?)
}

fn projected(mut answer: QueryAnswer, columns: &[usize]) -> Result<QueryAnswer, Problem> {
    if columns.iter().copied().eq(0..answer.schema.fields().len()) {
        return Ok(answer);
    }
    let wrong = |e: arrow::error::ArrowError| Problem::new(Code::Internal, e.to_string());
    answer.rows = answer.rows.iter().map(|rows| rows.project(columns)).collect::<Result<_, _>>().map_err(wrong)?;
    answer.schema = std::sync::Arc::new(answer.schema.project(columns).map_err(wrong)?);
    Ok(answer)
}
