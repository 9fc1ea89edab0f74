//! What a query is said to need of a large delta: its cells once, and not once for each slice that they come in.

use std::sync::Arc;

use rstest::rstest;
use schemas::Cut;
use schemas::documents::delta::{DeltaHeader, DeltaView};
use serde_json::{Value, json};
use storage::deltas::{decode, encode};
use storage::snapshot::{RangeStates, ViewSnapshot};
use uuid::Uuid;

use super::ask;
use crate::testing::{BY_COUNTRY, Event, World};

const CELLS: usize = 200_000;

/// The ranges as recovery reads them from the store: all columns of a delta in one allocation.
fn read_back(snapshot: &mut ViewSnapshot) {
    let read = |range: &Arc<RangeStates>| {
        let part = DeltaView {
            view: snapshot.view,
            semantic_hash: snapshot.semantic_hash.clone(),
            from: range.from.clone(),
            cells: 0,
            ledger: vec![],
            bytes: 0,
        };
        let header = DeltaHeader {
            format: 1,
            stream: Uuid::nil(),
            incarnation: Uuid::nil(),
            first_checkpoint: 0,
            last_checkpoint: 0,
            from: range.from.clone(),
            to: range.to.clone(),
            max_event_time_us: vec![],
            views: vec![part],
            failed: vec![],
            created_at_us: 0,
            as_of_us: None,
        };
        let (_, bytes) = encode(&header, std::slice::from_ref(&range.states)).unwrap();
        let states = decode("0-0.delta", &bytes).unwrap().states.remove(0);
        Arc::new(RangeStates { states, ..RangeStates::clone(range) })
    };
    snapshot.ranges = snapshot.ranges.iter().map(read).collect();
}

#[rstest]
#[case::all_cells("SELECT count(*), CAST(sum(n) AS BIGINT) FROM by_country", json!([[CELLS, CELLS]]))]
#[case::sorted("SELECT n FROM by_country ORDER BY country DESC LIMIT 1", json!([[1]]))]
#[case::joined("SELECT count(*) FROM by_country JOIN speed.by_country s USING (country)", json!([[CELLS]]))]
#[tokio::test]
async fn a_large_delta_counts_once(#[case] sql: &str, #[case] expected: Value) {
    // longer than what a view holds itself
    let keys: Vec<String> = (0..CELLS).map(|cell| format!("a country that is called {cell}")).collect();
    let keys: &'static [String] = keys.leak();
    let events: Vec<Event> = keys.iter().map(|key| (Some(key.as_str()), 1.0, 1)).collect();
    let mut world = World::new().with_view("by_country", BY_COUNTRY, None, &[&events]).await;
    world.change(read_back);
    let cells: usize = world.snapshot.views.values().flat_map(|view| &view.ranges).map(|range| range.bytes()).sum();
    assert_eq!(world.snapshot.to, Cut(vec![CELLS as u64]));
    // tables of cells are filled up to a half at least, and grow by doubling
    world.limits.query_memory_bytes = 8 * cells;
    assert_eq!(ask(&world.engine(), sql).await, expected);
}
