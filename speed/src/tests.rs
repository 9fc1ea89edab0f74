//! One stream's speed layer over a real log and a store in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use operators::{View, ViewSource, states};
use schemas::documents::certificate::Verdict;
use schemas::documents::manifest::Manifest;
use schemas::problem::SqlPosition;
use schemas::{ColumnDef, Cut, LatePolicy, Limits, OnBadData, SqlType, StreamDef};
use storage::clock::SystemClock;
use storage::deltas::DeltaStore;
use storage::layers::{Snapshots, Speed};
use storage::log::{EmbeddedLog, EmbeddedLogConfig, Log};
use storage::owner::{Claim, Ownership};
use storage::snapshot::ViewSnapshot;
use storage::store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{SpeedService, ViewInput};

const PARTITIONS: u32 = 3;
const VIEW: Uuid = Uuid::from_u128(7);

fn stream() -> StreamDef {
    let column = |name: &str, sql_type| ColumnDef { name: name.into(), sql_type, nullable: true };
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "s".into(),
        columns: vec![column("k", SqlType::Text), column("n", SqlType::BigInt)],
        primary_key: vec![],
        time_column: None,
        watermark_delay_us: 0,
        partitions: PARTITIONS,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: 0,
    }
}

fn view(sql: &str) -> Arc<View> {
    let position = SqlPosition { line: 1, column: 1 };
    View::compile(&ViewSource { sql, position, stream: &stream(), tables: &[], late: LatePolicy::Include }).unwrap()
}

fn by_key() -> Arc<View> {
    view("SELECT k, count(*) AS c, sum(n) AS n FROM s GROUP BY k")
}

fn rows(from: i64, to: i64) -> RecordBatch {
    let zero = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![0; (to - from) as usize]).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new((from..to).map(|i| Some(format!("k{}", i % 11))).collect::<StringViewArray>()),
        Arc::new(Int64Array::from_iter_values(from..to)),
        zero(),
        zero(),
    ];
    RecordBatch::try_new(stream().log_schema(), columns).unwrap()
}

struct Running {
    service: Arc<SpeedService>,
    log: Arc<EmbeddedLog>,
    stop: CancellationToken,
    work: JoinHandle<Result<(), schemas::Problem>>,
}

async fn start(folder: &Path, store: &Store, views: &[ViewInput], interval_ms: u64) -> Running {
    start_on(folder, store, views, interval_ms, 2).await
}

