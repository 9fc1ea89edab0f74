//! `POST /v1/sql`, `GET /v1/sql?q=`: scripts in, the last result out.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use schemas::limits::SQL_BYTES_MAX;
use schemas::problem::SqlPosition;
use schemas::statement::{Placed, Statement, parse_script};
use schemas::{Code, Problem};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

use super::conditions::{Conditions, DurationText, Tokens};
use super::{Answer, HttpState, Payload, parameters, parse_body};
use crate::engine::{QueryAnswer, params_from_json};
use crate::format::{Format, respond};
use crate::parts::{Rehearsal, StatementAnswer};
use crate::times::rfc3339;

/// The body of `POST /v1/sql`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlBody {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
    max_staleness: Option<DurationText>,
    at_least: Option<Tokens>,
    timeout: Option<DurationText>,
    row_limit: Option<usize>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

impl SqlBody {
    fn conditions(&self) -> Conditions {
        Conditions {
            max_staleness: self.max_staleness.clone(),
            at_least: self.at_least.clone(),
            timeout: self.timeout.clone(),
            row_limit: self.row_limit,
        }
    }
}

pub(super) async fn post(
    State(state): State<HttpState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Payload(body): Payload,
) -> Answer {
    let parameter = parameters(query.as_deref()).into_iter().find(|(name, _)| name == "format");
    let format = Format::choose(parameter.as_ref().map(|(_, value)| value.as_str()), &headers)?;
    let body: SqlBody = parse_body(&headers, &body)?;
    run(&state, format, &body, false).await
}

pub(super) async fn get(State(state): State<HttpState>, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let (mut sql, mut format, mut conditions) = (None, None, Conditions::default());
    for (name, value) in parameters(query.as_deref()) {
        match name.as_str() {
            "q" => sql = Some(value),
            "format" => format = Some(value),
            _ if conditions.take(&name, &value)? => {}
            _ => return Err(Problem::new(Code::BadRequest, format!("there is no parameter {name}")).into()),
        }
    }
    let format = Format::choose(format.as_deref(), &headers)?;
    let Some(sql) = sql else { return Err(Problem::new(Code::BadRequest, "the parameter q is missing").into()) };
    let Conditions { max_staleness, at_least, timeout, row_limit } = conditions;
    let body = SqlBody { sql, max_staleness, at_least, timeout, row_limit, ..SqlBody::default() };
    run(&state, format, &body, true).await
}

async fn run(state: &HttpState, format: Format, body: &SqlBody, read_only: bool) -> Answer {
    if body.sql.len() > SQL_BYTES_MAX {
        let what = format!("the SQL has {} bytes, the limit is {SQL_BYTES_MAX}", body.sql.len());
        return Err(Problem::new(Code::PayloadTooLarge, what).into());
    }
    let script = parse_script(&body.sql)?;
    if script.is_empty() {
        return Err(Problem::new(Code::BadRequest, "there is no statement").into());
    }
    if read_only && let Some(placed) = script.iter().find(|placed| !reads_only(&placed.statement)) {
        let what = format!("GET is read-only: {}", first_words(&placed.text));
        return Err(Problem::new(Code::Unsupported, what).with_hint("send it with POST /v1/sql").into());
    }
    let (mut messages, mut last) = (vec![], None);
    let mut rehearsal = body.dry_run.then(|| state.statements.rehearse());
    for placed in &script {
        let answer = match &mut rehearsal {
            Some(rehearsal) => check(state, body, placed, rehearsal.as_mut()),
            None => execute(state, body, placed).await,
        };
        let (message, answer) = answer.map_err(|problem| in_whole(problem, &body.sql, placed.position))?;
        messages.push(message);
        last = Some(answer);
    }
    let Some(answer) = last else { return Err(Problem::new(Code::Internal, "a script without an end").into()) };
    Ok(respond(format, &answer, &messages)?)
}

fn reads_only(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Query { .. } | Statement::ExplainLayers { .. } | Statement::Show(_) | Statement::ShowCreate { .. }
    )
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// A statement of a dry run.
fn check(
    state: &HttpState,
    body: &SqlBody,
    placed: &Placed,
    rehearsal: &mut dyn Rehearsal,
) -> Result<(String, QueryAnswer), Problem> {
    let done = match &placed.statement {
        Statement::Query { .. } | Statement::ExplainLayers { .. } => {
            StatementAnswer { message: "a query, not run".into(), rows: None }
        }
        _ => rehearsal.check(placed, &body.files)?,
    };
    Ok(said(state, done))
}

/// The answer of a statement that is no query.
fn said(state: &HttpState, done: StatementAnswer) -> (String, QueryAnswer) {
    let rows = done.rows.unwrap_or_else(|| RecordBatch::new_empty(Arc::new(Schema::empty())));
    (done.message, QueryAnswer::of_rows(rows, rfc3339(state.engine.parts.clock.now_us())))
}

async fn execute(state: &HttpState, body: &SqlBody, placed: &Placed) -> Result<(String, QueryAnswer), Problem> {
    let answer = match &placed.statement {
        Statement::Query { sql } => {
            let mut request = body.conditions().request(sql)?;
            request.params = params_from_json(&body.params)?;
            state.engine.query(&request).await.map_err(|problem| in_statement(problem, placed, sql))?
        }
        Statement::ExplainLayers { sql } => {
            let mut request = body.conditions().request(sql)?;
            request.params = params_from_json(&body.params)?;
            state.engine.explain_layers(&request).await.map_err(|problem| in_statement(problem, placed, sql))?
        }
        _ => {
            let done = state.statements.execute(placed, &body.files).await?;
            return Ok(said(state, done));
        }
    };
    Ok((format!("{} rows", answer.row_count()), answer))
}

/// Moves a position in a query's text to the statement that the query is a part of.
fn in_statement(problem: Problem, placed: &Placed, sql: &str) -> Problem {
    let before = &placed.text[..placed.text.find(sql).unwrap_or(0)];
    let line = 1 + before.matches('\n').count() as u64;
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count() as u64;
    in_whole(problem, &placed.text, SqlPosition { line, column })
}

/// Moves a position to the whole text, where the part that the problem is about begins at `origin`.
fn in_whole(mut problem: Problem, whole: &str, origin: SqlPosition) -> Problem {
    let Some(at) = problem.position else { return problem };
    let place = format!(" (line {}, column {})", at.line, at.column);
    if let Some(end) = problem.detail.find(&place) {
        problem.detail.truncate(end);
    }
    problem.at(whole, operators::error::moved(at, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_moves_to_the_whole_script() {
        let script = "SELECT 1;\n  SELECT nope\nFROM x";
        let part = &script[script.find("SELECT nope").unwrap()..];
        let origin = SqlPosition { line: 2, column: 3 };
        let inner = Problem::new(Code::NotFound, "no").at(part, SqlPosition { line: 1, column: 8 });
        let moved = in_whole(inner, script, origin);
        assert_eq!(moved.position, Some(SqlPosition { line: 2, column: 10 }));
        assert_eq!(moved.detail, "no (line 2, column 10)\n    SELECT nope\n           ^");
        let second = Problem::new(Code::NotFound, "no").at(part, SqlPosition { line: 2, column: 6 });
        assert_eq!(in_whole(second, script, origin).position, Some(SqlPosition { line: 3, column: 6 }));
    }
}
