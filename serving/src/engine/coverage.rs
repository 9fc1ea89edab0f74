//! One snapshot per stream, its coverage asserted (H1, I7), and the freshness block that follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::sum;
use arrow::datatypes::Int64Type;
use operators::{Frontier, View};
use parking_lot::Mutex;
use schemas::documents::certificate::by_partition;
use schemas::documents::manifest::Manifest;
use schemas::documents::run::RunState;
use schemas::freshness::{BatchFreshness, Freshness, HoleFreshness, SourceFreshness, SpeedFreshness, ViewFreshness};
use schemas::{Catalog, Code, Cut, PositionToken, Problem, StreamDef, ViewDef};
use storage::layers::SourceStatus;
use storage::snapshot::{RangeStates, StreamSnapshot, ViewSnapshot};
use uuid::Uuid;

use super::NamedView;
use crate::parts::Parts;
use crate::source::Layer;
use crate::times::rfc3339;

/// A view as one query reads it.
#[derive(Debug, Clone)]
pub(crate) struct Covered {
    pub(crate) def: ViewDef,
    pub(crate) view: Arc<View>,
    pub(crate) layer: Layer,
    pub(crate) snapshot: Arc<ViewSnapshot>,
    pub(crate) stream: Arc<StreamSnapshot>,
    pub(crate) watermark_delay_us: i64,
    /// When the snapshot was asked for: everything acknowledged by then is in it, but for its lag.
    pub(crate) asked_at_us: i64,
}

impl Covered {
    /// How far the answer goes.
    pub(crate) fn frontier(&self) -> Frontier {
        let ends = self.stream.to.iter().map(|(_, end)| end).collect();
        Frontier { watermark_us: self.stream.watermark_us(self.watermark_delay_us), ends }
    }

    /// How far an answer made of all of these goes: windows by the event time are final where they are in each of them.
    pub(crate) fn frontier_of(parts: &[Self]) -> Frontier {
        match parts {
            [one] => one.frontier(),
            several => {
                let watermarks = several.iter().map(|one| one.frontier().watermark_us);
                // none is the least: a stream without an event closes nothing
                Frontier { watermark_us: watermarks.min().flatten(), ends: vec![] }
            }
        }
    }
}

/// The snapshots of one query: one per stream, so that all views of a stream are at the same position.
#[derive(Debug)]
pub(crate) struct Snapshots<'a> {
    parts: &'a Parts,
    catalog: &'a Catalog,
    at_least: BTreeMap<Uuid, Cut>,
    timeout: Duration,
    taken: BTreeMap<Uuid, (Arc<StreamSnapshot>, i64)>,
}

impl<'a> Snapshots<'a> {
    /// No snapshot is taken yet.
    ///
    /// # Errors
    /// `bad_request` for a position of a log that is not there (any more).
    pub(crate) fn new(
        parts: &'a Parts,
        catalog: &'a Catalog,
        tokens: &[PositionToken],
        timeout: Duration,
    ) -> Result<Self, Problem> {
        let mut at_least: BTreeMap<Uuid, Cut> = BTreeMap::new();
        for token in tokens {
            let stream = catalog.streams.iter().find(|stream| stream.incarnation == token.incarnation);
            let Some(stream) = stream else {
                let what = format!("at_least: no stream has the position {token}");
                return Err(Problem::new(Code::BadRequest, what).with_hint("its log was dropped or made anew since"));
            };
            let cut = at_least.entry(stream.id).or_default();
            *cut = cut.join(&token.cut);
        }
        Ok(Self { parts, catalog, at_least, timeout, taken: BTreeMap::new() })
    }

    /// The snapshot of a stream: taken once.
    pub(crate) async fn of(&mut self, stream: &StreamDef) -> Result<Arc<StreamSnapshot>, Problem> {
        Ok(self.taken(stream).await?.0)
    }