/// Opens the log; a checkpoint of the one that crashed may still hold it for a moment.
async fn open_log(folder: &Path) -> Arc<EmbeddedLog> {
    let (stream, config) = (stream(), EmbeddedLogConfig::default());
    let begun = std::time::Instant::now();
    loop {
        match EmbeddedLog::open(folder, stream.log_schema(), stream.incarnation, PARTITIONS, &config) {
            Ok(log) => return log,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn start_on(folder: &Path, store: &Store, views: &[ViewInput], interval_ms: u64, shards: usize) -> Running {
    let (stream, log) = (stream(), open_log(folder).await);
    let limits = Limits { checkpoint_interval_ms: interval_ms, ..Limits::default() };
    let service = SpeedService::new(DeltaStore::new(store.clone()), Arc::new(SystemClock), limits, shards);
    service.open(stream, Arc::clone(&log) as _, views).await.unwrap();
    let stop = CancellationToken::new();
    let work = tokio::spawn(Arc::clone(&service).run(stop.clone()));
    Running { service, log, stop, work }
}

impl Running {
    async fn append(&self, from: i64, to: i64) {
        let partition = (from % i64::from(PARTITIONS)) as u32;
        self.log.append(self.log.epoch(), vec![(partition, rows(from, to))]).unwrap().durable().await.unwrap();
    }

    async fn view(&self, id: Uuid) -> Arc<ViewSnapshot> {
        let snapshot =
            self.service.snapshot(stream().id, Some(&self.log.head()), Duration::from_secs(20)).await.unwrap();
        let view = Arc::clone(&snapshot.views[&id]);
        view.assert_coverage().unwrap();
        view
    }

    /// Why [`VIEW`] can no longer be folded.
    async fn failure(&self) -> schemas::Problem {
        let snapshot =
            self.service.snapshot(stream().id, Some(&self.log.head()), Duration::from_secs(20)).await.unwrap();
        snapshot.views[&VIEW].failed.clone().unwrap()
    }

    /// Stops without a last checkpoint, as a crash would.
    async fn crash(self) {
        self.work.abort();
        let _ = self.work.await;
        self.log.close().await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.work.await.unwrap().unwrap();
        self.log.close().await;
    }
}

/// Merged states of a snapshot's ranges.
fn merged(view: &View, snapshot: &ViewSnapshot) -> RecordBatch {
    let parts: Vec<RecordBatch> = snapshot.ranges.iter().flat_map(|range| range.states.iter().cloned()).collect();
    states::merge(view, &parts).unwrap()
}

fn input(view: &Arc<View>) -> ViewInput {
    ViewInput { id: VIEW, view: Arc::clone(view), from: Cut::zero(PARTITIONS), manifests: vec![] }
}

fn manifest(view: &View, run: u64, cut: &Cut) -> Manifest {
    Manifest {
        format: 1,
        sequence: run,
        view: VIEW,
        semantic_hash: view.semantic_hash().into(),
        run,
        cut: cut.clone(),
        files: vec![],
        cells: 0,
        ledger: vec![],
        verdict: Verdict::Exact,
        published_at_us: 0,
        rolled_back_from: None,
        epoch: 0,
    }
}

/// whatever was checkpointed or not, a crash and a replay give the same bytes.
#[tokio::test(flavor = "multi_thread")]
async fn recovery_gives_the_bytes_of_an_undisturbed_fold() {
    let (disturbed, undisturbed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, other_store) = (Store::in_memory(), Store::in_memory());
    let view = by_key();
    let calm = start(undisturbed.path(), &other_store, &[input(&view)], 3_600_000).await;
    for round in 0..6_i64 {
        let running =
            start(disturbed.path(), &store, &[input(&view)], if round % 2 == 0 { 1 } else { 3_600_000 }).await;
        for part in 0..10_i64 {
            let from = (round * 10 + part) * 37;
            running.append(from, from + 37).await;
            calm.append(from, from + 37).await;
            let now = running.view(VIEW).await;
            assert_eq!(now.speed_ledger().counted, ((round * 10 + part + 1) * 37) as u64);
        }
        let (a, b) = (running.view(VIEW).await, calm.view(VIEW).await);
        assert_eq!(merged(&view, &a).columns(), merged(&view, &b).columns(), "round {round}");
        assert_eq!(a.speed_ledger(), b.speed_ledger(), "round {round}");
        running.crash().await;
    }
    calm.end().await;
}

/// R-040, H3: a partition with nearly everything is folded on every core, to the bytes of one core.
#[tokio::test(flavor = "multi_thread")]
async fn hot_partition_is_folded_on_all_cores_to_the_same_bytes() {
    let view = by_key();
    let mut found = vec![];
    for shards in [1, 4] {
        let (folder, store) = (tempfile::tempdir().unwrap(), Store::in_memory());
        let running = start_on(folder.path(), &store, &[input(&view)], 3_600_000, shards).await;
        // 90,000 is a multiple of the partitions: one append of all of it goes to partition 0
        running.append(90_000, 250_000).await;
        running.append(1, 1_000).await;
        let snapshot = running.view(VIEW).await;
        assert_eq!(snapshot.speed_ledger().counted, 160_999);
        let parts: usize = snapshot.ranges.iter().map(|range| range.states.len()).sum();
        assert!(parts >= shards.min(2), "{parts} states of {shards} cores");
        found.push((merged(&view, &snapshot), snapshot.speed_ledger()));
        running.end().await;
    }
    assert_eq!(found[0].0.columns(), found[1].0.columns());
    assert_eq!(found[0].1, found[1].1);
}

/// I3, I5: merged deltas say what the small ones said, and no merge crosses a barrier.
#[tokio::test(flavor = "multi_thread")]
async fn deltas_are_merged_but_not_across_a_barrier() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_memory();
    let view = by_key();
    let running = start(folder.path(), &store, &[input(&view)], 3_600_000).await;
    let mut barrier = None;
    for part in 0..40_i64 {
        running.append(part * 10, part * 10 + 10).await;
        let cut = running.service.barrier(stream().id).await.unwrap();
        assert_eq!(cut.total(), (part * 10 + 10) as u64, "everything durable is below the barrier");
        if part == 19 {
            barrier = Some(cut);
        } else {
            running.service.release_barrier(stream().id, &cut);
        }
        running.service.stream(stream().id).unwrap().compact_chain(&running.stop).await.unwrap();
    }
    let snapshot = running.view(VIEW).await;
    assert!(snapshot.ranges.len() < 20, "{} ranges", snapshot.ranges.len());
    let barrier = barrier.unwrap();
    assert!(snapshot.ranges.iter().any(|range| range.to.same_position(&barrier)), "the barrier is still a boundary");
    let whole = merged(&view, &snapshot);
    running.crash().await;
    let again = start(folder.path(), &store, &[input(&view)], 3_600_000).await;
    assert_eq!(merged(&view, &again.view(VIEW).await.clone()).columns(), whole.columns());
    let names = DeltaStore::new(store).names(stream().id).await.unwrap();
    assert!(names.len() < 20, "{names:?}");
    again.end().await;
}

/// I1, I10: publishing takes the place of the deltas below the cut; a rollback brings them back.
#[tokio::test(flavor = "multi_thread")]
async fn a_published_cut_replaces_deltas_and_a_rollback_restores_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_memory();
    let view = by_key();
    let running = start(folder.path(), &store, &[input(&view)], 3_600_000).await;
    let mut cuts = vec![];
    for part in 0..3_i64 {
        running.append(part * 100, part * 100 + 100).await;
        let cut = running.service.barrier(stream().id).await.unwrap();
        running.service.publish(stream().id, Arc::new(manifest(&view, part as u64 + 1, &cut))).await.unwrap();
        running.service.release_barrier(stream().id, &cut);
        cuts.push(cut);
        let now = running.view(VIEW).await;
        assert_eq!((now.speed_ledger().records, now.cut()), (0, &cuts[part as usize]));
    }
    running.append(300, 350).await;
    assert_eq!(running.view(VIEW).await.speed_ledger().records, 50);
    running.service.publish(stream().id, Arc::new(manifest(&view, 2, &cuts[1]))).await.unwrap();
    let back = running.view(VIEW).await;
    assert_eq!((back.speed_ledger().records, back.cut()), (150, &cuts[1]));
    let odd = manifest(&view, 9, &Cut(vec![1, 1, 1]));
    assert!(running.service.publish(stream().id, Arc::new(odd)).await.is_err(), "no boundary of the deltas");
    running.end().await;
}

/// A view that comes later begins where the fold stands, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_view_has_no_history() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_memory();
    let first = by_key();
    let running = start(folder.path(), &store, &[input(&first)], 3_600_000).await;
    running.append(0, 90).await;
    running.view(VIEW).await;
    let second = Uuid::from_u128(8);
    let total = view("SELECT count(*) AS c FROM s");
    let from = running.service.stream(stream().id).unwrap().add_view(second, &total).unwrap();
    assert_eq!(from.total(), 90);
    running.append(90, 130).await;
    let late = running.view(second).await;
    assert!(!late.has_history());
    assert_eq!(late.speed_ledger().records, 40);
    running.service.barrier(stream().id).await.unwrap();
    running.crash().await;
    let later = ViewInput { id: second, view: total, from, manifests: vec![] };
    let again = start(folder.path(), &store, &[input(&first), later], 3_600_000).await;
    assert_eq!(again.view(second).await.speed_ledger().records, 40);
    assert_eq!(again.view(VIEW).await.speed_ledger().records, 130);
    again.end().await;
}

