//! A platform in miniature for tests: real views and folds, a snapshot made by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, Float64Array, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use operators::{Folder, StaticTable, View, ViewSource, states};
use parking_lot::Mutex;
use schemas::column::ColumnDef;
use schemas::documents::manifest::{BatchFile, Manifest};
use schemas::documents::run::{RunDocument, RunKind, RunState, RunTrigger};
use schemas::problem::SqlPosition;
use schemas::statement::Placed;
use schemas::view::{Refresh, TableDef};
use schemas::{
    Catalog, Certificate, Code, Cut, LatePolicy, LedgerCounts, Limits, OnBadData, Problem, SqlType, StreamDef, Verdict,
    ViewDef,
};
use storage::Store;
use storage::batch_view::BatchViewWriter;
use storage::clock::ManualClock;
use storage::layers::{Logs, Runs, Snapshots};
use storage::log::{Frame, Log, MemoryLog};
use storage::snapshot::{RangeStates, StreamSnapshot, ViewSnapshot};
use uuid::Uuid;

use crate::engine::QueryEngine;
use crate::parts::{Catalogs, Parts, Rehearsal, StatementAnswer, Statements, Views};

/// The clock of all tests.
pub(crate) const NOW_US: i64 = 1_780_000_000_000_000;
/// One event: country, amount, event time in seconds.
pub(crate) type Event = (Option<&'static str>, f64, i64);

const STREAM: Uuid = Uuid::from_u128(1);
const INCARNATION: Uuid = Uuid::from_u128(2);
const TABLE: Uuid = Uuid::from_u128(3);

/// The stream of all tests.
pub(crate) fn clicks() -> StreamDef {
    let column = |name: &str, sql_type, nullable| ColumnDef { name: name.into(), sql_type, nullable };
    StreamDef {
        id: STREAM,
        incarnation: INCARNATION,
        name: "clicks".into(),
        columns: vec![
            column("country", SqlType::Text, true),
            column("amount", SqlType::Double, true),
            column("at", SqlType::TimestampTz, false),
        ],
        primary_key: vec![],
        time_column: Some("at".into()),
        watermark_delay_us: 60_000_000,
        partitions: 1,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        created_at_us: NOW_US,
    }
}

fn log_rows(events: &[Event]) -> RecordBatch {
    let times = || events.iter().map(|(_, _, at)| at * 1_000_000);
    let stamps = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events.iter().map(|(country, _, _)| *country).collect::<StringViewArray>()),
        Arc::new(Float64Array::from_iter_values(events.iter().map(|(_, amount, _)| *amount))),
        stamps(times().collect()),
        stamps(vec![NOW_US; events.len()]),
        stamps(times().collect()),
    ];
    RecordBatch::try_new(clicks().log_schema(), columns).unwrap()
}

/// The view of most tests.
pub(crate) const BY_COUNTRY: &str = "SELECT country, count(*) AS n, sum(amount) AS total, avg(amount) * 2 AS twice \
                                     FROM clicks GROUP BY country";

/// `by_country` over four batch events and two ranges.
pub(crate) async fn by_country() -> World {
    let batch: [Event; 5] =
        [(Some("DE"), 1.0, 10), (Some("KR"), 2.0, 20), (None, 4.0, 30), (Some("KR"), 8.0, 40), (Some("FR"), 0.5, 41)];
    let first: [Event; 2] = [(Some("KR"), 16.0, 50), (Some("US"), 32.0, 60)];
    let second: [Event; 3] = [(Some("KR"), 64.0, 70), (None, 128.0, 80), (Some("AT"), 0.25, 90)];
    World::new().with_view("by_country", BY_COUNTRY, Some(&batch), &[&first, &second]).await
}

/// What a test's platform is made of.
pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) views: BTreeMap<Uuid, Arc<View>>,
    pub(crate) snapshot: StreamSnapshot,
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) runs: Vec<RunDocument>,
    pub(crate) certificates: Vec<Certificate>,
    /// How often a snapshot was asked for.
    pub(crate) taken: Arc<AtomicUsize>,
}

