//! Runs from queue to publication, with a real master and store, and fakes of log and speed.

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;
use schemas::{Cut, LatePolicy, Verdict, ViewDef};
use storage::clock::ManualClock;
use storage::log::{Log, MemoryLog};
use storage::master::Master;
use storage::paths;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::landing::{Landing, LandingParts};
use crate::testing::{self, FakeSpeed, PATIENCE, START_US};

const SQL: &str = "SELECT shop, count(*) AS n, sum(price) AS total FROM events GROUP BY shop";

#[derive(Default)]
struct FakeViews {
    views: Mutex<BTreeMap<String, Arc<BatchView>>>,
    landing: Mutex<Option<Arc<Landing>>>,
}

impl Views for FakeViews {
    fn view(&self, name: &str) -> Option<Arc<BatchView>> {
        self.views.lock().get(name).cloned()
    }

    fn views(&self) -> Vec<Arc<BatchView>> {
        self.views.lock().values().cloned().collect()
    }

    fn landing(&self, _: Uuid) -> Option<Arc<Landing>> {
        self.landing.lock().clone()
    }
}

/// A platform without ingest and serving.
struct Scene {
    service: Arc<RunService>,
    parts: RunParts,
    views: Arc<FakeViews>,
    speed: Arc<FakeSpeed>,
    log: Arc<MemoryLog>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<Result<(), Problem>>>>,
}

impl Scene {
    async fn new(folder: &Path) -> Self {
        Self::with_log(folder, testing::log()).await
    }

