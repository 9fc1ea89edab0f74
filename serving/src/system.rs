//! The platform's own tables: `system.*`, `recon.<view>`, `dlq.<stream>`. Made when they are read.

mod dead_letters;
mod layers;
mod ledger;
mod overview;
mod rows;
mod sinks;

use arrow::record_batch::RecordBatch;
use schemas::{Catalog, Certificate, Code, Problem};

use crate::engine::{History, NamedView, Snapshots};
use crate::parts::Parts;
use rows::Table;

pub(crate) use dead_letters::dead_letters;
pub(crate) use layers::layers;
pub(crate) use overview::{refresh_text, streams_of};
pub(crate) use sinks::sinks;

/// The tables of the schema `system`.
pub(crate) const TABLES: [&str; 8] =
    ["streams", "views", "runs", "certificates", "coverage", "queries", "ledger", "sinks"];

/// Runs, and certificates of one view, that are listed.
const LISTED_MAX: usize = 1_000;

/// The rows of a table that is made when it is read.
#[derive(Debug)]
pub(crate) struct Listed {
    /// At least one batch, for the schema.
    pub(crate) rows: Vec<RecordBatch>,
    /// True if it has only the newest of what there is: an answer from it has to say so.
    pub(crate) cut: bool,
}

impl Listed {
    fn whole(rows: RecordBatch) -> Self {
        Self { rows: vec![rows], cut: false }
    }
}

/// One table of the schema `system`.
pub(crate) async fn table(
    name: &str,
    parts: &Parts,
    catalog: &Catalog,
    history: &History,
    snapshots: &mut Snapshots<'_>,
) -> Result<Listed, Problem> {
    let whole = match name {
        "runs" => return overview::runs(parts).await,
        "certificates" => return overview::certificates(parts, catalog).await,
        "streams" => overview::streams(parts, catalog, snapshots).await,
        "views" => overview::views(catalog, snapshots).await,
        "queries" => overview::queries(history),
        "coverage" => layers::coverage(catalog, snapshots).await,
        "ledger" => ledger::ledger(parts, catalog, snapshots).await,
        _ => Err(Problem::new(Code::NotFound, format!("there is no system table {name}"))),
    };
    whole.map(Listed::whole)
}

/// `recon.<view>`: the newest certificate, one row per check; of a union that of each part, whose name stands before
/// its checks.
pub(crate) async fn reconciliation(parts: &Parts, view: &NamedView) -> Result<RecordBatch, Problem> {
    let mut table = Table::new(&[("run", "i"), ("check", "t"), ("ok", "b"), ("detail", "t")]);
    for part in &view.parts {
        let prefix = if view.parts.len() > 1 { format!("{}: ", part.name) } else { String::new() };
        match parts.runs.certificate(&part.name, None).await {
            Ok(certificate) => add_checks(&mut table, &certificate, &prefix),
            Err(problem) if problem.code == Code::NotFound => {}
            Err(problem) => return Err(problem),
        }
    }
    table.finish()
}

fn add_checks(table: &mut Table, certificate: &Certificate, prefix: &str) {
    let mut check = |name: String, ok: bool, detail: String| {
        table.int(certificate.run as i64).text(&format!("{prefix}{name}")).truth(ok).text(&detail);
    };
    for input in &certificate.inputs {
        let detail = format!(
            "[{}, {}): landed {} {}, folded {} {}",
            input.from, input.to, input.landed.records, input.landed.hash, input.folded.records, input.folded.hash
        );
        check(format!("input of partition {}", input.partition), input.equal, detail);
    }
    let ledger = &certificate.ledger;
    let classes = format!(
        "{} appended = {} counted + {} filtered + {} late, balance {}",
        ledger.appended, ledger.batch.counted, ledger.batch.filtered, ledger.batch.late, ledger.balance
    );
    check("ledger".into(), ledger.balance == 0, classes);
    if let Some(intake) = &ledger.intake {
        let counts = &intake.counts;
        let classes = format!(
            "{} received + {} replayed = {} accepted + {} duplicates + {} quarantined, balance {}; {} landed, {} in the log",
            counts.received,
            counts.replayed,
            counts.accepted,
            counts.duplicates,
            counts.quarantined,
            intake.balance,
            intake.landed,
            intake.tail
        );
        check("intake".into(), intake.balance == 0, classes);
    }
    let cells = &certificate.cells;
    let skipped = cells.skipped.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    check(
        "cells".into(),
        cells.differing == 0,
        format!("{} compared, {} differ{skipped}", cells.compared, cells.differing),
    );
    for sample in &cells.samples {
        let what = format!("differs in {}", sample.columns.join(", "));
        let record = sample.record.as_ref();
        let record = record.map(|r| format!(": record {}:{} is {}", r.partition, r.offset, r.what)).unwrap_or_default();
        check(format!("cell {}", sample.key.join(", ")), false, format!("{what}{record}"));
    }
    let oracle = &certificate.oracle;
    let skipped = oracle.skipped.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    check(
        "oracle".into(),
        oracle.differing == 0,
        format!("{} sampled, {} differ{skipped}", oracle.sampled, oracle.differing),
    );
    for explanation in &certificate.explanations {
        check(format!("explanation: {}", explanation.reason), true, format!("{} events", explanation.events));
    }
    for violation in &certificate.violations {
        check("violation".into(), false, violation.clone());
    }
    check("verdict".into(), certificate.violations.is_empty(), certificate.verdict.as_str().into());
}