    /// The snapshot of a stream, and when it was asked for.
    async fn taken(&mut self, stream: &StreamDef) -> Result<(Arc<StreamSnapshot>, i64), Problem> {
        if let Some(taken) = self.taken.get(&stream.id) {
            return Ok(taken.clone());
        }
        let asked_at_us = self.parts.clock.now_us();
        let at_least = self.at_least.get(&stream.id);
        let snapshot = self.parts.snapshots.snapshot(stream.id, at_least, self.timeout).await?;
        if let Some(wanted) = at_least.filter(|wanted| !wanted.is_at_most(&snapshot.to)) {
            return Err(Problem::new(Code::Stale, format!("at_least: {wanted} is not reached, only {}", snapshot.to)));
        }
        self.taken.insert(stream.id, (Arc::clone(&snapshot), asked_at_us));
        Ok((snapshot, asked_at_us))
    }

    /// Holds the batch sides to the positions that were asked for: what only they answer ends at their cut.
    ///
    /// # Errors
    /// `stale` where a view's batch side is read without its speed side, and its cut is below.
    pub(crate) fn assert_reached(&self, covered: &[Covered]) -> Result<(), Problem> {
        let with_speed = |def: &ViewDef| covered.iter().any(|one| one.def.id == def.id && one.layer.reads_speed());
        for one in covered.iter().filter(|one| !with_speed(&one.def)) {
            let Some(wanted) = self.at_least.get(&one.def.stream) else { continue };
            let cut = one.snapshot.manifest.as_ref().map(|manifest| manifest.cut.clone()).unwrap_or_default();
            if !wanted.is_at_most(&cut) {
                let name = &one.def.name;
                let what = format!("at_least: {wanted} is not in the published batch view of {name}, only {cut}");
                let hint = format!("read {name} itself, or REFRESH MATERIALIZED VIEW {name}");
                return Err(Problem::new(Code::Stale, what).with_hint(hint));
            }
        }
        Ok(())
    }

    /// All parts of a view, at least one, each ready to be read, whose states can be merged with each other's.
    ///
    /// # Errors
    /// As [`Snapshots::view`], for each of them.
    pub(crate) async fn parts(&mut self, named: &NamedView, layer: Layer) -> Result<Vec<Covered>, Problem> {
        let mut parts: Vec<Covered> = vec![];
        for def in &named.parts {
            parts.push(self.view(def, layer).await?);
        }
        let internal = |what: &str| Problem::new(Code::Internal, format!("view {}: {what}", named.name));
        let first = parts.first().ok_or_else(|| internal("it has no parts"))?;
        if parts.iter().any(|part| !part.view.merges_with(&first.view)) {
            return Err(internal("its parts have states of different meanings"));
        }
        Ok(parts)
    }

    /// A view, ready to be read: compiled, covered without a hole, with its history.
    ///
    /// # Errors
    /// `not_ready` while its history is computed; `internal` for a broken invariant.
    pub(crate) async fn view(&mut self, def: &ViewDef, layer: Layer) -> Result<Covered, Problem> {
        let Some(stream_def) = self.catalog.stream_by_id(def.stream) else {
            return Err(Problem::new(Code::Internal, format!("view {}: its stream is gone", def.name)));
        };
        let starting = || Problem::new(Code::NotReady, format!("view {} is being set up", def.name));
        let view = self.parts.views.view(def.id).ok_or_else(starting)?;
        let (stream, asked_at_us) = self.taken(stream_def).await?;
        let snapshot = Arc::clone(stream.views.get(&def.id).ok_or_else(starting)?);
        check(def, &view, &snapshot)?;
        if layer.reads_batch() && !snapshot.has_history() {
            return Err(not_ready(self.parts, def).await);
        }
        let watermark_delay_us = stream_def.watermark_delay_us;
        Ok(Covered { def: def.clone(), view, layer, snapshot, stream, watermark_delay_us, asked_at_us })
    }
}

/// H1, I7, and that only states of this meaning are merged (DESIGN §5.5).
fn check(def: &ViewDef, view: &View, snapshot: &ViewSnapshot) -> Result<(), Problem> {
    let internal = |what: String| Problem::new(Code::Internal, format!("view {}: {what}", def.name));
    if let Some(failed) = &snapshot.failed {
        let what = format!("view {}: a record's value cannot be computed: {}", def.name, failed.detail);
        return Err(
            Problem::new(failed.code, what).with_hint("DROP the view and create it with an expression that bears it")
        );
    }
    snapshot.assert_coverage().map_err(|broken| internal(broken.to_string()))?;
    let batch = snapshot.manifest.as_ref().map(|manifest| &manifest.semantic_hash);
    for hash in batch.into_iter().chain([&snapshot.semantic_hash]) {
        if hash != view.semantic_hash() {
            return Err(internal(format!("states of {hash} where {} is compiled", view.semantic_hash())));
        }
    }
    Ok(())
}

