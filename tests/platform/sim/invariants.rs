//! The invariants of the platform, one function each. What needs a memory is in [`Checker`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemas::documents::delta::DeltaHeader;
use schemas::freshness::ViewFreshness;
use schemas::{Cut, PositionToken, ViewDef};
use uuid::Uuid;

use super::seen::Seen;
use super::truth::Truth;
use super::world::{State, Violation, Written};

type Checked = Result<(), Violation>;

/// A view, a range of its records, and the version of its definition.
type Part = (Uuid, Vec<u64>, Vec<u64>, String);

/// What earlier looks have seen.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// By view, range and version: the digest of the states, and who wrote them.
    contents: BTreeMap<Part, (u64, String)>,
    fences: BTreeMap<String, u64>,
    /// By view: the last publication that was seen.
    published: BTreeMap<Uuid, (u64, Cut)>,
    /// By view and run: its cut.
    pub(crate) runs: BTreeMap<(Uuid, u64), Cut>,
}

impl Checker {
    /// Checks everything that can be seen from outside.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub(crate) fn check(&mut self, state: &mut State, truth: &Truth, acknowledged: &BTreeSet<String>) -> Checked {
        let (crossings, written) = (std::mem::take(&mut state.crossings), std::mem::take(&mut state.deltas));
        let seen = Seen::of(state);
        i1_ranges_are_a_chain_from_the_cut(&seen)?;
        i2_no_two_deltas_overlap(&seen)?;
        i3_no_merge_crosses_a_barrier(&crossings, &seen)?;
        i4_documents_are_immutable_and_name_what_is_there(&state.overwritten, &seen)?;
        self.i5_a_range_has_one_content(&written)?;
        i8_every_publication_has_a_certificate(&seen)?;
        self.i9_fences_only_grow(&seen)?;
        self.i10_cuts_never_move_back(&seen)?;
        i11_acknowledged_events_are_in_the_log(truth, acknowledged)
    }

    /// I5: the same range and version give the same bytes, whoever computes them.
    fn i5_a_range_has_one_content(&mut self, written: &[Written]) -> Checked {
        for Written { path, parts } in written {
            for (view, from, to, version, digest) in parts {
                let key = (*view, exact(from), exact(to), version.clone());
                let known = self.contents.entry(key).or_insert_with(|| (*digest, path.clone()));
                if known.0 != *digest {
                    let what = format!("view {view} from {from} to {to}: {} and {path} differ", known.1);
                    return Err(Violation::new("I5 a range has one content", what));
                }
            }
        }
        Ok(())
    }

    /// I9: numbers that fence somebody off never become smaller.
    fn i9_fences_only_grow(&mut self, seen: &Seen) -> Checked {
        let mut now = vec![("owner".to_owned(), seen.owner), ("catalogue".to_owned(), seen.catalog.sequence)];
        now.extend(seen.deltas.keys().map(|(_, last)| last + 1).max().map(|next| ("checkpoint".to_owned(), next)));
        for view in &seen.catalog.views {
            now.extend(seen.current(view.id).map(|manifest| (format!("manifest of {}", view.id), manifest.sequence)));
        }
        now.extend(seen.landed.iter().map(|(partition, end)| (format!("landed of partition {partition}"), end)));
        now.extend(seen.head.iter().map(|(partition, end)| (format!("log of partition {partition}"), end)));
        for (fence, value) in now {
            let before = self.fences.insert(fence.clone(), value).unwrap_or_default();
            if value < before {
                return Err(Violation::new("I9 a fence only grows", format!("{fence}: {before}, then {value}")));
            }
        }
        Ok(())
    }

    /// I10: a view's cut never moves back, except by a recorded rollback.
    fn i10_cuts_never_move_back(&mut self, seen: &Seen) -> Checked {
        for (view, manifests) in &seen.manifests {
            for manifest in manifests {
                let known = self.published.entry(*view).or_insert_with(|| (0, Cut::default()));
                if manifest.sequence <= known.0 {
                    continue;
                }
                if manifest.rolled_back_from.is_none() && !known.1.is_at_most(&manifest.cut) {
                    let what = format!("view {view}: run {} at {} after {}", manifest.run, manifest.cut, known.1);
                    return Err(Violation::new("I10 a cut never moves back", what));
                }
                *known = (manifest.sequence, manifest.cut.clone());
                self.runs.insert((*view, manifest.run), manifest.cut.clone());
            }
        }
        Ok(())
    }

    /// I7: what an answer says that it was made from is a chain that begins at a published cut.
    ///
    /// # Errors
    /// It is not, or lacks what was asked for.
    pub(crate) fn i7_coverage_of_answers(
        &self,
        told: &ViewFreshness,
        at_least: Option<&str>,
        truth: &Truth,
    ) -> Checked {
        let broken = |what: String| Err(Violation::new("I7 coverage of every answer", format!("{told:?}: {what}")));
        let cut = told.batch.as_ref().map(|batch| Cut(batch.cut.values().copied().collect()));
        if let (Some(batch), Some(cut)) = (&told.batch, &cut)
            && !self.runs.iter().any(|((_, run), known)| *run == batch.run && known.same_position(cut))
        {
            return broken(format!("run {} was not published at that cut", batch.run));
        }
        let Some(speed) = &told.speed else { return Ok(()) };
        let (from, to) = (Cut(speed.from.values().copied().collect()), Cut(speed.to.values().copied().collect()));
        // `speed.v` alone has no batch side to compare with
        if cut.as_ref().is_some_and(|cut| !cut.same_position(&from)) {
            return broken("the speed side does not begin at the cut".into());
        }
        if !from.is_at_most(&to) || !to.is_at_most(&truth.end()) {
            return broken(format!("the log ends at {}", truth.end()));
        }
        let wanted = at_least.map(|token| token.parse::<PositionToken>().expect("a token of the platform").cut);
        if wanted.as_ref().is_some_and(|wanted| !wanted.is_at_most(&to)) {
            return broken(format!("asked for at least {wanted:?}"));
        }
        Ok(())
    }
}

