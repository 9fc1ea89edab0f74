//! What the layers around serving answer in tests.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use operators::{StaticTable, View};
use schemas::documents::manifest::Manifest;
use schemas::documents::run::{RunDocument, RunKind, RunState, RunTrigger};
use schemas::{Catalog, Certificate, Code, Cut, Problem};
use storage::layers::{Logs, Runs, Snapshots};
use storage::log::{Frame, Log, MemoryLog};
use storage::snapshot::StreamSnapshot;
use uuid::Uuid;

use super::stream::{INCARNATION, TABLE};
use super::{NOW_US, World};
use crate::parts::{Catalogs, Views};

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
        (id == TABLE).then(|| {
            Arc::new(StaticTable {
                name: "regions".into(),
                rows,
                identity: "regions-1".into(),
                is_late: false,
                valid_from: None,
            })
        })
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

/// Two bad records.
pub(super) fn dead_letter_rows() -> RecordBatch {
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