impl World {
    /// A stream without views.
    pub(crate) fn new() -> Self {
        let table = TableDef {
            id: TABLE,
            name: "regions".into(),
            columns: vec![],
            source: "regions.csv".into(),
            version: 1,
            rows: 2,
            created_at_us: NOW_US,
        };
        Self {
            catalog: Catalog { streams: vec![clicks()], tables: vec![table], ..Catalog::default() },
            views: BTreeMap::new(),
            snapshot: StreamSnapshot {
                stream: STREAM,
                to: Cut::zero(1),
                taken_at_us: NOW_US,
                oldest_missing_us: None,
                max_event_time_us: vec![None],
                views: BTreeMap::new(),
            },
            store: Store::in_memory(),
            limits: Limits::default(),
            runs: vec![],
            certificates: vec![],
            taken: Arc::default(),
        }
    }

    /// Adds a view whose first events are in a published batch view, and the others in ranges.
    pub(crate) async fn with_view(
        mut self,
        name: &str,
        sql: &str,
        batch: Option<&[Event]>,
        speed: &[&[Event]],
    ) -> Self {
        let stream = clicks();
        let position = SqlPosition { line: 1, column: 1 };
        let source = ViewSource { sql, position, stream: &stream, tables: &[], late: LatePolicy::Include };
        let view = View::compile(&source).unwrap();
        let id = Uuid::from_u128(100 + self.views.len() as u128);
        let mut at = 0;
        let mut manifest = None;
        if let Some(events) = batch {
            manifest = Some(Arc::new(publish(&self.store, &view, id, events).await));
            at = events.len() as u64;
        }
        let mut ranges = vec![];
        for events in speed {
            let (folded, ledger) = fold(&view, at, events);
            let to = at + events.len() as u64;
            // every other range is sorted, as deltas are and a tail is not
            let sorted = ranges.len() % 2 == 0;
            let folded = if sorted { vec![states::merge(&view, &folded).unwrap()] } else { folded };
            ranges.push(Arc::new(RangeStates {
                from: Cut(vec![at]),
                to: Cut(vec![to]),
                states: folded,
                sorted,
                ledger: vec![ledger],
            }));
            at = to;
        }
        let semantic_hash = view.semantic_hash().to_owned();
        self.catalog.views.push(ViewDef {
            id,
            name: name.into(),
            version: 1,
            stream: STREAM,
            sql: sql.into(),
            refresh: Refresh::Manual,
            late: None,
            tables: vec![],
            semantic_hash: semantic_hash.clone(),
            from: Cut::zero(1),
            with_no_data: false,
            created_at_us: NOW_US,
        });
        let to = Cut(vec![at]);
        let one = ViewSnapshot {
            view: id,
            semantic_hash,
            from: Cut::zero(1),
            manifest,
            ranges,
            to: to.clone(),
            failed: None,
        };
        self.snapshot.to = to;
        let newest = batch.into_iter().flatten().chain(speed.iter().copied().flatten()).map(|event| event.2).max();
        self.snapshot.max_event_time_us = vec![newest.map(|seconds| seconds * 1_000_000)];
        self.snapshot.views.insert(id, Arc::new(one));
        self.views.insert(id, view);
        self
    }

    /// Changes the one view's snapshot.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut ViewSnapshot)) {
        let one = self.snapshot.views.values_mut().next().unwrap();
        change(Arc::make_mut(one));
    }

    pub(crate) fn engine(self) -> Arc<QueryEngine> {
        let store = self.store.clone();
        let limits = self.limits.clone();
        let world = Arc::new(self);
        QueryEngine::new(Parts {
            catalogs: Arc::clone(&world) as Arc<dyn Catalogs>,
            views: Arc::clone(&world) as Arc<dyn Views>,
            snapshots: Arc::clone(&world) as Arc<dyn Snapshots>,
            runs: Arc::clone(&world) as Arc<dyn Runs>,
            logs: world,
            store,
            clock: Arc::new(ManualClock::at(NOW_US)),
            limits,
            dead_letter_schema: dead_letter_rows().schema(),
        })
        .unwrap()
    }
}