/// A cut by its position.
fn exact(cut: &Cut) -> Vec<u64> {
    let mut offsets = cut.0.clone();
    while offsets.last() == Some(&0) {
        offsets.pop();
    }
    offsets
}

/// I1: per partition the deltas are a chain from the cut on, which ends at most at the head; what is published
/// has landed.
fn i1_ranges_are_a_chain_from_the_cut(seen: &Seen) -> Checked {
    let broken = |what: String| Err(Violation::new("I1 ranges are a chain from the cut", what));
    let chain = seen.chain();
    for pair in chain.windows(2) {
        if !pair[0].to.same_position(&pair[1].from) {
            let name = |delta: &DeltaHeader| format!("{}-{}", delta.first_checkpoint, delta.last_checkpoint);
            let what =
                format!("{} ends at {}, {} begins at {}", name(pair[0]), pair[0].to, name(pair[1]), pair[1].from);
            return broken(what);
        }
    }
    if let (Some(last), Some((_, newest))) = (chain.last(), seen.deltas.keys().max_by_key(|(_, last)| *last))
        && last.last_checkpoint != *newest
    {
        return broken(format!("nothing leads from checkpoint {} to {newest}", last.last_checkpoint));
    }
    if let Some(last) = chain.last().filter(|last| !last.to.is_at_most(&seen.head)) {
        return broken(format!("the deltas end at {}, the log at {}", last.to, seen.head));
    }
    for view in &seen.catalog.views {
        let Some(manifest) = seen.current(view.id) else { continue };
        if !manifest.cut.is_at_most(&seen.landed) {
            return broken(format!("{}: published at {}, landed up to {}", view.name, manifest.cut, seen.landed));
        }
        view_continues_at(&chain, view, &manifest.cut, seen)?;
    }
    Ok(())
}

/// The deltas of a view have a boundary at its cut, and go on from there without a gap.
fn view_continues_at(chain: &[&DeltaHeader], view: &ViewDef, cut: &Cut, seen: &Seen) -> Checked {
    let broken =
        |what: String| Err(Violation::new("I1 ranges are a chain from the cut", format!("{}: {what}", view.name)));
    if !cut.is_at_most(&seen.head) {
        return broken(format!("published at {cut}, the log ends at {}", seen.head));
    }
    let Some(last) = chain.last() else { return Ok(()) };
    // what lies before a view has its end where the view was made, be it in a delta or not yet
    if !cut.is_at_most(&last.to) && !cut.same_position(&view.from) {
        return broken(format!("published at {cut}, the deltas end at {}", last.to));
    }
    let mut next = cut.join(&view.from);
    for delta in chain {
        if delta.to.is_at_most(&next) {
            continue;
        }
        let Some(part) = delta.views.iter().find(|part| part.view == view.id) else { continue };
        if !part.from.same_position(&next) {
            return broken(format!("{} follows {next}: a gap, or a cut that is no boundary", part.from));
        }
        next = delta.to.clone();
    }
    Ok(())
}

/// I2: of two committed deltas one holds the other (a merge whose parts are still there), or they are apart.
fn i2_no_two_deltas_overlap(seen: &Seen) -> Checked {
    let all: Vec<(&(u64, u64), &DeltaHeader)> = seen.deltas.iter().collect();
    for (at, (a, left)) in all.iter().enumerate() {
        for (b, right) in &all[at + 1..] {
            let is_apart = a.1 < b.0 && left.to.is_at_most(&right.from);
            let holds = |outer: &DeltaHeader, inner: &DeltaHeader| {
                outer.first_checkpoint <= inner.first_checkpoint
                    && inner.last_checkpoint <= outer.last_checkpoint
                    && outer.from.is_at_most(&inner.from)
                    && inner.to.is_at_most(&outer.to)
            };
            if !is_apart && !holds(left, right) && !holds(right, left) {
                let what =
                    format!("{a:?} from {} to {}, {b:?} from {} to {}", left.from, left.to, right.from, right.to);
                return Err(Violation::new("I2 no two deltas overlap", what));
            }
        }
    }
    Ok(())
}