    async fn with_log(folder: &Path, log: Arc<MemoryLog>) -> Self {
        let store = Store::open(folder.to_str().unwrap()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START_US));
        let stream = Arc::new(testing::stream());
        let url = store.url().join(&paths::master(stream.id)).unwrap();
        let master = Master::open(&url, &stream, Arc::clone(&clock)).await.unwrap();
        let speed = Arc::new(FakeSpeed::new(Arc::clone(&log)));
        let views = Arc::new(FakeViews::default());
        let landing = LandingParts {
            stream,
            log: Arc::clone(&log) as Arc<dyn Log>,
            dead_letters: testing::log(),
            master,
            durable: Arc::new(|| None),
            clock: Arc::clone(&clock),
            limits: Limits::default(),
            at_once: Arc::new(tokio::sync::Semaphore::new(1)),
        };
        *views.landing.lock() = Some(Arc::new(Landing::new(landing)));
        let parts = RunParts {
            views: Arc::clone(&views) as Arc<dyn Views>,
            catalog: Arc::new(CatalogStore::open(store.clone()).await.unwrap()),
            spill: folder.join("spill"),
            store,
            speed: Arc::clone(&speed) as Arc<dyn Speed>,
            clock,
            limits: Limits::default(),
            threads: 2,
            intake: None,
        };
        let service = Arc::new(RunService::new(parts.clone()));
        Self { service, parts, views, speed, log, stop: CancellationToken::new(), task: Mutex::default() }
    }

    fn add_view(&self, name: &str, late: LatePolicy, refresh: Refresh, from: Cut) -> Uuid {
        let id = Uuid::from_u128(100 + name.len() as u128);
        let sql = if late == LatePolicy::Drop {
            "SELECT window_start, count(*) AS n FROM TUMBLE(events, at, INTERVAL '20 seconds') GROUP BY window_start"
        } else {
            SQL
        };
        let view = testing::view(sql, late);
        let def = ViewDef {
            id,
            name: name.into(),
            version: 1,
            stream: testing::stream().id,
            sql: sql.into(),
            refresh,
            late: Some(late),
            tables: vec![],
            semantic_hash: view.semantic_hash().into(),
            from: from.clone(),
            with_no_data: false,
            created_at_us: START_US,
        };
        self.speed.add(id, &view, from);
        let batch = BatchView { def, stream: Arc::new(testing::stream()), view, tables: vec![] };
        self.views.views.lock().insert(name.into(), Arc::new(batch));
        id
    }

    fn serve(&self) {
        *self.task.lock() = Some(tokio::spawn(Arc::clone(&self.service).work(self.stop.clone())));
    }

    fn append(&self, cut: &Cut) {
        for frame in testing::frames(cut, 30, 64) {
            let head = self.log.head().offset(frame.partition);
            if let Some(frame) = frame.clip(&(head..u64::MAX)) {
                self.log.push(frame);
            }
        }
    }

    async fn run(&self, view: &str, kind: RunKind) -> RunDocument {
        let queued = self.service.start(view, kind, RunTrigger::Manual).await.unwrap();
        let run = self.service.run(queued.id, Some(PATIENCE)).await.unwrap();
        assert!(run.state.is_final(), "{run:?}");
        run
    }

    async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.await.unwrap().unwrap();
        }
    }

    async fn current(&self, view: Uuid) -> Arc<Manifest> {
        self.service.manifests.current(view).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_publish_exact_certificates_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    let id = scene.add_view("v", LatePolicy::Include, Refresh::Manual, Cut::default());
    scene.serve();
    for (number, cut) in [Cut(vec![300, 200, 0]), Cut(vec![500, 200, 128]), Cut(vec![500, 200, 128])].iter().enumerate()
    {
        scene.append(cut);
        let run = scene.run("v", RunKind::Full).await;
        assert_eq!((run.state, run.verdict, &run.error), (RunState::Succeeded, Some(Verdict::Exact), &None));
        assert_eq!((run.rows, run.rows_total), (cut.total(), cut.total()));
        let phases: Vec<_> = run.phase_ms.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(phases, ["plan", "land", "scan", "sort", "audit", "publish"]);
        let certificate = scene.service.certificate("v", Some(run.id)).await.unwrap();
        assert_eq!((certificate.cells.differing, certificate.oracle.differing), (0, 0));
        assert_eq!((certificate.cells.compared, certificate.oracle.skipped), (30, None));
        assert!(certificate.oracle.sampled > 0);
        assert_eq!(certificate.base_run.is_some(), number > 0);
        let manifest = scene.current(id).await;
        assert_eq!((manifest.run, manifest.sequence, &manifest.cut), (run.id, number as u64 + 1, cut));
        assert_eq!(scene.speed.view(id).cut(), cut, "readers have it");
        assert!(scene.speed.barriers.lock().is_empty(), "the barrier was taken back");
    }
    // run history
    let runs = scene.service.runs(Some("v"), 10).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), [3, 2, 1]);
    // two runs are kept, with their files
    let manifests = scene.service.manifests.list(id).await.unwrap();
    assert_eq!(manifests.iter().map(|m| m.run).collect::<Vec<_>>(), [2, 3]);
    assert!(scene.parts.store.list(&paths::batch_view(id, 1)).await.unwrap().is_empty());
    for manifest in manifests {
        for file in &manifest.files {
            assert!(scene.parts.store.get(&file.path).await.is_ok(), "I4: {}", file.path);
        }
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_run_gives_the_same_bytes_as_a_full_one() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    let id = scene.add_view("v", LatePolicy::Include, Refresh::Manual, Cut::default());
    scene.serve();
    scene.append(&Cut(vec![300, 200, 0]));
    scene.run("v", RunKind::Incremental).await;
    let first = scene.service.run(1, None).await.unwrap();
    assert_eq!(first.kind, RunKind::Full, "there was nothing to build on, and the run says so");
    scene.append(&Cut(vec![500, 333, 90]));
    let incremental = scene.run("v", RunKind::Incremental).await;
    assert_eq!(
        (incremental.kind, incremental.rows, incremental.verdict),
        (RunKind::Incremental, 423, Some(Verdict::Exact))
    );
    let a = scene.current(id).await;
    scene.run("v", RunKind::Full).await;
    let b = scene.current(id).await;
    assert_eq!((&a.ledger, a.cells), (&b.ledger, b.cells));
    let handle = tokio::runtime::Handle::current();
    let view = scene.views.view("v").unwrap();
    let (store, read) = (scene.parts.store.clone(), [a.files.clone(), b.files.clone()]);
    let states = tokio::task::spawn_blocking(move || {
        read.map(|files| {
            let mut reader = files::reader(&store, &view.view, &files, &handle).unwrap();
            let parts: Vec<_> = std::iter::from_fn(|| reader().unwrap()).collect();
            arrow::compute::concat_batches(view.view.state_schema(), &parts).unwrap()
        })
    });
    let [a, b] = states.await.unwrap();
    assert_eq!(a, b);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn violation_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    let id = scene.add_view("v", LatePolicy::Include, Refresh::Manual, Cut::default());
    scene.serve();
    scene.append(&Cut(vec![100, 100, 100]));
    scene.run("v", RunKind::Full).await;
    scene.append(&Cut(vec![200, 100, 150]));
    *scene.speed.plant.lock() =
        Some(|range| range.states[0] = range.states[0].slice(1, range.states[0].num_rows() - 1));
    let run = scene.run("v", RunKind::Full).await;
    assert_eq!((run.state, run.verdict), (RunState::Blocked, Some(Verdict::Violation)));
    assert!(run.error.unwrap().starts_with("cells: ["));
    assert_eq!(scene.current(id).await.run, 1, "the old one serves on");
    let certificate = scene.service.certificate("v", None).await.unwrap();
    assert_eq!((certificate.run, certificate.verdict, certificate.cells.differing), (2, Verdict::Violation, 1));
    assert!(scene.parts.store.list(&paths::batch_view(id, 2)).await.unwrap().is_empty());
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_listed_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    scene.add_view("v", LatePolicy::Drop, Refresh::Manual, Cut::default());
    scene.serve();
    scene.append(&Cut(vec![600, 500, 400]));
    let run = scene.run("v", RunKind::Full).await;
    assert_eq!((run.state, run.verdict), (RunState::Succeeded, Some(Verdict::Explained)), "{:?}", run.error);
    let certificate = scene.service.certificate("v", None).await.unwrap();
    let explanation = &certificate.explanations[0];
    assert_eq!((explanation.reason.as_str(), explanation.events), ("late", certificate.ledger.batch.late));
    let list = scene.parts.store.get(explanation.list.as_ref().unwrap()).await.unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(list).unwrap().build().unwrap();
    let listed: usize = reader.map(|rows| rows.unwrap().num_rows()).sum();
    assert_eq!(listed as u64, explanation.events);
    assert!(certificate.oracle.skipped.is_some());
    scene.stop().await;
}

