//! What a reader had that comes back with a cursor: the batch view of that time and the deltas behind it, from the
//! store. They are kept as long as one can go back to that batch view.

use std::sync::Arc;

use schemas::{Cut, Problem, ViewDef};
use storage::deltas::DeltaStore;
use storage::manifests::ManifestStore;
use storage::snapshot::{RangeStates, ViewSnapshot};

use super::Cursor;
use crate::engine::QueryEngine;

/// The view at the cursor's batch view, with the deltas that are stored behind it; none if they are not kept any more.
pub(super) async fn past(
    engine: &QueryEngine,
    def: &ViewDef,
    cursor: &Cursor,
) -> Result<Option<Arc<ViewSnapshot>>, Problem> {
    let manifests = ManifestStore::new(engine.parts.store.clone()).list(def.id).await.map_err(|e| e.problem())?;
    let manifest = manifests.into_iter().find(|manifest| manifest.sequence == cursor.sequence);
    if manifest.is_none() && (cursor.sequence > 0 || def.from.total() > 0) {
        return Ok(None);
    }
    let start = manifest.as_ref().map_or(&def.from, |manifest| &manifest.cut).clone();
    let (ranges, to) = stored_ranges(engine, def, &start).await?;
    let past = ViewSnapshot {
        view: def.id,
        semantic_hash: def.semantic_hash.clone(),
        from: def.from.clone(),
        manifest,
        ranges,
        to,
        failed: None,
    };
    Ok(past.assert_coverage().is_ok().then(|| Arc::new(past)))
}

/// The stored deltas of a view from a position on, and where they end.
pub(super) async fn stored_ranges(
    engine: &QueryEngine,
    def: &ViewDef,
    start: &Cut,
) -> Result<(Vec<Arc<RangeStates>>, Cut), Problem> {
    let deltas = DeltaStore::new(engine.parts.store.clone());
    let chain = deltas.chain(def.stream, None).await.map_err(|e| e.problem())?;
    let (mut ranges, mut to) = (vec![], start.clone());
    for delta in chain {
        let header = delta.header;
        for (part, states) in header.views.iter().zip(delta.states).filter(|(part, _)| part.view == def.id) {
            if !start.is_at_most(&part.from) {
                continue;
            }
            let end = header.to.join(&part.from);
            to = end.clone();
            let (from, ledger) = (part.from.clone(), part.ledger.clone());
            ranges.push(Arc::new(RangeStates { from, to: end, states, sorted: true, ledger }));
        }
    }
    Ok((ranges, to))
}
