//! The auditor: proves that a run equals what it replaces, or says where it does not (DESIGN §11).
//!
//! ```text
//!  coverage  the deltas are a chain from the base's cut to the run's cut            (H1)
//!  inputs    per partition: what landed = what speed folded, count and hash
//!  ledger    appended = counted + filtered + late; base ⊕ deltas = scan             (I11)
//!  cells     new = old ⊕ Σ deltas, byte for byte, every state column
//!  oracle    sampled cells by plain SQL with other code                             (`oracle`)
//! ```
//! Pure but for where the states come from: they are pulled in key order, a chunk at a time.

mod cells;
mod inputs;
mod intake;
mod name;
mod oracle;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use operators::View;
use schemas::documents::certificate::{CellCheck, Explanation, LedgerCheck, OracleCheck, by_partition};
use schemas::documents::manifest::Manifest;
use schemas::{Certificate, Cut, LedgerCounts, Problem, Verdict};
use storage::snapshot::RangeStates;
use uuid::Uuid;

pub use cells::Sorted;
pub use intake::add_intake;
pub use oracle::{Oracle, OracleInput, memory_source};

/// What is audited.
pub struct Auditor<'a> {
    /// The run.
    pub run: u64,
    /// The view's name.
    pub name: &'a str,
    /// The view's id.
    pub view_id: Uuid,
    /// The view.
    pub view: &'a Arc<View>,
    /// The batch view that the run replaces.
    pub base: Option<&'a Manifest>,
    /// Where the view's deltas begin when there is no base.
    pub from: &'a Cut,
    /// The run's cut.
    pub cut: &'a Cut,
    /// The deltas between the base's cut and the run's cut.
    pub deltas: &'a [Arc<RangeStates>],
    /// Per partition, everything below the cut, from the scan.
    pub scanned: &'a [LedgerCounts],
    /// The part of it from the base's cut on.
    pub since_base: &'a [LedgerCounts],
}

/// The ranges that lie between a base's cut and a run's: all of a snapshot's up to the one that ends there.
pub fn ranges_below(ranges: &[Arc<RangeStates>], cut: &Cut) -> Vec<Arc<RangeStates>> {
    ranges.iter().filter(|range| !cut.is_at_most(&range.from)).map(Arc::clone).collect()
}

impl Auditor<'_> {
    /// Where the base ends and the deltas begin.
    pub fn base_cut(&self) -> &Cut {
        self.base.map_or(self.from, |base| &base.cut)
    }

    /// True for the first run over the history before a view: there is nothing that it could be compared with.
    fn is_first_over_history(&self) -> bool {
        self.base.is_none() && self.from.total() > 0
    }

    /// Audits. `new` and `old` give the states of the new and of the replaced batch view in key
    /// order. The oracle's check and the list of late events are the caller's: see [`conclude`].
    ///
    /// # Errors
    /// States cannot be read or merged. Whatever is *wrong* is in the certificate instead.
    pub fn audit(&self, new: Sorted<'_>, old: Sorted<'_>) -> Result<Certificate, Problem> {
        let mut violations = Vec::new();
        inputs::check_coverage(self, &mut violations);
        let inputs = inputs::check_inputs(self, &mut violations);
        let ledger = self.check_ledger(&mut violations);
        let cells = if self.is_first_over_history() {
            // the caller samples cells for the oracle as they go by: it is all that checks this run
            while new()?.is_some() {}
            let skipped = "the first run over the history before the view: there is nothing to compare it with";
            CellCheck { compared: 0, differing: 0, samples: vec![], skipped: Some(skipped.into()) }
        } else {
            cells::Comparison::new(self)?.run(new, old)?
        };
        name::describe_cells(&cells, &mut violations);
        Ok(Certificate {
            format: 1,
            run: self.run,
            view: self.name.into(),
            view_id: self.view_id,
            semantic_hash: self.view.semantic_hash().into(),
            verdict: Verdict::Exact,
            base_run: self.base.map(|base| base.run),
            base_cut: by_partition(self.base_cut()),
            cut: by_partition(self.cut),
            inputs,
            ledger,
            cells,
            oracle: not_sampled("not asked"),
            explanations: vec![],
            violations,
            created_at_us: 0,
            audit_ms: 0,
        })
    }

    fn check_ledger(&self, violations: &mut Vec<String>) -> LedgerCheck {
        let batch = LedgerCounts::sum(self.scanned);
        let appended = self.cut.total();
        let classes = i128::from(batch.counted) + i128::from(batch.filtered) + i128::from(batch.late);
        let balance = i64::try_from(i128::from(appended) - classes).unwrap_or(i64::MAX);
        if balance != 0 || batch.balance() != 0 {
            violations.push(format!(
                "ledger: {appended} records below the cut, {} counted, {} filtered, {} late: {balance} are in no class",
                batch.counted, batch.filtered, batch.late
            ));
        }
        let speed = (!self.is_first_over_history()).then(|| self.speed_ledger());
        if let Some(speed) = speed.filter(|speed| *speed != batch) {
            violations.push(format!("ledger: batch has {}, speed has {}", classes_of(&batch), classes_of(&speed)));
        }
        LedgerCheck { appended, batch, speed, balance, intake: None }
    }

    /// The base's ledger and the deltas'.
    fn speed_ledger(&self) -> LedgerCounts {
        let base = self.base.map(|base| LedgerCounts::sum(&base.ledger)).unwrap_or_default();
        let deltas = LedgerCounts::sum(self.deltas.iter().flat_map(|delta| &delta.ledger));
        LedgerCounts::sum([&base, &deltas])
    }
}

fn classes_of(ledger: &LedgerCounts) -> String {
    let LedgerCounts { records, counted, filtered, late, positions_hi, positions_lo } = ledger;
    format!(
        "{records} records ({counted} counted, {filtered} filtered, {late} late, positions {positions_hi:016x}{positions_lo:016x})"
    )
}

/// An oracle check that looked at nothing, with the reason.
pub fn not_sampled(reason: impl Into<String>) -> OracleCheck {
    OracleCheck { sampled: 0, differing: 0, skipped: Some(reason.into()), samples: vec![] }
}

/// Completes a certificate: the oracle's check, the events that were left out, the verdict.
pub fn conclude(certificate: &mut Certificate, oracle: OracleCheck, late_list: Option<String>) {
    if oracle.differing > 0 {
        let first = oracle.samples.first().map_or("", String::as_str);
        certificate
            .violations
            .push(format!("oracle: {} of {} sampled cells differ: {first}", oracle.differing, oracle.sampled));
    }
    certificate.oracle = oracle;
    let late = certificate.ledger.batch.late;
    if late > 0 {
        certificate.explanations.push(Explanation { reason: "late".into(), events: late, list: late_list });
    }
    certificate.verdict = if !certificate.violations.is_empty() {
        Verdict::Violation
    } else if certificate.explanations.is_empty() {
        Verdict::Exact
    } else {
        Verdict::Explained
    };
}

/// States in memory as a sorted source: they are sorted already.
pub fn in_memory(states: Vec<RecordBatch>) -> impl FnMut() -> Result<Option<RecordBatch>, Problem> {
    let mut states = states.into_iter();
    move || Ok(states.next())
}
