//! The store's moment, the owner's moment, and both together: never a hole, never twice.

use schemas::LedgerCounts;
use schemas::documents::delta::{DeltaHeader, DeltaView};
use schemas::documents::manifest::Manifest;
use storage::clock::ManualClock;
use storage::snapshot::wire;

use super::*;
use crate::testing::{NOW_US, World, by_country, clicks};

/// Acknowledged by then is in the last delta of most tests.
const AS_OF_US: i64 = NOW_US - 7_000_000;

/// An owner that answers from a world's snapshot, as it would over the wire.
struct Owner {
    snapshot: Mutex<Option<StreamSnapshot>>,
    asked: Mutex<Vec<Cut>>,
}

#[async_trait]
impl Tails for Owner {
    async fn tail(&self, _: &StreamDef, after: &Cut, _: Option<&Cut>, _: Duration) -> Result<StreamSnapshot, NoTail> {
        self.asked.lock().push(after.clone());
        let Some(snapshot) = self.snapshot.lock().clone() else { return Err(NoTail::Unreachable("gone".into())) };
        Ok(wire::decode("test", &wire::encode(&snapshot, after).unwrap()).unwrap())
    }
}

/// Writes the ranges of a world's one view to the store, as deltas, the first `count` of them.
async fn checkpoint(world: &World, ranges: std::ops::Range<usize>, with_view: bool) {
    let deltas = DeltaStore::new(world.store.clone());
    let view = world.snapshot.views.values().next().unwrap();
    for number in ranges {
        let range = &view.ranges[number];
        let part = DeltaView {
            view: view.view,
            semantic_hash: view.semantic_hash.clone(),
            from: range.from.clone(),
            cells: 0,
            ledger: vec![LedgerCounts::default()],
            bytes: 0,
        };
        let header = DeltaHeader {
            format: 1,
            stream: world.snapshot.stream,
            incarnation: clicks().incarnation,
            first_checkpoint: number as u64,
            last_checkpoint: number as u64,
            from: range.from.clone(),
            to: range.to.clone(),
            max_event_time_us: vec![Some(5)],
            views: if with_view { vec![part] } else { vec![] },
            created_at_us: NOW_US,
            as_of_us: Some(AS_OF_US),
            failed: vec![],
        };
        let states = if with_view { vec![range.states.clone()] } else { vec![] };
        deltas.commit(&header, &states).await.unwrap();
    }
}

async fn publish(world: &World) {
    let manifest = world.snapshot.views.values().next().unwrap().manifest.clone().unwrap();
    ManifestStore::new(world.store.clone()).publish(&manifest).await.unwrap();
}

async fn snapshots(world: &World, owner: Option<&Arc<Owner>>) -> StoredSnapshots {
    let owner = owner.map(|owner| Arc::clone(owner) as Arc<dyn Tails>);
    let clock = Arc::new(ManualClock::at(NOW_US));
    let snapshots = StoredSnapshots::new(StoredParts { store: world.store.clone(), clock, owner });
    snapshots.refresh(&world.catalog).await.unwrap();
    snapshots
}

async fn take(snapshots: &StoredSnapshots, at_least: Option<&Cut>) -> Result<Arc<StreamSnapshot>, Problem> {
    snapshots.snapshot(clicks().id, at_least, Duration::from_secs(5)).await
}

fn owner_of(world: &World) -> Arc<Owner> {
    Arc::new(Owner { snapshot: Mutex::new(Some(world.snapshot.clone())), asked: Mutex::default() })
}

/// The states are those of the world's own snapshot, range by range.
fn assert_same(found: &StreamSnapshot, world: &World) {
    let (found, wanted) = (found.views.values().next().unwrap(), world.snapshot.views.values().next().unwrap());
    found.assert_coverage().unwrap();
    assert_eq!(found.manifest, wanted.manifest);
    assert_eq!(found.ranges.len(), wanted.ranges.len());
    for (found, wanted) in found.ranges.iter().zip(&wanted.ranges) {
        assert_eq!((&found.from, &found.to), (&wanted.from, &wanted.to));
        let rows =
            |range: &RangeStates| range.states.iter().map(arrow::record_batch::RecordBatch::num_rows).sum::<usize>();
        assert_eq!(rows(found), rows(wanted));
    }
}

#[tokio::test]
async fn chain_and_tail_are_the_owners_moment() {
    let world = by_country().await;
    publish(&world).await;
    for in_store in 0..=2 {
        checkpoint(&world, in_store.max(1) - 1..in_store, true).await;
        let owner = owner_of(&world);
        let snapshot = take(&snapshots(&world, Some(&owner)).await, None).await.unwrap();
        assert_same(&snapshot, &world);
        assert!(!snapshot.tail_unknown);
        let ranges = &world.snapshot.views.values().next().unwrap().ranges;
        let wanted = ranges[..in_store].last().map(|range| range.to.clone()).unwrap_or_default();
        assert_eq!(owner.asked.lock().as_slice(), [wanted], "what is in the store is not sent again");
    }
}

#[tokio::test]
async fn store_alone_says_that_something_may_be_missing() {
    let world = by_country().await;
    publish(&world).await;
    checkpoint(&world, 0..1, true).await;
    let snapshot = take(&snapshots(&world, None).await, None).await.unwrap();
    assert!(snapshot.tail_unknown);
    assert_eq!((snapshot.oldest_missing_us, snapshot.to.clone()), (Some(AS_OF_US), Cut(vec![7])));
    let view = snapshot.views.values().next().unwrap();
    view.assert_coverage().unwrap();
    assert_eq!((view.ranges.len(), view.failed.is_none()), (1, true));
}