/// The name is the fence: a second process that writes this stream's deltas stops one of the two.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_is_fenced() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::in_memory();
    let view = by_key();
    let one = start(folder.path(), &store, &[input(&view)], 3_600_000).await;
    let two = start(other.path(), &store, &[input(&view)], 3_600_000).await;
    one.append(0, 5).await;
    two.append(0, 5).await;
    one.service.barrier(stream().id).await.unwrap();
    let problem = two.service.barrier(stream().id).await.unwrap_err();
    assert!(problem.detail.contains("another process"), "{}", problem.detail);
    one.end().await;
    two.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_not_reached_in_time_is_stale() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &Store::in_memory(), &[input(&by_key())], 3_600_000).await;
    let beyond = Cut(vec![10, 0, 0]);
    let asked = running.service.snapshot(stream().id, Some(&beyond), Duration::from_millis(30)).await;
    assert_eq!(asked.unwrap_err().code, schemas::Code::Stale);
    running.end().await;
}

/// A record that stops a view: every restart says the same, with the record's position, whatever was
/// checkpointed before, after or never, and however the log cuts the records into frames.
#[rstest::rstest]
#[case::never_checkpointed(false, false)]
#[case::checkpointed_before(true, false)]
#[case::checkpointed_after(false, true)]
#[case::checkpointed_twice(true, true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_failed_says_the_same_after_a_restart(#[case] before: bool, #[case] after: bool) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_memory();
    let (odd, good) =
        (view("SELECT k, sum(1000 / (n - 100)) AS x FROM s GROUP BY k"), view("SELECT sum(n) AS n FROM s"));
    let other = ViewInput { id: Uuid::from_u128(8), ..input(&good) };
    let views = [input(&odd), other];
    let running = start(folder.path(), &store, &views, 3_600_000).await;
    running.append(0, 30).await;
    if before {
        running.service.barrier(stream().id).await.unwrap();
    }
    running.append(90, 130).await;
    let failed = running.failure().await;
    assert_eq!(failed.code, schemas::Code::ComputationFailed);
    // 90 is a multiple of the partitions: both appends are in partition 0, and 100 is its 41st record
    assert!(failed.detail.starts_with("partition 0, offset 40: "), "{}", failed.detail);
    if after {
        running.service.barrier(stream().id).await.unwrap();
        running.append(200, 210).await;
        running.service.barrier(stream().id).await.unwrap();
    }
    let whole = merged(&good, &*running.view(Uuid::from_u128(8)).await);
    running.crash().await;
    for _ in 0..2 {
        let again = start(folder.path(), &store, &views, 3_600_000).await;
        assert_eq!(again.failure().await, failed);
        assert_eq!(merged(&good, &*again.view(Uuid::from_u128(8)).await).columns(), whole.columns());
        again.crash().await;
    }
}

