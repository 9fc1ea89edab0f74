//! Recovery: read the chain of deltas, replay the log from its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use schemas::documents::delta::{DeltaHeader, DeltaView};
use schemas::position::assert_chain;
use schemas::{Code, Cut, Problem};
use storage::StorageError;
use storage::deltas::Delta;
use storage::snapshot::RangeStates;

use crate::chain::{Base, Link, ViewState};
use crate::stream::{Parts, StreamSpeed, ViewInput};

/// How often a checkpoint is claimed while an older owner goes on writing its own.
const CLAIMS_MAX: usize = 32;

/// The end of a chain: what a stream's speed layer goes on from.
struct Recovered {
    base: Base,
    /// Largest event time per partition below the end.
    times: Vec<Option<i64>>,
    as_of_us: Option<i64>,
}

/// Brings a stream's speed layer to the end of its chain; its fold loops replay the rest of the log.
pub(crate) async fn recover(parts: Parts, views: &[ViewInput], shards: usize) -> Result<Arc<StreamSpeed>, Problem> {
    let started = Instant::now();
    let Recovered { mut base, times, .. } = claimed(&parts, views).await?;
    base.forget_covered();
    let bytes: u64 = base.links.iter().flat_map(|link| &link.header.views).map(|view| view.bytes).sum();
    let (deltas, elapsed_ms) = (base.links.len(), started.elapsed().as_millis());
    tracing::info!(stream = %parts.stream.name, deltas, bytes, %elapsed_ms, "read the deltas");
    let durable = base.durable.clone();
    let starts: Vec<Cut> = views.iter().map(|input| base.views[&input.id].start()).collect();
    let stream = StreamSpeed::new(parts, base, &durable, &times, shards);
    for (input, start) in views.iter().zip(starts) {
        stream.restore_view(input.id, &input.view, &start)?;
    }
    stream.stop_failed_views();
    Ok(Arc::new(stream))
}

/// The chain, once its next checkpoint is this process's: an older owner that is about to write that one loses to an
/// empty delta, and one that was quicker is part of the chain.
async fn claimed(parts: &Parts, views: &[ViewInput]) -> Result<Recovered, Problem> {
    for _ in 0..CLAIMS_MAX {
        let mut recovered = read(parts, views).await?;
        if !parts.deltas.is_claimed() {
            return Ok(recovered);
        }
        // in this order: who has read the chain before another took over must not claim behind that one's claim
        parts.deltas.assert_owned().await.map_err(|e| e.problem())?;
        let claim = empty_delta(parts, &recovered);
        match parts.deltas.commit(&claim, &[]).await {
            Ok(header) => {
                recovered.base.claim = Some(header.last_checkpoint);
                recovered.base.next_checkpoint = header.last_checkpoint.saturating_add(1);
                recovered.base.links.push(Link { header: Arc::new(header), views: BTreeMap::new() });
                return Ok(recovered);
            }
            Err(StorageError::Conflict { .. }) => {}
            Err(error) => return Err(error.problem()),
        }
    }
    let detail = format!("stream {}: another process writes its deltas without end", parts.stream.name);
    Err(Problem::new(Code::InUse, detail))
}

/// A delta of no records: its name is the fence.
fn empty_delta(parts: &Parts, recovered: &Recovered) -> DeltaHeader {
    let base = &recovered.base;
    DeltaHeader {
        format: 1,
        stream: parts.stream.id,
        incarnation: parts.log.incarnation(),
        first_checkpoint: base.next_checkpoint,
        last_checkpoint: base.next_checkpoint,
        from: base.durable.clone(),
        to: base.durable.clone(),
        max_event_time_us: recovered.times.clone(),
        views: vec![],
        failed: base.failed_views(),
        created_at_us: parts.clock.now_us(),
        as_of_us: recovered.as_of_us,
    }
}

