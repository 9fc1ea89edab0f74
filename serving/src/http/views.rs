//! `GET /v1/views/{v}`: look-ups without SQL. `/v1/views`: the catalogue of views.

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use operators::WINDOW_FINAL;
use schemas::statement::{ObjectKind, Statement};
use schemas::{Catalog, Code, Problem, UnionDef, ViewDef};
use serde::Serialize;

use super::filter::{Selection, quoted};
use super::streams::{CreateBody, execute_create, execute_drop};
use super::{Answer, HttpState, Path, Payload, json, parameters, parse_body};
use crate::engine::{QueryAnswer, Referenced, resolve};
use crate::format::{Format, respond};
use crate::system::{refresh_text, streams_of};
use crate::times::rfc3339;

#[derive(Debug, Serialize)]
struct ViewAnswer {
    name: String,
    id: String,
    version: u32,
    /// Of a union, the streams of its parts.
    stream: String,
    refresh: String,
    sql: String,
    created_at: String,
    /// Of a union, the views that it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<String>,
    /// The union that the view is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    part_of: Option<String>,
}

fn of_view(catalog: &Catalog, def: &ViewDef) -> ViewAnswer {
    ViewAnswer {
        name: def.name.clone(),
        id: def.id.to_string(),
        version: def.version,
        stream: catalog.stream_by_id(def.stream).map(|stream| stream.name.clone()).unwrap_or_default(),
        refresh: refresh_text(&def.refresh),
        sql: def.sql.clone(),
        created_at: rfc3339(def.created_at_us),
        parts: vec![],
        part_of: catalog.union_of(def.id).map(|union| union.name.clone()),
    }
}

fn of_union(catalog: &Catalog, def: &UnionDef) -> ViewAnswer {
    let parts = catalog.parts(&def.name).unwrap_or_default();
    ViewAnswer {
        name: def.name.clone(),
        id: def.id.to_string(),
        version: def.version,
        stream: streams_of(catalog, &parts),
        refresh: refresh_text(&def.refresh),
        sql: def.sql.clone(),
        created_at: rfc3339(def.created_at_us),
        parts: parts.iter().map(|part| part.name.clone()).collect(),
        part_of: None,
    }
}

pub(super) async fn list(State(state): State<HttpState>) -> Answer {
    let catalog = state.engine.parts.catalogs.current();
    let mut views: Vec<ViewAnswer> = catalog.views.iter().map(|def| of_view(&catalog, def)).collect();
    views.extend(catalog.unions.iter().map(|def| of_union(&catalog, def)));
    views.sort_by(|a, b| a.name.cmp(&b.name));
    json(&serde_json::json!({ "views": views }))
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
    let Referenced::View(named, _) = resolve(&catalog, &reference, "")? else {
        return Err(Problem::new(Code::NotFound, format!("there is no view {name}")).into());
    };
    let view = named.parts.first().and_then(|part| engine.parts.views.view(part.id));
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