fn fold(view: &Arc<View>, base: u64, events: &[Event]) -> (Vec<RecordBatch>, LedgerCounts) {
    let mut folder = Folder::new(view).unwrap();
    let ledger = folder.fold(0, base, &log_rows(events)).unwrap();
    (folder.take().unwrap().into_iter().collect(), ledger)
}

async fn publish(store: &Store, view: &Arc<View>, id: Uuid, events: &[Event]) -> Manifest {
    let (folded, ledger) = fold(view, 0, events);
    let sorted = states::merge(view, &folded).unwrap();
    let cells = sorted.num_rows() as u64;
    let files = write_batch_view(store, view, id, &sorted).await;
    Manifest {
        format: 1,
        sequence: 1,
        view: id,
        semantic_hash: view.semantic_hash().into(),
        run: 7,
        cut: Cut(vec![events.len() as u64]),
        files,
        cells,
        ledger: vec![ledger],
        verdict: Verdict::Exact,
        published_at_us: NOW_US - 5_000_000,
        rolled_back_from: None,
    }
}

async fn write_batch_view(store: &Store, view: &View, id: Uuid, states: &RecordBatch) -> Vec<BatchFile> {
    // several files, so that their order matters
    let size = 2.max(states.num_rows() / 4);
    let mut files = vec![];
    for (part, from) in (0..states.num_rows()).step_by(size).enumerate() {
        let path = storage::paths::batch_view_part(id, 7, part as u32);
        let schema = Arc::clone(view.state_schema());
        let mut writer = BatchViewWriter::create(store, &path, schema, view.key_columns());
        writer.write(&states.slice(from, size.min(states.num_rows() - from))).unwrap();
        files.push(writer.finish().await.unwrap());
    }
    files
}

impl Catalogs for World {
    fn current(&self) -> Arc<Catalog> {
        Arc::new(self.catalog.clone())
    }
}

impl Views for World {
    fn view(&self, id: Uuid) -> Option<Arc<View>> {
        self.views.get(&id).cloned()
    }

    fn table(&self, id: Uuid) -> Option<Arc<StaticTable>> {
        let schema = Schema::new(vec![
            Field::new("country", DataType::Utf8View, true),
            Field::new("region", DataType::Utf8View, true),
        ]);
        let column = |values: [&str; 2]| Arc::new(StringViewArray::from(values.to_vec())) as ArrayRef;
        let columns = vec![column(["KR", "DE"]), column(["Asia", "Europe"])];
        let rows = vec![RecordBatch::try_new(Arc::new(schema), columns).unwrap()];
        (id == TABLE).then(|| Arc::new(StaticTable { name: "regions".into(), rows, identity: "regions-1".into() }))
    }
}

#[async_trait]
impl Snapshots for World {
    async fn snapshot(&self, _: Uuid, at_least: Option<&Cut>, _: Duration) -> Result<Arc<StreamSnapshot>, Problem> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        match at_least {
            Some(cut) if cut.total() == u64::MAX => std::future::pending().await,
            Some(cut) if !cut.is_at_most(&self.snapshot.to) => Err(Problem::new(Code::Stale, "not reached")),
            _ => Ok(Arc::new(self.snapshot.clone())),
        }
    }
}

pub(crate) fn run_document(id: u64, state: RunState) -> RunDocument {
    RunDocument {
        format: 1,
        id,
        view: "by_country".into(),
        view_id: Uuid::from_u128(100),
        kind: RunKind::Full,
        trigger: RunTrigger::Manual,
        state,
        cut: None,
        rows: 25,
        rows_total: 100,
        rows_per_second: 1e6,
        eta_ms: Some(3),
        phase: "scan".into(),
        phase_ms: vec![],
        queued_at_us: NOW_US - 9_000_000,
        started_at_us: Some(NOW_US - 8_000_000),
        finished_at_us: None,
        verdict: None,
        error: None,
    }
}

