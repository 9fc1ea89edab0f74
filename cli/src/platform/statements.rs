//! Carries out every statement that is not a query. One at a time: the catalogue has one writer.

mod compile;
mod copy;
mod create;
mod drop;
mod freeze;
mod refresh;
mod rehearsal;
pub(super) mod show;
mod sinks;
mod tables;
mod union;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use batch::RunService;
use ingest::service::IngestService;
use schemas::problem::SqlPosition;
use schemas::statement::{Placed, Statement};
use schemas::{Code, Problem, TableDef};
use serving::parts::{Rehearsal, StatementAnswer, Statements};
use storage::layers::Runs;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use self::rehearsal::Rehearsed;
use super::registry::Registry;

/// Statements over the registry.
pub(crate) struct StatementService {
    registry: Arc<Registry>,
    runs: Arc<RunService>,
    ingest: Arc<IngestService>,
    changing: Mutex<()>,
    importer: Arc<copy::Importer>,
    /// The platform takes no more requests: open ones are to end.
    stop: CancellationToken,
}

impl StatementService {
    pub(crate) fn new(
        registry: Arc<Registry>,
        runs: Arc<RunService>,
        ingest: Arc<IngestService>,
        stop: CancellationToken,
    ) -> Self {
        let importer = copy::Importer::new(Arc::clone(&registry), Arc::clone(&ingest), stop.clone());
        Self { registry, runs, ingest, changing: Mutex::new(()), importer, stop }
    }

    /// The tables of the catalogue.
    pub(super) fn tables(&self) -> Vec<TableDef> {
        self.registry.parts.catalog.current().tables.clone()
    }

    pub(super) fn now_us(&self) -> i64 {
        self.registry.parts.clock.now_us()
    }
}

/// An answer of one line.
pub(super) fn message(text: impl Into<String>) -> StatementAnswer {
    StatementAnswer { message: text.into(), rows: None }
}

#[async_trait]
impl Statements for StatementService {
    async fn execute(&self, placed: &Placed, files: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem> {
        match &placed.statement {
            Statement::Refresh { name, incremental } => return self.refresh(name, *incremental).await,
            Statement::CreateTable(create) => return self.create_table(create, files).await,
            Statement::RefreshTable { name } => {
                let refreshed = self.refresh_table(name).await;
                return refreshed.map_err(|problem| match problem.code {
                    Code::Unsupported => problem.at(&placed.text, SqlPosition { line: 1, column: 1 }),
                    _ => problem,
                });
            }
            Statement::Copy(copy) => return self.copy(copy).await,
            Statement::Show(kind) => return show::show(&self.registry.parts.catalog.current(), *kind),
            Statement::ShowCreate { kind, name } => {
                return show::show_create(&self.registry.parts.catalog.current(), *kind, name);
            }
            _ => {}
        }
        let _one_at_a_time = self.changing.lock().await;
        match &placed.statement {
            Statement::CreateStream(create) => self.create_stream(create).await,
            Statement::CreateView(create) => self.create_view(create, &placed.text).await,
            Statement::CreateSink(create) => self.create_sink(create, &placed.text).await,
            Statement::Drop { kind, name, if_exists } => self.drop(*kind, name, *if_exists).await,
            Statement::Rollback { name, run } => {
                let view = self.view_of_run(name, *run).await?;
                let manifest = self.runs.rollback(&view, *run).await?;
                Ok(message(format!("{view} is back at run {}", manifest.run)))
            }
            other => Err(Problem::new(Code::Internal, format!("not a statement for the catalogue: {other:?}"))),
        }
    }

    fn rehearse(&self) -> Box<dyn Rehearsal + '_> {
        Box::new(Rehearsed::new(self))
    }
}
