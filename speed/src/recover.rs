//! Recovery: read the chain of deltas, replay the log from its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::documents::delta::DeltaView;
use schemas::position::assert_chain;
use schemas::{Code, Cut, Problem};
use storage::deltas::Delta;
use storage::snapshot::RangeStates;

use crate::chain::{Base, Link, ViewState};
use crate::stream::{Parts, StreamSpeed, ViewInput};

/// Brings a stream's speed layer to the end of its chain; its fold loops replay the rest of the log.
pub(crate) async fn recover(parts: Parts, views: &[ViewInput], shards: usize) -> Result<Arc<StreamSpeed>, Problem> {
    let chain = parts.deltas.chain(parts.stream.id, None).await.map_err(|e| e.problem())?;
    if let Some(foreign) = chain.iter().find(|delta| delta.header.incarnation != parts.log.incarnation()) {
        let detail = format!("stream {}: its deltas are of log {}", parts.stream.name, foreign.header.incarnation);
        return Err(Problem::new(Code::Internal, detail));
    }
    let states: BTreeMap<_, _> = views.iter().map(|input| (input.id, state_of(input, &parts))).collect();
    let durable = match (chain.last(), states.values().map(ViewState::start).reduce(|a, b| a.meet(&b))) {
        (Some(last), _) => last.header.to.clone(),
        (None, Some(first_needed)) => first_needed,
        (None, None) => parts.log.head(),
    };
    if let Some(first) = chain.first() {
        let ranges = chain.iter().map(|delta| (&delta.header.from, &delta.header.to));
        assert_chain(&first.header.from, ranges).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    }
    let times = chain.last().map(|last| last.header.max_event_time_us.clone()).unwrap_or_default();
    let mut base = Base {
        next_checkpoint: chain.last().map_or(0, |last| last.header.last_checkpoint.saturating_add(1)),
        views: states,
        sealed: durable.clone(),
        durable: durable.clone(),
        ..Base::default()
    };
    for delta in chain {
        let link = link(delta, &base, &parts)?;
        base.links.push(link);
    }
    note_failures(&mut base);
    base.forget_covered();
    let starts: Vec<Cut> = views.iter().map(|input| base.views[&input.id].start()).collect();
    let stream = StreamSpeed::new(parts, base, &durable, &times, shards);
    for (input, start) in views.iter().zip(starts) {
        stream.restore_view(input.id, &input.view, &start)?;
    }
    stream.stop_failed_views();
    Ok(Arc::new(stream))
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
