//! `reconcile VIEW`: prints a certificate; triggers nothing.

use serde_json::Value;

use super::Session;
use crate::arguments::ReconcileArguments;
use crate::exit::{Exit, fail};
use crate::output::{Format, cell_text, text};

pub(super) async fn reconcile(session: &Session, options: &ReconcileArguments) -> anyhow::Result<()> {
    let certificate = session.client.certificate(&options.view, options.run).await?;
    match session.output.format() {
        Format::Table => text(&summary(&certificate))?,
        _ => session.output.document(&certificate)?,
    }
    if certificate.get("verdict").and_then(Value::as_str) == Some("violation") {
        return fail(Exit::CheckFailed, format!("view {}: the layers do not agree", options.view));
    }
    Ok(())
}

/// A certificate for people: one line per check, then what explains or violates it; of a view over `UNION ALL` those of
/// its parts, and the worst verdict.
pub(crate) fn summary(certificate: &Value) -> String {
    if let Some(parts) = certificate.get("parts").and_then(Value::as_array) {
        let fact = |name: &str| certificate.get(name).map_or_else(|| "?".to_owned(), cell_text);
        let verdict = format!("view {}: {}, of {} parts\n", fact("view"), fact("verdict").to_uppercase(), parts.len());
        return parts.iter().map(summary).collect::<String>() + &verdict;
    }
    let fact = |pointer: &str| certificate.pointer(pointer).map_or_else(|| "?".to_owned(), cell_text);
    let inputs = certificate.get("inputs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let unequal = inputs.iter().filter(|input| input.get("equal") != Some(&Value::Bool(true))).count();
    let base = match certificate.get("base_run") {
        Some(Value::Number(run)) => format!("replaces run {run}"),
        _ => "replaces nothing".to_owned(),
    };
    let mut lines = vec![
        format!("view {} run {}: {} ({base})", fact("/view"), fact("/run"), fact("/verdict").to_uppercase()),
        format!("  inputs   {} partitions compared, {unequal} differ", inputs.len()),
        format!(
            "  ledger   {} appended = {} counted + {} filtered + {} late, balance {}",
            fact("/ledger/appended"),
            fact("/ledger/batch/counted"),
            fact("/ledger/batch/filtered"),
            fact("/ledger/batch/late"),
            fact("/ledger/balance")
        ),
        format!(
            "  cells    {} compared, {} differ{}",
            fact("/cells/compared"),
            fact("/cells/differing"),
            skipped(certificate, "/cells/skipped")
        ),
        format!(
            "  oracle   {} sampled, {} differ{}",
            fact("/oracle/sampled"),
            fact("/oracle/differing"),
            skipped(certificate, "/oracle/skipped")
        ),
    ];
    lines.extend(list(certificate, "explanations").iter().map(|one| {
        let events = one.get("events").map_or_else(String::new, cell_text);
        let place = one.get("list").and_then(Value::as_str).map_or(String::new(), |path| format!(", listed in {path}"));
        format!("  without  {events} events: {}{place}", one.get("reason").map_or_else(String::new, cell_text))
    }));
    lines.extend(list(certificate, "violations").iter().map(|one| format!("  WRONG    {}", cell_text(one))));
    lines.join("\n") + "\n"
}

fn list<'a>(certificate: &'a Value, name: &str) -> &'a [Value] {
    certificate.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn skipped(certificate: &Value, pointer: &str) -> String {
    match certificate.pointer(pointer).and_then(Value::as_str) {
        Some(reason) => format!(" ({reason})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn certificate_for_people() {
        let certificate = json!({
            "run": 8, "view": "sales", "verdict": "explained", "base_run": 7,
            "inputs": [{"equal": true}, {"equal": false}],
            "ledger": {"appended": 10, "balance": 0, "batch": {"counted": 7, "filtered": 1, "late": 2}},
            "cells": {"compared": 4, "differing": 0, "skipped": null},
            "oracle": {"sampled": 0, "differing": 0, "skipped": "empty"},
            "explanations": [{"reason": "late", "events": 2, "list": "runs/8/late.parquet"}],
            "violations": ["cell a: 1 record twice"]
        });
        insta::assert_snapshot!("certificate", summary(&certificate));
    }
}
