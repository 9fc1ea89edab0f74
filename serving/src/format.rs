//! Answers as bytes: JSON, NDJSON, CSV, Arrow IPC stream.
//!
//! Bodies are built whole before the status line is sent (results are bounded by the row limit), so
//! that a 200 is a complete answer.

mod csv;
mod json;
pub(crate) mod text;

use arrow::ipc::writer::StreamWriter;
use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use schemas::freshness::Freshness;
use schemas::{Code, Problem};
use std::fmt::Write as _;

use crate::engine::QueryAnswer;

pub use json::{answer as json_answer, columns as json_columns};
pub(crate) use json::{named, object};
pub use text::hex;

/// A format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One object with columns, rows, statistics, freshness. The default.
    #[default]
    Json,
    /// An object per row; the last line is the end marker.
    Ndjson,
    /// RFC 4180 with a header line.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// By `?format=`, else by `Accept`.
    ///
    /// # Errors
    /// `bad_request` for an unknown `format`. Unknown media types in `Accept` get JSON.
    pub fn choose(parameter: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        match parameter {
            Some("json") => Ok(Self::Json),
            Some("ndjson") => Ok(Self::Ndjson),
            Some("csv") => Ok(Self::Csv),
            Some("arrow") => Ok(Self::Arrow),
            Some(other) => Err(Problem::new(Code::BadRequest, format!("format: {other:?} is not known"))
                .with_hint("formats are json, ndjson, csv, arrow")),
            None => Ok(Self::accepted(headers)),
        }
    }

    fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let types = accept.split(',').map(|one| one.split(';').next().unwrap_or_default().trim().to_lowercase());
        for media_type in types {
            match media_type.as_str() {
                "application/json" => return Self::Json,
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" => return Self::Ndjson,
                "text/csv" => return Self::Csv,
                "application/vnd.apache.arrow.stream" => return Self::Arrow,
                _ => {}
            }
        }
        Self::Json
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// The whole body of an answer.
///
/// # Errors
/// A value could not be written.
pub fn body(format: Format, answer: &QueryAnswer) -> Result<Vec<u8>, Problem> {
    match format {
        Format::Json => Ok(json::answer(answer, &[])?.into_bytes()),
        Format::Ndjson => Ok(json::lines(answer)?.into_bytes()),
        Format::Csv => Ok(csv::table(answer)?.into_bytes()),
        Format::Arrow => arrow_stream(answer),
    }
}

fn arrow_stream(answer: &QueryAnswer) -> Result<Vec<u8>, Problem> {
    let wrong = |e: arrow::error::ArrowError| Problem::new(Code::Internal, format!("writing Arrow IPC: {e}"));
    let mut writer = StreamWriter::try_new(Vec::new(), &answer.schema).map_err(wrong)?;
    for rows in &answer.rows {
        writer.write(rows).map_err(wrong)?;
    }
    writer.into_inner().map_err(wrong)
}

/// An answer over HTTP, with its freshness in the headers too. `messages` are for JSON alone.
///
/// # Errors
/// A value could not be written.
pub fn respond(format: Format, answer: &QueryAnswer, messages: &[String]) -> Result<Response, Problem> {
    let bytes = match format {
        Format::Json => json::answer(answer, messages)?.into_bytes(),
        other => body(other, answer)?,
    };
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    set_headers(headers, answer);
    Ok(response)
}

fn set_headers(headers: &mut HeaderMap, answer: &QueryAnswer) {
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let freshness = &answer.freshness;
    set("bifold-as-of", freshness.as_of.clone());
    set("bifold-complete", freshness.complete.to_string());
    set("bifold-row-count", answer.row_count().to_string());
    set("bifold-truncated", answer.truncated.to_string());
    set("bifold-query-id", answer.statistics.query_id.clone());
    if let Some(next) = &answer.next {
        set("bifold-next", next.clone());
    }
    let lag = freshness.views.iter().filter_map(|view| view.speed.as_ref()).map(|speed| speed.lag_ms).max();
    if let Some(lag) = lag {
        set("bifold-lag-ms", lag.to_string());
    }
    for (name, value) in per_view(freshness) {
        set(name, value);
    }
}

/// `<view>=<value>` for every view, separated by `;`. A cut is `partition:offset,…`.
fn per_view(freshness: &Freshness) -> Vec<(&'static str, String)> {
    let (mut runs, mut cuts, mut tos) = (vec![], vec![], vec![]);
    for view in &freshness.views {
        let name = percent_encoded(&view.view);
        if let Some(batch) = &view.batch {
            runs.push(format!("{name}={}", batch.run));
            cuts.push(format!("{name}={}", positions(&batch.cut)));
        }
        if let Some(speed) = &view.speed {
            tos.push(format!("{name}={}", positions(&speed.to)));
        }
    }
    let all = [("bifold-run", runs), ("bifold-cut", cuts), ("bifold-speed-to", tos)];
    all.into_iter().filter(|(_, values)| !values.is_empty()).map(|(name, values)| (name, values.join(";"))).collect()
}

fn positions(cut: &schemas::documents::certificate::CutByPartition) -> String {
    cut.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect::<Vec<_>>().join(",")
}

fn percent_encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests;