/// I3: no merge of deltas crosses the cut of a run that is under way, or of the current batch view.
fn i3_no_merge_crosses_a_barrier(crossings: &[String], seen: &Seen) -> Checked {
    let broken = |what: String| Err(Violation::new("I3 no merge crosses a barrier", what));
    if let Some(crossing) = crossings.first() {
        return broken(crossing.clone());
    }
    let merged = seen.deltas.values().filter(|delta| delta.first_checkpoint < delta.last_checkpoint);
    for delta in merged {
        for manifest in seen.catalog.views.iter().filter_map(|view| seen.current(view.id)) {
            let cut = &manifest.cut;
            let is_inside = delta.from.is_at_most(cut) && cut.is_at_most(&delta.to);
            let part = delta.views.iter().find(|part| part.view == manifest.view);
            let is_boundary = cut.same_position(&delta.from)
                || cut.same_position(&delta.to)
                || part.is_some_and(|part| cut.is_at_most(&part.from));
            if is_inside && !is_boundary {
                let name = (delta.first_checkpoint, delta.last_checkpoint);
                return broken(format!("{name:?} from {} to {} crosses {cut}", delta.from, delta.to));
            }
        }
    }
    Ok(())
}

/// I4: what is written once is never written again, and a manifest names only files that exist.
fn i4_documents_are_immutable_and_name_what_is_there(overwritten: &[String], seen: &Seen) -> Checked {
    let broken = |what: String| Err(Violation::new("I4 manifests are immutable and name what exists", what));
    let is_immutable = |path: &&String| {
        let folders = ["catalog/", "owners/", "deltas/"];
        folders.iter().any(|folder| path.starts_with(folder))
            || path.contains("/manifests/")
            || (path.contains("/_delta_log/")
                && Path::new(path).extension().is_some_and(|extension| extension == "json"))
    };
    if let Some(path) = overwritten.iter().find(is_immutable) {
        return broken(format!("{path} was written again"));
    }
    for view in &seen.catalog.views {
        for manifest in seen.manifests.get(&view.id).into_iter().flatten() {
            if let Some(file) = manifest.files.iter().find(|file| !seen.paths.contains(&file.path)) {
                return broken(format!("manifest {} of {} names {}", manifest.sequence, view.name, file.path));
            }
        }
    }
    Ok(())
}

/// I6: the counts of an unfiltered view add up to the records of its range in the ledger.
///
/// # Errors
/// They do not.
pub(crate) fn i6_counts_add_up(rows: &[Vec<String>], records: u64) -> Checked {
    let counted: u64 = rows.iter().filter_map(|row| row[1].parse::<u64>().ok()).sum();
    if counted == records {
        return Ok(());
    }
    Err(Violation::new("I6 the counts add up to the ledger", format!("{counted} counted, {records} records")))
}

/// I8: every published run has a certificate, and not of a violation.
fn i8_every_publication_has_a_certificate(seen: &Seen) -> Checked {
    for view in &seen.catalog.views {
        for manifest in seen.manifests.get(&view.id).into_iter().flatten() {
            let verdict = seen.certificates.get(&(view.id, manifest.run));
            if verdict.is_none_or(|verdict| verdict == "violation") {
                let what = format!("run {} of {}: {verdict:?}", manifest.run, view.name);
                return Err(Violation::new("I8 every published run has a certificate", what));
            }
        }
    }
    Ok(())
}

/// I11, for what is accepted: it is in the log, where the truth has it once.
fn i11_acknowledged_events_are_in_the_log(truth: &Truth, acknowledged: &BTreeSet<String>) -> Checked {
    match acknowledged.iter().find(|id| !truth.has(id)) {
        Some(id) => {
            let what = format!("{id} was acknowledged and is not in the log");
            Err(Violation::new("I11 every acknowledged event is in one class", what))
        }
        None => Ok(()),
    }
}

/// I11, for all classes: the ledger balances in every row.
///
/// # Errors
/// It does not.
pub(crate) fn i11_ledger_balances(rows: &[Vec<String>]) -> Checked {
    match rows.iter().find(|row| row.last().is_none_or(|balance| balance != "0")) {
        Some(row) => Err(Violation::new("I11 every acknowledged event is in one class", format!("ledger: {row:?}"))),
        None => Ok(()),
    }
}

/// The master, at the end: every record once, up to where its transactions say.
///
/// # Errors
/// A gap, or records twice.
pub(crate) fn master_has_each_record_once(seen: &Seen) -> Checked {
    let mut files = seen.files.clone();
    files.sort_unstable();
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for (partition, from, records) in files {
        let end = next.entry(partition).or_default();
        if *end != from {
            let what = format!("partition {partition}: {from} follows {end}");
            return Err(Violation::new("the master has each record once", what));
        }
        *end = from + records;
    }
    let end = Cut((0..seen.landed.0.len() as u32).map(|p| next.get(&p).copied().unwrap_or(0)).collect());
    if end.same_position(&seen.landed) {
        return Ok(());
    }
    Err(Violation::new("the master has each record once", format!("files end at {end}, landed is {}", seen.landed)))
}