#[tokio::test]
async fn nothing_in_the_store_is_as_of_the_streams_beginning() {
    let world = by_country().await;
    let snapshot = take(&snapshots(&world, None).await, None).await.unwrap();
    assert_eq!((snapshot.to.total(), snapshot.oldest_missing_us), (0, Some(clicks().created_at_us)));
}

#[tokio::test]
async fn owner_that_does_not_answer_leaves_the_store() {
    let world = by_country().await;
    publish(&world).await;
    checkpoint(&world, 0..1, true).await;
    let owner = owner_of(&world);
    *owner.snapshot.lock() = None;
    let snapshots = snapshots(&world, Some(&owner)).await;
    for _ in 0..3 {
        assert!(take(&snapshots, None).await.unwrap().tail_unknown);
    }
    assert_eq!(owner.asked.lock().len(), 1, "it is not waited for again at once");
}

/// The owner has merged deltas over the end of the chain that this node knows: it sends everything.
#[tokio::test]
async fn merged_deltas_are_taken_whole() {
    let world = by_country().await;
    publish(&world).await;
    checkpoint(&world, 0..1, true).await;
    let owner = owner_of(&world);
    let mut merged = world.snapshot.clone();
    let view = merged.views.values_mut().next().unwrap();
    let states = view.ranges.iter().flat_map(|range| range.states.clone()).collect();
    let (first, last) = (&view.ranges[0], &view.ranges[1]);
    let whole = RangeStates { from: first.from.clone(), to: last.to.clone(), states, sorted: false, ledger: vec![] };
    Arc::make_mut(view).ranges = vec![Arc::new(whole)];
    *owner.snapshot.lock() = Some(merged.clone());
    let snapshot = take(&snapshots(&world, Some(&owner)).await, None).await.unwrap();
    let found = snapshot.views.values().next().unwrap();
    found.assert_coverage().unwrap();
    assert_eq!((found.ranges.len(), &found.ranges[0].from), (1, &Cut(vec![5])));
}

/// A hole at the owner's is an error, never a smaller answer.
#[tokio::test]
async fn hole_is_an_error() {
    let world = by_country().await;
    publish(&world).await;
    let owner = owner_of(&world);
    let mut holed = world.snapshot.clone();
    let view = holed.views.values_mut().next().unwrap();
    Arc::make_mut(view).ranges.remove(0);
    *owner.snapshot.lock() = Some(holed);
    let problem = take(&snapshots(&world, Some(&owner)).await, None).await.unwrap_err();
    assert_eq!(problem.code, Code::Internal);
}

/// A delta without the view: its records could not be folded.
#[tokio::test]
async fn view_that_failed_is_not_answered_from_the_store() {
    let world = by_country().await;
    publish(&world).await;
    checkpoint(&world, 0..1, true).await;
    checkpoint(&world, 1..2, false).await;
    let snapshot = take(&snapshots(&world, None).await, None).await.unwrap();
    let failed = snapshot.views.values().next().unwrap().failed.clone().unwrap();
    assert_eq!(failed.code, Code::ComputationFailed);
}

#[tokio::test(start_paused = true)]
async fn position_is_waited_for_in_the_store() {
    let world = by_country().await;
    publish(&world).await;
    checkpoint(&world, 0..1, true).await;
    let snapshots = snapshots(&world, None).await;
    let wanted = Cut(vec![10]);
    let late = take(&snapshots, Some(&wanted)).await.unwrap_err();
    assert_eq!(late.code, Code::Stale);
    let (waited, ()) = tokio::join!(take(&snapshots, Some(&wanted)), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        checkpoint(&world, 1..2, true).await;
    });
    assert_eq!(waited.unwrap().to, Cut(vec![10]));
}

/// Deltas that another reading has are not read again, and those that were merged away are forgotten.
#[tokio::test]
async fn refresh_follows_the_chain_and_its_manifests() {
    let world = by_country().await;
    publish(&world).await;
    checkpoint(&world, 0..1, true).await;
    let snapshots = snapshots(&world, None).await;
    let before = snapshots.known(clicks().id).unwrap();
    checkpoint(&world, 1..2, true).await;
    snapshots.refresh(&world.catalog).await.unwrap();
    let after = snapshots.known(clicks().id).unwrap();
    let view = world.snapshot.views.values().next().unwrap().view;
    assert!(Arc::ptr_eq(before.ranges(view).next().unwrap(), after.ranges(view).next().unwrap()));
    assert_same(&take(&snapshots, None).await.unwrap(), &world);
    let manifest = take(&snapshots, None).await.unwrap().views[&view].manifest.clone().unwrap();
    let newer = Manifest { sequence: 2, cut: Cut(vec![10]), ..Manifest::clone(&manifest) };
    ManifestStore::new(world.store.clone()).publish(&newer).await.unwrap();
    snapshots.refresh(&world.catalog).await.unwrap();
    let newest = take(&snapshots, None).await.unwrap();
    assert!(newest.views[&view].ranges.is_empty());
    newest.views[&view].assert_coverage().unwrap();
}

/// A list that was read while deltas were merged may lack the first of them: that is no reading, it is tried again.
#[tokio::test]
async fn deltas_that_do_not_reach_back_are_not_read() {
    let world = by_country().await;
    publish(&world).await;
    checkpoint(&world, 1..2, true).await;
    let clock = Arc::new(ManualClock::at(NOW_US));
    let snapshots = StoredSnapshots::new(StoredParts { store: world.store.clone(), clock, owner: None });
    let refused = snapshots.refresh(&world.catalog).await.unwrap_err();
    assert!(refused.detail.contains("needs them from"), "{}", refused.detail);
    checkpoint(&world, 0..1, true).await;
    snapshots.refresh(&world.catalog).await.unwrap();
    assert_same(&take(&snapshots, None).await.unwrap(), &world);
}
