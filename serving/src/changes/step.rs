//! What has to be looked at between a cursor and the newest snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use operators::View;
use operators::view::{StoredCells, Touched};
use schemas::documents::certificate::by_partition;
use schemas::documents::manifest::Manifest;
use schemas::limits::CHANGE_STEP_CELLS_MAX;
use schemas::{Cut, OutputMode, Problem, Verdict, ViewDef};
use storage::manifests::ManifestStore;
use storage::snapshot::{RangeStates, ViewSnapshot};

use super::past::{past, stored_ranges};
use super::shape::Key;
use super::{Cursor, FeedRequest, Published};
use crate::engine::QueryEngine;

/// Cells that are remembered from one step to the next, to tell which of an open range have changed.
const COUNTS_MAX: usize = 65_536;

/// One step from what a reader has to what there is.
#[derive(Debug)]
pub(super) struct Step {
    /// What the reader has, at its cursor or a little before it.
    pub(super) before: Arc<ViewSnapshot>,
    pub(super) after: Arc<ViewSnapshot>,
    /// True if `before` is exactly what the reader has: only then rows that are equal need not be sent.
    pub(super) is_known: bool,
    pub(super) cells: Looked,
}

/// What of the view is looked at.
#[derive(Debug)]
pub(super) enum Looked {
    /// No record has come in, and no value is another one.
    Nothing,
    /// These cells.
    Cells(Touched),
    /// All of them.
    Everything,
}

/// What a look at a view leads to.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing is new.
    Idle,
    /// The view has to be handed over as a whole, for this reason.
    Anew(String),
    /// This step.
    Step(Box<Step>),
}

/// Records of the cells of an open range, as the last step has seen them: where it begins, and by stored key.
#[derive(Debug, Default)]
pub(super) struct Counts(Option<(Cut, BTreeMap<Key, i64>)>);

/// Sequence of a snapshot's manifest.
pub(super) fn sequence(snapshot: &ViewSnapshot) -> u64 {
    snapshot.manifest.as_ref().map_or(0, |manifest| manifest.sequence)
}

/// The publication that a snapshot shows.
pub(super) fn published(manifest: &Manifest) -> Published {
    Published {
        run: manifest.run,
        verdict: manifest.verdict,
        cut: by_partition(&manifest.cut),
        rolled_back_from: manifest.rolled_back_from,
    }
}

/// Plans the step from a cursor to the newest snapshot; `held` is the snapshot of the cursor, if it is still there.
pub(super) async fn plan(
    engine: &QueryEngine,
    (def, view): (&ViewDef, &Arc<View>),
    (request, cursor): (&FeedRequest, &Cursor),
    held: Option<Arc<ViewSnapshot>>,
    after: &Arc<ViewSnapshot>,
    counts: &mut Counts,
) -> Result<Plan, Problem> {
    let is_published = sequence(after) != cursor.sequence;
    if !is_published && after.to.same_position(&cursor.to) {
        return Ok(Plan::Idle);
    }
    // a node that does not reach the owner of the stream knows less for a while
    if !cursor.to.is_at_most(&after.to) {
        return Ok(Plan::Idle);
    }
    let exact = held.filter(|held| held.to.same_position(&cursor.to) && sequence(held) == cursor.sequence);
    let is_held = exact.is_some();
    let differs = is_published && may_differ(engine, def, cursor, after).await?;
    let base = match exact {
        Some(held) => held,
        None if differs => match past(engine, def, cursor).await? {
            Some(past) => past,
            None => return Ok(Plan::Anew("what was there at the cursor is no longer kept".into())),
        },
        None => Arc::clone(after),
    };
    let before = if is_held { base } else { Arc::new(below(&base, &cursor.to)) };
    let is_known = before.to.same_position(&cursor.to) && (is_held || request.has_whole_steps);
    if !is_known && view.makes_sessions() {
        return Ok(Plan::Anew("sessions at the cursor are no longer known".into()));
    }
    let everything =
        |before| Plan::Step(Box::new(Step { before, after: Arc::clone(after), is_known, cells: Looked::Everything }));
    if differs {
        if !is_known {
            return Ok(Plan::Anew("a batch view with other values was published".into()));
        }
        return Ok(everything(before));
    }
    let Some(fresh) = fresh(engine, def, &cursor.to, after).await? else {
        return Ok(Plan::Anew("the deltas behind the cursor are no longer kept".into()));
    };
    if view.is_global() && !fresh.is_empty() {
        return Ok(everything(before));
    }
    // whether another cell was handed over as it is now is not known; it has not changed since it was final
    let only_late = request.mode == OutputMode::Append && !is_known;
    let rows: usize = fresh.iter().map(|range| range.cells()).sum();
    let cells =
        if rows > 4 * CHANGE_STEP_CELLS_MAX { None } else { looked(view, &fresh, (is_held, only_late), counts)? };
    Ok(match cells {
        Some(cells) => Plan::Step(Box::new(Step { before, after: Arc::clone(after), is_known, cells })),
        None if is_known => everything(before),
        None => Plan::Anew("more has changed since the cursor than is told one by one".into()),
    })
}