/// The chain as it is stored.
async fn read(parts: &Parts, views: &[ViewInput]) -> Result<Recovered, Problem> {
    let chain = parts.deltas.chain(parts.stream.id, None).await.map_err(|e| e.problem())?;
    if let Some(foreign) = chain.iter().find(|delta| delta.header.incarnation != parts.log.incarnation()) {
        let detail = format!("stream {}: its deltas are of log {}", parts.stream.name, foreign.header.incarnation);
        return Err(Problem::new(Code::Internal, detail));
    }
    let states: BTreeMap<_, _> = views.iter().map(|input| (input.id, state_of(input, parts))).collect();
    let first_needed = states.values().map(ViewState::start).reduce(|a, b| a.meet(&b));
    let durable = match (chain.last(), &first_needed) {
        (Some(last), _) => last.header.to.clone(),
        (None, Some(first_needed)) => first_needed.clone(),
        (None, None) => parts.log.head(),
    };
    if let Some(first) = chain.first() {
        let ranges = chain.iter().map(|delta| (&delta.header.from, &delta.header.to));
        assert_chain(&first.header.from, ranges).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        assert_reaches_back(parts, &first.header, first_needed.as_ref())?;
    }
    let times = chain.last().map(|last| last.header.max_event_time_us.clone()).unwrap_or_default();
    let as_of_us = chain.iter().rev().find_map(|delta| delta.header.as_of_us);
    let mut base = Base {
        next_checkpoint: chain.last().map_or(0, |last| last.header.last_checkpoint.saturating_add(1)),
        views: states,
        sealed: durable.clone(),
        durable,
        ..Base::default()
    };
    for delta in chain {
        let link = link(delta, &base, parts)?;
        base.links.push(link);
    }
    note_failures(&mut base);
    Ok(Recovered { base, times, as_of_us })
}

/// Deltas before a gap are no part of a chain: nobody may need them.
fn assert_reaches_back(parts: &Parts, first: &DeltaHeader, needed: Option<&Cut>) -> Result<(), Problem> {
    let Some(needed) = needed.filter(|needed| !first.from.is_at_most(needed)) else { return Ok(()) };
    let detail = format!(
        "stream {}: its deltas begin at {} and are needed from {needed} on: some of them are missing",
        parts.stream.name, first.from
    );
    let problem = Problem::new(Code::Internal, detail);
    Err(problem.with_hint("put the missing objects below deltas/ back"))
}

/// A view that a record had stopped is stopped still: its deltas end before that record.
fn note_failures(base: &mut Base) {
    for failed in base.links.iter().flat_map(|link| &link.header.failed) {
        if let Some(state) = base.views.get_mut(&failed.view) {
            state.failed = Some(Problem::new(failed.code, failed.detail.clone()));
        }
    }
}

fn state_of(input: &ViewInput, parts: &Parts) -> ViewState {
    let mut kept_cuts: Vec<Cut> = vec![];
    for manifest in &input.manifests {
        kept_cuts.retain(|kept| !kept.same_position(&manifest.cut));
        kept_cuts.push(manifest.cut.clone());
    }
    let surplus = kept_cuts.len().saturating_sub(parts.limits.runs_kept.max(2));
    kept_cuts.drain(..surplus);
    ViewState {
        semantic_hash: input.view.semantic_hash().to_owned(),
        from: input.from.clone(),
        manifest: input.manifests.last().cloned(),
        kept_cuts,
        failed: None,
    }
}

pub(crate) fn link(delta: Delta, base: &Base, parts: &Parts) -> Result<Link, Problem> {
    let mut views = BTreeMap::new();
    for (part, states) in delta.header.views.iter().zip(delta.states) {
        let Some(state) = base.views.get(&part.view) else { continue };
        check_hash(part, state, parts)?;
        let range = RangeStates {
            from: part.from.clone(),
            to: delta.header.to.join(&part.from),
            states,
            sorted: true,
            ledger: part.ledger.clone(),
        };
        views.insert(part.view, Arc::new(range));
    }
    Ok(Link { header: Arc::new(delta.header), views })
}

/// ⊕ refuses states of another meaning.
fn check_hash(part: &DeltaView, state: &ViewState, parts: &Parts) -> Result<(), Problem> {
    if part.semantic_hash == state.semantic_hash {
        return Ok(());
    }
    let detail = format!(
        "stream {}: the deltas of view {} were made by another version of Bifold or another definition ({} is not {})",
        parts.stream.name, part.view, part.semantic_hash, state.semantic_hash
    );
    Err(Problem::new(Code::Internal, detail).with_hint("drop the view and create it again: its history is recomputed"))
}