/// DESIGN §15: a view made on a stream with history.
#[tokio::test(flavor = "multi_thread")]
async fn history_comes_first_and_ends_where_the_deltas_begin() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    scene.append(&Cut(vec![300, 200, 50]));
    let from = Cut(vec![300, 200, 50]);
    let id = scene.add_view("v", LatePolicy::Include, Refresh::Manual, from.clone());
    scene.append(&Cut(vec![400, 200, 90]));
    scene.serve();
    let run = scene.run("v", RunKind::Full).await;
    assert_eq!((run.verdict, run.rows), (Some(Verdict::Exact), 690), "{:?}", run.error);
    let runs = scene.service.runs(Some("v"), 10).await.unwrap();
    assert_eq!(runs.len(), 2, "the start of the service and the request want one history run: {runs:?}");
    let history = runs[1].clone();
    assert_eq!((history.trigger, history.cut, history.state), (RunTrigger::History, Some(from), RunState::Succeeded));
    let certificate = scene.service.certificate("v", Some(history.id)).await.unwrap();
    assert!(certificate.cells.skipped.is_some());
    let certificate = scene.service.certificate("v", Some(run.id)).await.unwrap();
    assert!(certificate.cells.skipped.is_none() && certificate.cells.compared == 30);
    assert_eq!(scene.current(id).await.run, run.id);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_makes_an_older_run_current_and_the_next_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    let id = scene.add_view("v", LatePolicy::Include, Refresh::Manual, Cut::default());
    scene.serve();
    for cut in [Cut(vec![100, 0, 0]), Cut(vec![100, 100, 0])] {
        scene.append(&cut);
        scene.run("v", RunKind::Full).await;
    }
    let manifest = scene.service.rollback("v", 1).await.unwrap();
    assert_eq!((manifest.run, manifest.sequence, manifest.rolled_back_from), (1, 3, Some(2)));
    assert_eq!(scene.speed.view(id).cut(), &Cut(vec![100, 0, 0]));
    assert_eq!(scene.service.rollback("v", 1).await.unwrap_err().code, Code::InUse);
    assert_eq!(scene.service.rollback("v", 9).await.unwrap_err().code, Code::NotFound);
    let run = scene.run("v", RunKind::Full).await;
    assert_eq!(run.verdict, Some(Verdict::Exact), "{:?}", run.error);
    let certificate = scene.service.certificate("v", Some(3)).await.unwrap();
    assert_eq!(certificate.base_run, Some(1));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_run_is_shared_cancelled_and_refused_when_there_is_no_view() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    scene.add_view("v", LatePolicy::Include, Refresh::Manual, Cut::default());
    scene.add_view("never", LatePolicy::Include, Refresh::Never, Cut::default());
    let first = scene.service.start("v", RunKind::Full, RunTrigger::Manual).await.unwrap();
    let second = scene.service.start("v", RunKind::Full, RunTrigger::Schedule).await.unwrap();
    assert_eq!((first.state, first.id), (RunState::Queued, second.id), "one that waits is enough");
    let cancelled = scene.service.cancel(first.id).await.unwrap();
    assert_eq!(cancelled.state, RunState::Cancelled);
    assert_eq!(scene.service.cancel(first.id).await.unwrap_err().code, Code::InUse);
    assert_eq!(scene.service.run(first.id, Some(PATIENCE)).await.unwrap().state, RunState::Cancelled);
    assert_eq!(scene.service.run(77, None).await.unwrap_err().code, Code::NotFound);
    assert_eq!(scene.service.certificate("v", None).await.unwrap_err().code, Code::NotFound);
    let refused = scene.service.start("never", RunKind::Full, RunTrigger::Manual).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidSql);
    let unknown = scene.service.start("nothing", RunKind::Full, RunTrigger::Manual).await.unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_marks_interrupted_runs_and_starts_them_again_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = testing::log();
    let scene = Scene::with_log(folder.path(), Arc::clone(&log)).await;
    scene.add_view("v", LatePolicy::Include, Refresh::Manual, Cut::default());
    scene.append(&Cut(vec![100, 50, 0]));
    let queued = scene.service.start("v", RunKind::Full, RunTrigger::Manual).await.unwrap();
    // it was at work when the process ended
    let interrupted = RunDocument { state: RunState::Running, ..queued.clone() };
    scene.service.documents.put(&interrupted).await.unwrap();
    let half_written = paths::batch_view_part(queued.view_id, queued.id, 0);
    scene.parts.store.put(&half_written, "half a file".into()).await.unwrap();

    let again = Scene::with_log(folder.path(), log).await;
    let id = again.add_view("v", LatePolicy::Include, Refresh::Manual, Cut::default());
    again.serve();
    let second = tokio::time::timeout(PATIENCE, async {
        loop {
            match again.service.run(2, Some(PATIENCE)).await {
                Ok(run) if run.state.is_final() => break run,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    let second = second.await.unwrap();
    assert_eq!((second.trigger, second.state), (RunTrigger::Restart, RunState::Succeeded), "{:?}", second.error);
    let first = again.service.run(1, None).await.unwrap();
    assert_eq!((first.state, first.error.as_deref()), (RunState::Failed, Some("interrupted by a restart")));
    assert!(again.parts.store.get(&half_written).await.is_err());
    assert_eq!(again.current(id).await.run, 2);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_after_the_manifest_counts_the_run_as_published() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    let id = scene.add_view("v", LatePolicy::Include, Refresh::Manual, Cut::default());
    scene.serve();
    scene.append(&Cut(vec![100, 50, 0]));
    let run = scene.run("v", RunKind::Full).await;
    scene.stop().await;
    let running = RunDocument { state: RunState::Running, verdict: None, ..run };
    scene.service.documents.put(&running).await.unwrap();
    scene.service.recover().await.unwrap();
    let run = scene.service.run(1, None).await.unwrap();
    assert_eq!((run.state, run.verdict), (RunState::Succeeded, Some(Verdict::Exact)));
    assert_eq!(scene.current(id).await.run, 1);
    assert_eq!(scene.service.runs(None, 10).await.unwrap().len(), 1, "nothing is started again");
}