/// A snapshot with only the ranges that end at a position or before it.
fn below(snapshot: &ViewSnapshot, position: &Cut) -> ViewSnapshot {
    let ranges: Vec<Arc<RangeStates>> =
        snapshot.ranges.iter().take_while(|range| range.to.is_at_most(position)).cloned().collect();
    let to = ranges.last().map_or_else(|| snapshot.cut().clone(), |range| range.to.clone());
    ViewSnapshot { ranges, to, ..snapshot.clone() }
}

/// The ranges that reach beyond the cursor, up to the end; none if some of them are gone.
async fn fresh(
    engine: &QueryEngine,
    def: &ViewDef,
    cursor: &Cut,
    after: &ViewSnapshot,
) -> Result<Option<Vec<Arc<RangeStates>>>, Problem> {
    let beyond = |range: &&Arc<RangeStates>| !range.to.is_at_most(cursor);
    let mut ranges: Vec<Arc<RangeStates>> = after.ranges.iter().filter(beyond).cloned().collect();
    let first = ranges.first().map_or(&after.to, |range| &range.from);
    if first.is_at_most(cursor) {
        return Ok(Some(ranges));
    }
    // a batch view has taken the place of deltas that the reader has not seen
    let (stored, _) = stored_ranges(engine, def, &Cut::default()).await?;
    let hidden: Vec<Arc<RangeStates>> =
        stored.into_iter().filter(|range| !range.to.is_at_most(cursor) && range.to.is_at_most(after.cut())).collect();
    let begins = hidden.first().is_some_and(|range| range.from.is_at_most(cursor));
    let ends = hidden.last().is_some_and(|range| range.to.same_position(after.cut()));
    ranges.splice(0..0, hidden);
    Ok((begins && ends).then_some(ranges))
}

/// The cells of fresh ranges, without those that the last step has seen as they are; none if they are too many.
fn looked(
    view: &View,
    fresh: &[Arc<RangeStates>],
    (is_held, only_late): (bool, bool),
    counts: &mut Counts,
) -> Result<Option<Looked>, Problem> {
    let batches: Vec<RecordBatch> = fresh.iter().flat_map(|range| range.states.iter().cloned()).collect();
    let mut cells = view.stored_cells(&batches)?;
    let start = fresh.first().map(|range| range.from.clone());
    let seen = std::mem::take(counts);
    *counts = Counts::of(start.as_ref(), &cells);
    if let (true, Some(start), Some((at, seen))) = (is_held, &start, &seen.0)
        && at.same_position(start)
    {
        cells.retain(|key, cell| seen.get(key) != Some(&cell.records));
    }
    if only_late {
        cells.retain(|_, cell| cell.late > 0);
    }
    if cells.is_empty() {
        return Ok(Some(Looked::Nothing));
    }
    Ok(view.touched(&batches, &cells, CHANGE_STEP_CELLS_MAX)?.map(Looked::Cells))
}

impl Counts {
    fn of(start: Option<&Cut>, cells: &StoredCells) -> Self {
        let Some(start) = start.filter(|_| cells.len() <= COUNTS_MAX) else { return Self(None) };
        Self(Some((start.clone(), cells.iter().map(|(key, cell)| (key.into(), cell.records)).collect())))
    }
}

/// True if a batch view that was published since the cursor may have other values than what it took the place of.
pub(super) async fn may_differ(
    engine: &QueryEngine,
    def: &ViewDef,
    cursor: &Cursor,
    after: &ViewSnapshot,
) -> Result<bool, Problem> {
    let Some(current) = &after.manifest else { return Ok(true) };
    if current.sequence < cursor.sequence {
        return Ok(true);
    }
    let manifests = ManifestStore::new(engine.parts.store.clone()).list(def.id).await.map_err(|e| e.problem())?;
    let since: Vec<_> = manifests.into_iter().filter(|one| one.sequence > cursor.sequence).collect();
    let is_whole = since.first().is_some_and(|first| first.sequence == cursor.sequence + 1);
    if !is_whole {
        return Ok(true);
    }
    for manifest in since.iter().filter(|manifest| manifest.sequence <= current.sequence) {
        if manifest.rolled_back_from.is_some() || !same_values(engine, def, manifest).await {
            return Ok(true);
        }
    }
    Ok(false)
}

/// True if the certificate of a run says that no cell differs from what was there.
async fn same_values(engine: &QueryEngine, def: &ViewDef, manifest: &Manifest) -> bool {
    if !matches!(manifest.verdict, Verdict::Exact | Verdict::Explained) {
        return false;
    }
    let certificate = engine.parts.runs.certificate(&def.name, Some(manifest.run)).await;
    certificate.is_ok_and(|one| one.cells.differing == 0 && one.cells.skipped.is_none())
}
