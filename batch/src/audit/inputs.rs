//! Coverage and inputs: both layers saw the same records, each once.

use std::fmt::Write as _;

use operators::evidence::find_position;
use schemas::documents::certificate::{Digest, InputCheck};
use schemas::position::assert_chain;
use schemas::{Cut, LedgerCounts, Offset, Partition};

use super::Auditor;

/// H1: the deltas are a chain from the base's cut to the run's cut. A gap or an overlap is named.
pub(super) fn check_coverage(auditor: &Auditor<'_>, violations: &mut Vec<String>) {
    if auditor.is_first_over_history() {
        if !auditor.cut.same_position(auditor.from) {
            violations.push(format!("coverage: the history ends at {}, the run at {}", auditor.from, auditor.cut));
        }
        return;
    }
    let chain = auditor.deltas.iter().map(|delta| (&delta.from, &delta.to));
    match assert_chain(auditor.base_cut(), chain) {
        Ok(end) if end.same_position(auditor.cut) => {}
        Ok(end) if end.is_at_most(auditor.cut) => violations.push(missing(&end, auditor.cut)),
        Ok(end) => violations.push(format!("coverage: the deltas end at {end}, beyond the run's cut {}", auditor.cut)),
        Err(broken) if broken.expected.is_at_most(&broken.found) => {
            violations.push(missing(&broken.expected, &broken.found));
        }
        Err(broken) => violations.push(format!(
            "coverage: a delta is there twice: the one that starts at {} overlaps those before it, which end at {}",
            broken.found, broken.expected
        )),
    }
}

fn missing(from: &Cut, to: &Cut) -> String {
    format!("coverage: a delta is missing: nothing covers {from} to {to}")
}

/// Per partition from the base's cut to the run's: what landed beside what speed folded.
pub(super) fn check_inputs(auditor: &Auditor<'_>, violations: &mut Vec<String>) -> Vec<InputCheck> {
    let mut inputs = Vec::new();
    for (partition, to) in auditor.cut.iter() {
        let from = auditor.base_cut().offset(partition);
        if from == to {
            continue;
        }
        let landed = ledger_of(auditor.since_base, partition);
        let folded = LedgerCounts::sum(auditor.deltas.iter().filter_map(|delta| delta.ledger.get(partition as usize)));
        let equal = landed.records == to.saturating_sub(from) && same_input(&landed, &folded);
        if !equal {
            violations.push(describe(partition, from..to, &landed, &folded));
        }
        inputs.push(InputCheck { partition, from, to, landed: digest(&landed), folded: digest(&folded), equal });
    }
    inputs
}

fn ledger_of(ledger: &[LedgerCounts], partition: Partition) -> LedgerCounts {
    ledger.get(partition as usize).copied().unwrap_or_default()
}

fn same_input(a: &LedgerCounts, b: &LedgerCounts) -> bool {
    (a.records, a.positions_hi, a.positions_lo) == (b.records, b.positions_hi, b.positions_lo)
}

fn digest(ledger: &LedgerCounts) -> Digest {
    Digest { records: ledger.records, hash: format!("{:016x}{:016x}", ledger.positions_hi, ledger.positions_lo) }
}

fn describe(
    partition: Partition,
    range: std::ops::Range<Offset>,
    landed: &LedgerCounts,
    folded: &LedgerCounts,
) -> String {
    let mut text = format!(
        "inputs: partition {partition}: offsets {} to {}: {} landed, {} folded",
        range.start, range.end, landed.records, folded.records
    );
    let (more, less, what) = if landed.records > folded.records {
        (landed, folded, "was not folded")
    } else {
        (folded, landed, "was folded once too often")
    };
    if more.records == less.records + 1 {
        let hi = more.positions_hi.wrapping_sub(less.positions_hi);
        let lo = more.positions_lo.wrapping_sub(less.positions_lo);
        if let Some(offset) = find_position(partition, 0..range.end, hi, lo) {
            let _ = write!(text, "; offset {offset} {what}");
        }
    }
    text
}