async fn next_owner(store: &Store) -> Store {
    let clock: Arc<dyn storage::clock::Clock> = Arc::new(SystemClock);
    let claim = Claim { node: Uuid::from_u128(1), place: "a test".into() };
    store.clone().owned_by(Arc::new(Ownership::take(store, claim, &clock).await.unwrap()))
}

/// I9: an owner that was overtaken writes no checkpoint any more: the next one is the new owner's, before it has folded
/// anything. What the old one had made durable is in the chain that the new one goes on with.
#[tokio::test(flavor = "multi_thread")]
async fn overtaken_owner_writes_no_checkpoint() {
    let (folder, copy, store, view) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Store::in_memory(), by_key());
    let old = start(folder.path(), &next_owner(&store).await, &[input(&view)], 3_600_000).await;
    old.append(0, 50).await;
    old.view(VIEW).await;
    old.service.barrier(stream().id).await.unwrap();
    // an older owner on another disk has its own records at the same positions
    let new = start(copy.path(), &next_owner(&store).await, &[input(&view)], 3_600_000).await;
    assert_eq!(new.service.durable(stream().id), old.service.durable(stream().id));
    old.append(3, 60).await;
    old.view(VIEW).await;
    let refused = old.service.barrier(stream().id).await.unwrap_err();
    assert!(refused.detail.contains("another process writes its deltas"), "{}", refused.detail);
    let names = DeltaStore::new(store.clone()).names(stream().id).await.unwrap();
    assert_eq!(names, [(0, 0), (1, 1), (2, 2)], "a claim, a checkpoint, a claim");
    new.crash().await;
    old.crash().await;
}

/// I1: a chain that does not reach back to where a view needs it is not taken for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn missing_delta_is_found_at_the_start() {
    let (folder, store, view) = (tempfile::tempdir().unwrap(), Store::in_memory(), by_key());
    let running = start(folder.path(), &store, &[input(&view)], 3_600_000).await;
    for from in [0, 50, 100] {
        running.append(from, from + 50).await;
        running.view(VIEW).await;
        running.service.barrier(stream().id).await.unwrap();
    }
    running.crash().await;
    store.delete(&storage::paths::delta(stream().id, 1, 1)).await.unwrap();
    let log: Arc<dyn Log> = open_log(folder.path()).await;
    let service = SpeedService::new(DeltaStore::new(store.clone()), Arc::new(SystemClock), Limits::default(), 1);
    let refused = service.open(stream(), log, &[input(&view)]).await.unwrap_err();
    assert!(refused.detail.contains("some of them are missing"), "{}", refused.detail);
}

/// what no run has taken is counted, and no longer once one has.
#[tokio::test(flavor = "multi_thread")]
async fn states_in_memory_are_counted_until_a_run_has_them() {
    let (folder, store, view) = (tempfile::tempdir().unwrap(), Store::in_memory(), by_key());
    let running = start(folder.path(), &store, &[input(&view)], 3_600_000).await;
    let speed = running.service.stream(stream().id).unwrap();
    assert_eq!(speed.chain_bytes(), 0);
    running.append(0, 500).await;
    running.view(VIEW).await;
    let cut = running.service.barrier(stream().id).await.unwrap();
    let one = speed.chain_bytes();
    assert!(one > 11 * 8, "{one} bytes of eleven cells");
    running.append(500, 1_000).await;
    running.view(VIEW).await;
    running.service.barrier(stream().id).await.unwrap();
    assert!(speed.chain_bytes() > one);
    running.service.publish(stream().id, Arc::new(manifest(&view, 1, &cut))).await.unwrap();
    assert!((1..=one * 3 / 2).contains(&speed.chain_bytes()), "the second range is left: {}", speed.chain_bytes());
    running.end().await;
}
