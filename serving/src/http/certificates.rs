//! `/v1/views/{v}/certificates`: JSON for programs, a page for people.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::{Html, IntoResponse};
use schemas::{Certificate, Problem};
use serde_json::{Value, json};

use super::runs::run_id;
use super::{Answer, HttpState, Path, json as json_body};
use crate::times::rfc3339;

/// Certificates that are listed.
const LISTED_MAX: usize = 100;

fn wants_html(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

/// The stored document, and its time as text.
fn document(certificate: &Certificate) -> Result<Value, Problem> {
    let mut value = serde_json::to_value(certificate)
        .map_err(|e| Problem::new(schemas::Code::Internal, format!("writing JSON: {e}")))?;
    value["created_at"] = json!(rfc3339(certificate.created_at_us));
    Ok(value)
}

pub(super) async fn list(State(state): State<HttpState>, Path(view): Path<String>, headers: HeaderMap) -> Answer {
    let certificates = state.engine.certificates(&view, LISTED_MAX).await?;
    if wants_html(&headers) {
        return Ok(Html(list_page(&view, &certificates)).into_response());
    }
    let certificates = certificates.iter().map(document).collect::<Result<Vec<_>, _>>()?;
    json_body(&json!({ "certificates": certificates }))
}

pub(super) async fn one(
    State(state): State<HttpState>,
    Path((view, run)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let run = if run == "latest" { None } else { Some(run_id(&run)?) };
    let found = state.engine.certificates_of(&view, run).await?;
    match found.as_slice() {
        [one] if wants_html(&headers) => Ok(Html(page(one)).into_response()),
        several if wants_html(&headers) => Ok(Html(pages(&view, several)).into_response()),
        [one] => json_body(&document(one)?),
        several => json_body(&together(&view, several)?),
    }
}

/// The newest certificates of a union's parts, as one: its verdict is the worst of theirs.
fn together(view: &str, parts: &[Certificate]) -> Result<Value, Problem> {
    let verdict = parts.iter().map(|part| part.verdict).max();
    let parts = parts.iter().map(document).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "view": view, "verdict": verdict, "parts": parts }))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn frame(title: &str, content: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>\
         body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         table{{border-collapse:collapse;width:100%}}td,th{{text-align:left;padding:.3rem .6rem;\
         border-bottom:1px solid #ddd}}td.n{{text-align:right}}.bad{{color:#b00020;font-weight:600}}\
         .ok{{color:#14713d;font-weight:600}}</style></head><body><h1>{title}</h1>{content}</body></html>"
    )
}

fn mark(ok: bool) -> &'static str {
    if ok { "<td class=\"ok\">ok</td>" } else { "<td class=\"bad\">differs</td>" }
}

fn list_page(view: &str, certificates: &[Certificate]) -> String {
    let mut rows = String::new();
    for one in certificates {
        let ok = one.violations.is_empty();
        let _ = write!(
            rows,
            "<tr><td><a href=\"certificates/{run}\">run {run}</a></td><td class=\"{class}\">{verdict}</td><td>{at}</td></tr>",
            run = one.run,
            class = if ok { "ok" } else { "bad" },
            verdict = one.verdict.as_str(),
            at = rfc3339(one.created_at_us),
        );
    }
    frame(
        &format!("Certificates of {view}"),
        &format!("<table><tr><th>Run</th><th>Verdict</th><th>At</th></tr>{rows}</table>"),
    )
}

fn page(one: &Certificate) -> String {
    frame(&format!("Certificate of run {}", one.run), &section(one))
}

/// Certificates of the parts of a union, one below the other.
fn pages(view: &str, parts: &[Certificate]) -> String {
    frame(&format!("Certificates of {view}"), &parts.iter().map(section).collect::<String>())
}

fn section(one: &Certificate) -> String {
    let mut rows = String::new();
    for input in &one.inputs {
        let _ = write!(
            rows,
            "<tr><td>input of partition {} [{}, {})</td>{}<td>{} landed, {} folded</td></tr>",
            input.partition,
            input.from,
            input.to,
            mark(input.equal),
            input.landed.records,
            input.folded.records
        );
    }
    let ledger = &one.ledger;
    let _ = write!(
        rows,
        "<tr><td>ledger</td>{}<td>{} appended: {} counted, {} filtered, {} late; balance {}</td></tr>",
        mark(ledger.balance == 0),
        ledger.appended,
        ledger.batch.counted,
        ledger.batch.filtered,
        ledger.batch.late,
        ledger.balance
    );
    let note = |skipped: &Option<String>| skipped.as_ref().map(|s| format!(" ({})", escaped(s))).unwrap_or_default();
    let (cells, oracle) = (&one.cells, &one.oracle);
    let (cells_note, oracle_note) = (note(&cells.skipped), note(&oracle.skipped));
    let _ = write!(
        rows,
        "<tr><td>cells</td>{}<td>{} compared, {} differ{cells_note}</td></tr>\
         <tr><td>oracle</td>{}<td>{} sampled, {} differ{oracle_note}</td></tr>",
        mark(cells.differing == 0),
        cells.compared,
        cells.differing,
        mark(oracle.differing == 0),
        oracle.sampled,
        oracle.differing
    );
    for explanation in &one.explanations {
        let reason = escaped(&explanation.reason);
        let _ = write!(rows, "<tr><td>explained: {reason}</td><td></td><td>{} events</td></tr>", explanation.events);
    }
    for violation in &one.violations {
        let _ = write!(rows, "<tr><td>violation</td><td class=\"bad\">!</td><td>{}</td></tr>", escaped(violation));
    }
    let class = if one.violations.is_empty() { "ok" } else { "bad" };
    let head = format!(
        "<p>Run {} of {}: <span class=\"{class}\">{}</span>, {}. {} records below the cut.</p>",
        one.run,
        escaped(&one.view),
        one.verdict.as_str(),
        rfc3339(one.created_at_us),
        one.cut.values().sum::<u64>()
    );
    format!("{head}<table><tr><th>Check</th><th>Result</th><th>Detail</th></tr>{rows}</table>")
}
