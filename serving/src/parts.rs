//! What serving is given: the other layers, as traits that `cli` wires.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use operators::{StaticTable, View};
use schemas::statement::Placed;
use schemas::{Catalog, Limits, Problem};
use storage::catalog::CatalogStore;
use storage::clock::Clock;
use storage::layers::{Intake, Logs, Runs, Snapshots};
use storage::store::Store;
use uuid::Uuid;

/// The current catalogue.
pub trait Catalogs: Send + Sync {
    /// As it stands now.
    fn current(&self) -> Arc<Catalog>;
}

impl Catalogs for CatalogStore {
    fn current(&self) -> Arc<Catalog> {
        Self::current(self)
    }
}

/// What was compiled or loaded for the things in the catalogue.
pub trait Views: Send + Sync {
    /// The compiled view with that id.
    fn view(&self, id: Uuid) -> Option<Arc<View>>;

    /// The rows of the static table with that id, in its current version.
    fn table(&self, id: Uuid) -> Option<Arc<StaticTable>>;
}

/// Carries out every statement that is not a query.
#[async_trait]
pub trait Statements: Send + Sync {
    /// Executes one statement.
    ///
    /// `files` are the contents of the files that a script names (`CREATE TABLE … FROM FILE`), by name.
    ///
    /// # Errors
    /// What a client is told; positions count from the beginning of the statement's text.
    async fn execute(&self, placed: &Placed, files: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem>;

    /// A dry run of a script, which changes nothing.
    fn rehearse(&self) -> Box<dyn Rehearsal + '_>;
}

/// A dry run, from the first statement of a script to its last.
pub trait Rehearsal: Send {
    /// Checks a statement as if those before it had been executed.
    ///
    /// # Errors
    /// As [`Statements::execute`].
    fn check(&mut self, placed: &Placed, files: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem>;
}

/// What a statement that is not a query says.
#[derive(Debug, Clone, Default)]
pub struct StatementAnswer {
    /// `created stream orders`
    pub message: String,
    /// For `SHOW`.
    pub rows: Option<RecordBatch>,
}

/// Everything that a query engine is made of.
#[derive(Clone)]
pub struct Parts {
    /// The catalogue.
    pub catalogs: Arc<dyn Catalogs>,
    /// Compiled views and static tables.
    pub views: Arc<dyn Views>,
    /// The speed layer.
    pub snapshots: Arc<dyn Snapshots>,
    /// The batch layer.
    pub runs: Arc<dyn Runs>,
    /// The logs: heads, dead letters.
    pub logs: Arc<dyn Logs>,
    /// Where the batch views' files are, by the paths that manifests name.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Bounds of queries.
    pub limits: Limits,
    /// Rows of a dead-letter log.
    pub dead_letter_schema: SchemaRef,
    /// What came in; none where ingest is not known.
    pub intake: Option<Arc<dyn Intake>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("limits", &self.limits).finish_non_exhaustive()
    }
}
