//! What the cells of a large delta are said to take: what they do, and not the whole for each slice that they come in.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::physical_plan::collect;
use operators::StateSource;
use schemas::documents::delta::{DeltaHeader, DeltaView};
use storage::batch_view::CheckedStore;
use storage::deltas::{decode, encode};
use storage::snapshot::{RangeStates, ViewSnapshot};
use uuid::Uuid;

use crate::source::{Layer, SnapshotStates};
use crate::testing::{BY_COUNTRY, Event, World};

const CELLS: usize = 50_000;

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

/// The states of a large delta, as others count them while they go through a plan.
#[tokio::test]
async fn slices_of_a_large_delta_add_up_to_it() {
    // longer than what a view holds itself
    let keys: Vec<String> = (0..CELLS).map(|cell| format!("a country that is called {cell}")).collect();
    let keys: &'static [String] = keys.leak();
    let events: Vec<Event> = keys.iter().map(|key| (Some(key.as_str()), 1.0, 1)).collect();
    let mut world = World::new().with_view("by_country", BY_COUNTRY, None, &[&events]).await;
    world.change(read_back);
    let (view, snapshot) = (world.views.values().next().unwrap(), world.snapshot.views.values().next().unwrap());
    let cells: usize = snapshot.ranges.iter().map(|range| range.bytes()).sum();
    let files = Arc::new(CheckedStore::new(world.store.inner()));
    let states = SnapshotStates::new(Arc::clone(view), Arc::clone(snapshot), Layer::Merged, files);
    let session = operators::session::query_state(operators::session::config(), Arc::default());
    let columns: Vec<usize> = (0..view.state_schema().fields().len()).collect();
    let mut slices = vec![];
    for plan in states.scan(&session, &columns, &[]).await.unwrap() {
        slices.extend(collect(plan, session.task_ctx()).await.unwrap());
    }
    assert!(slices.len() > 5, "{}", slices.len());
    let counted: usize = slices.iter().map(RecordBatch::get_array_memory_size).sum();
    assert!(counted < 3 * cells, "{counted} bytes for {cells}");
}