/// Says how far the first run over the view's history is.
async fn not_ready(parts: &Parts, def: &ViewDef) -> Problem {
    let newest = parts.runs.runs(Some(&def.name), 1).await.ok().and_then(|runs| runs.into_iter().next());
    let progress = match newest {
        Some(run) if run.state == RunState::Running && run.rows_total > 0 => {
            let percent = 100.0 * run.rows as f64 / run.rows_total as f64;
            format!("run {} has read {} of {} records ({percent:.0} %)", run.id, run.rows, run.rows_total)
        }
        Some(run) if !run.state.is_final() => format!("run {} is about to start", run.id),
        Some(run) => {
            let why = run.error.map(|error| format!(": {error}")).unwrap_or_default();
            format!("run {} did not publish it{why}", run.id)
        }
        None => "no run has begun".to_owned(),
    };
    let what = format!("view {} does not have its history yet: {progress}", def.name);
    Problem::new(Code::NotReady, what).with_hint(format!("try again, or REFRESH MATERIALIZED VIEW {}", def.name))
}

/// How old the oldest acknowledged record is that an answer from this snapshot does not have.
pub(crate) fn lag_us(snapshot: &StreamSnapshot, now_us: i64) -> i64 {
    snapshot.oldest_missing_us.map_or(0, |oldest| (now_us - oldest).max(0))
}

/// An upper bound of the age of what a view's answer lacks: for `batch.v` everything after its cut
/// counts as missing, and nothing of that is older than the start of the run that made it.
async fn staleness_us(parts: &Parts, covered: &Covered, now_us: i64) -> i64 {
    let lag = lag_us(&covered.stream, now_us);
    let Some(manifest) = covered.snapshot.manifest.as_ref().filter(|_| !covered.layer.reads_speed()) else {
        return lag;
    };
    if manifest.cut.same_position(&covered.snapshot.to) {
        return lag;
    }
    lag.max(now_us - began_us(parts, manifest).await)
}

/// When the run began that made a batch view; without its document, when the view was published.
async fn began_us(parts: &Parts, manifest: &Manifest) -> i64 {
    match parts.runs.run(manifest.run, None).await {
        Ok(run) => run.started_at_us.unwrap_or(run.queued_at_us),
        Err(_) => manifest.published_at_us,
    }
}

/// Everything acknowledged by then is in what was read of a view.
async fn as_of_us(parts: &Parts, one: &Covered) -> i64 {
    let as_of = one.asked_at_us - lag_us(&one.stream, one.asked_at_us);
    match one.snapshot.manifest.as_ref().filter(|_| !one.layer.reads_speed()) {
        Some(manifest) => as_of.min(began_us(parts, manifest).await),
        None => as_of,
    }
}

/// Holds an answer to `max_staleness`.
///
/// # Errors
/// `stale` with the real lag.
pub(crate) async fn assert_fresh(parts: &Parts, covered: &[Covered], bound: Option<Duration>) -> Result<(), Problem> {
    let Some(bound) = bound else { return Ok(()) };
    for one in covered {
        let staleness_ms = staleness_us(parts, one, parts.clock.now_us()).await / 1_000;
        if staleness_ms > i64::try_from(bound.as_millis()).unwrap_or(i64::MAX) {
            let name = &one.def.name;
            let what = format!("view {name} is {staleness_ms} ms behind, max_staleness is {} ms", bound.as_millis());
            return Err(Problem::new(Code::Stale, what));
        }
    }
    Ok(())
}

/// Late events of a range, by range: counted once, as ranges are immutable.
#[derive(Debug, Default)]
pub(crate) struct LateCounts(Mutex<BTreeMap<usize, (Weak<RangeStates>, u64)>>);

/// Ranges remembered before forgotten ones are swept out.
const LATE_COUNTS_MAX: usize = 4_096;

