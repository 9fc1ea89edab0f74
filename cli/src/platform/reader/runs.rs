//! Runs as their documents in the store show them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::documents::manifest::Manifest;
use schemas::documents::run::{RunDocument, RunKind, RunTrigger};
use schemas::{Certificate, Code, Problem};
use storage::StorageError;
use storage::certificates::CertificateStore;
use storage::layers::Runs;
use storage::runs::RunStore;
use storage::store::Store;
use tokio::time::Instant;
use uuid::Uuid;

use super::not_here;
use super::views::ReaderViews;

/// How often a run's document is read while somebody waits for its end.
const POLL: Duration = Duration::from_millis(250);

/// The runs of a store.
pub(super) struct StoredRuns {
    documents: RunStore,
    certificates: CertificateStore,
    views: Arc<ReaderViews>,
    owner: Option<String>,
}

impl StoredRuns {
    pub(super) fn new(store: &Store, views: Arc<ReaderViews>, owner: Option<String>) -> Self {
        let (documents, certificates) = (RunStore::new(store.clone()), CertificateStore::new(store.clone()));
        Self { documents, certificates, views, owner }
    }

    fn view(&self, name: &str) -> Result<Uuid, Problem> {
        let missing = || Problem::new(Code::NotFound, format!("there is no view {name}"));
        self.views.catalog().view(name).map(|view| view.id).ok_or_else(missing)
    }

    fn refuse<T>(&self, what: &str) -> Result<T, Problem> {
        Err(not_here(what, self.owner.as_deref()))
    }
}

#[async_trait]
impl Runs for StoredRuns {
    async fn start(&self, _: &str, _: RunKind, _: RunTrigger) -> Result<RunDocument, Problem> {
        self.refuse("it starts no runs")
    }

    async fn run(&self, id: u64, wait: Option<Duration>) -> Result<RunDocument, Problem> {
        let deadline = Instant::now() + wait.unwrap_or_default();
        loop {
            let run = match self.documents.get(id).await {
                Ok(run) => run,
                Err(StorageError::NotFound { .. }) => {
                    return Err(Problem::new(Code::NotFound, format!("there is no run {id}")));
                }
                Err(error) => return Err(error.problem()),
            };
            if run.state.is_final() || Instant::now() + POLL > deadline {
                return Ok(run);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn runs(&self, view: Option<&str>, limit: usize) -> Result<Vec<RunDocument>, Problem> {
        self.documents.list(view, limit).await.map_err(|e| e.problem())
    }

    async fn cancel(&self, _: u64) -> Result<RunDocument, Problem> {
        self.refuse("it cancels no runs")
    }

    async fn certificate(&self, view: &str, run: Option<u64>) -> Result<Certificate, Problem> {
        let id = self.view(view)?;
        let found = match run {
            Some(run) => self.certificates.get(id, run).await.map(Some),
            None => self.certificates.latest(id).await,
        };
        match found {
            Ok(Some(certificate)) => Ok(certificate),
            Ok(None) | Err(StorageError::NotFound { .. }) => {
                Err(Problem::new(Code::NotFound, format!("view {view}: there is no such certificate")))
            }
            Err(error) => Err(error.problem()),
        }
    }

    async fn certificates(&self, view: &str, limit: usize) -> Result<Vec<Certificate>, Problem> {
        let id = self.view(view)?;
        self.certificates.list(id, limit).await.map_err(|e| e.problem())
    }

    async fn rollback(&self, _: &str, _: u64) -> Result<Manifest, Problem> {
        self.refuse("it rolls nothing back")
    }
}