#[async_trait]
impl Runs for World {
    async fn start(&self, view: &str, kind: RunKind, trigger: RunTrigger) -> Result<RunDocument, Problem> {
        if self.catalog.view(view).is_none() {
            return Err(Problem::new(Code::NotFound, format!("there is no view {view}")));
        }
        Ok(RunDocument { kind, trigger, ..run_document(8, RunState::Queued) })
    }

    async fn run(&self, id: u64, _: Option<Duration>) -> Result<RunDocument, Problem> {
        let found = self.runs.iter().find(|run| run.id == id).cloned();
        found.ok_or_else(|| Problem::new(Code::NotFound, format!("there is no run {id}")))
    }

    async fn runs(&self, view: Option<&str>, limit: usize) -> Result<Vec<RunDocument>, Problem> {
        let fits = |run: &&RunDocument| view.is_none_or(|view| run.view == view);
        Ok(self.runs.iter().filter(fits).take(limit).cloned().collect())
    }

    async fn cancel(&self, id: u64) -> Result<RunDocument, Problem> {
        Ok(RunDocument { state: RunState::Cancelled, ..self.run(id, None).await? })
    }

    async fn certificate(&self, view: &str, run: Option<u64>) -> Result<Certificate, Problem> {
        let fits = |one: &&Certificate| one.view == view && run.is_none_or(|run| one.run == run);
        let found = self.certificates.iter().find(fits).cloned();
        found.ok_or_else(|| Problem::new(Code::NotFound, "there is no certificate"))
    }

    async fn certificates(&self, view: &str, limit: usize) -> Result<Vec<Certificate>, Problem> {
        Ok(self.certificates.iter().filter(|one| one.view == view).take(limit).cloned().collect())
    }

    async fn rollback(&self, _: &str, _: u64) -> Result<Manifest, Problem> {
        Err(Problem::new(Code::NotFound, "no run is kept"))
    }
}

fn dead_letter_rows() -> RecordBatch {
    let raw: ArrayRef = Arc::new(BinaryArray::from(vec![b"{broken".as_slice(), b"\xff\x00"]));
    let code: ArrayRef = Arc::new(StringViewArray::from(vec!["bad_json", "bad_json"]));
    RecordBatch::try_from_iter(vec![("raw", raw), ("code", code)]).unwrap()
}

impl Logs for World {
    fn log(&self, _: Uuid) -> Option<Arc<dyn Log>> {
        None
    }

    fn dead_letters(&self, _: Uuid) -> Option<Arc<dyn Log>> {
        let log = MemoryLog::new(INCARNATION, 1);
        log.push(Frame { partition: 0, base: 0, rows: dead_letter_rows() });
        Some(log)
    }
}

/// Remembers what it was asked to do.
#[derive(Debug, Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<String>>);

#[async_trait]
impl Statements for Recorder {
    async fn execute(&self, placed: &Placed, files: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem> {
        self.record(placed, files, false)
    }

    fn rehearse(&self) -> Box<dyn Rehearsal + '_> {
        Box::new(Rehearsed(self))
    }
}

/// Writes down what it was asked to check.
struct Rehearsed<'a>(&'a Recorder);

impl Rehearsal for Rehearsed<'_> {
    fn check(&mut self, placed: &Placed, files: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem> {
        self.0.record(placed, files, true)
    }
}

impl Recorder {
    fn record(
        &self,
        placed: &Placed,
        files: &BTreeMap<String, String>,
        dry_run: bool,
    ) -> Result<StatementAnswer, Problem> {
        self.0.lock().push(format!("{} files={} dry_run={dry_run}", placed.text, files.len()));
        if placed.text.contains("forbidden") {
            let problem = Problem::new(Code::InvalidSql, "no").at(&placed.text, SqlPosition { line: 1, column: 6 });
            return Err(problem);
        }
        Ok(StatementAnswer { message: "done".into(), rows: None })
    }
}