impl LateCounts {
    fn of(&self, view: &View, range: &Arc<RangeStates>) -> u64 {
        let key = Arc::as_ptr(range) as usize;
        if let Some((known, late)) = self.0.lock().get(&key)
            && known.upgrade().is_some_and(|known| Arc::ptr_eq(&known, range))
        {
            return *late;
        }
        let late = late_of(view, range);
        let mut counts = self.0.lock();
        if counts.len() >= LATE_COUNTS_MAX {
            counts.retain(|_, (range, _)| range.strong_count() > 0);
        }
        counts.insert(key, (Arc::downgrade(range), late));
        late
    }
}

/// Late events left out, and late events folded into their cells.
fn late_of(view: &View, range: &RangeStates) -> u64 {
    let dropped: u64 = range.ledger.iter().map(|ledger| ledger.late).sum();
    let folded = view.state_schema().index_of(operators::evidence::LATE).map_or(0, |column| {
        let counts = range.states.iter().map(|states| states.column(column).as_primitive_opt::<Int64Type>());
        counts.flatten().filter_map(sum).sum::<i64>()
    });
    dropped + u64::try_from(folded).unwrap_or(0)
}

/// The freshness block of an answer made from these views.
pub(crate) async fn freshness(parts: &Parts, covered: &[Covered], late: &LateCounts) -> Freshness {
    let now_us = parts.clock.now_us();
    let mut as_of = now_us;
    for one in covered {
        as_of = as_of.min(as_of_us(parts, one).await);
    }
    let mut views: Vec<ViewFreshness> = vec![];
    for one in covered {
        let batch = one.layer.reads_batch().then(|| batch_side(&one.snapshot)).flatten();
        let speed = one.layer.reads_speed().then(|| speed_side(one, late, now_us));
        match views.iter_mut().find(|known| known.view == one.def.name) {
            Some(known) => {
                known.batch = known.batch.take().or(batch);
                known.speed = known.speed.take().or(speed);
            }
            None => views.push(ViewFreshness { view: one.def.name.clone(), version: one.def.version, batch, speed }),
        }
    }
    let (sources, holes) = sources(parts, covered);
    let is_tail_known = !covered.iter().any(|one| one.layer.reads_speed() && one.stream.tail_unknown);
    Freshness { as_of: rfc3339(as_of), complete: holes.is_empty() && is_tail_known, views, holes, sources }
}

/// The topics that the views' streams are read from, and what of them is lost for ever.
fn sources(parts: &Parts, covered: &[Covered]) -> (Vec<SourceFreshness>, Vec<HoleFreshness>) {
    let (mut sources, mut holes) = (vec![], vec![]);
    let streams: BTreeSet<Uuid> = covered.iter().map(|one| one.def.stream).collect();
    let catalog = parts.catalogs.current();
    for (id, status) in streams.into_iter().filter_map(|id| Some((id, parts.logs.source(id)?))) {
        let stream = catalog.stream_by_id(id).map(|stream| stream.name.clone()).unwrap_or_default();
        holes.extend(status.holes.iter().map(|hole| HoleFreshness {
            stream: stream.clone(),
            topic: status.topic.clone(),
            topic_id: hole.topic_id.to_string(),
            partition: hole.partition,
            from: hole.from,
            to: hole.to,
            reason: hole.reason.as_str().to_owned(),
        }));
        let SourceStatus { topic, lag_records, problem, .. } = status;
        sources.push(SourceFreshness { stream, topic, lag_records, problem });
    }
    (sources, holes)
}

fn batch_side(snapshot: &ViewSnapshot) -> Option<BatchFreshness> {
    snapshot.manifest.as_ref().map(|manifest| BatchFreshness {
        run: manifest.run,
        published_at: rfc3339(manifest.published_at_us),
        cut: by_partition(&manifest.cut),
        certificate: manifest.verdict,
    })
}

fn speed_side(one: &Covered, late: &LateCounts, now_us: i64) -> SpeedFreshness {
    let newest = one.stream.max_event_time_us.iter().flatten().min();
    SpeedFreshness {
        from: by_partition(one.snapshot.cut()),
        to: by_partition(&one.snapshot.to),
        watermark: newest.map(|time| rfc3339(time - one.watermark_delay_us)),
        lag_ms: u64::try_from(lag_us(&one.stream, now_us) / 1_000).unwrap_or(0),
        late_since_cut: one.snapshot.ranges.iter().map(|range| late.of(&one.view, range)).sum(),
    }
}
