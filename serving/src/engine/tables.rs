//! From a query's text to a plan over the tables that it names, all at one position.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
    TableProvider,
};
use datafusion::common::{DataFusionError, ParamValues, TableReference};
use datafusion::config::Dialect;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use operators::{StaticTable, without_lateral};
use schemas::statement::plain_windows;
use schemas::{Catalog, Code, Problem, TableDef};

use super::finality::Finality;
use super::{
    Covered, NamedView, QueryEngine, QueryRequest, Referenced, SCHEMAS, Snapshots, resolve, schema_of, sql_problem,
};
use crate::source::{Layer, SnapshotStates, UnionStates};
use crate::system::{self, Listed};

/// A query, bound to the snapshots that it will be answered from.
pub(crate) struct Prepared {
    pub(crate) session: SessionState,
    pub(crate) plan: LogicalPlan,
    pub(crate) covered: Vec<Covered>,
    /// True if a table has only the newest of what there is.
    pub(crate) cut: bool,
    /// Cells in memory that the plan scans.
    pub(crate) scanned: Arc<AtomicU64>,
}

/// What resolving a query's tables leads to, besides the tables.
#[derive(Default)]
struct Read {
    covered: Vec<Covered>,
    cut: bool,
    scanned: Arc<AtomicU64>,
    finality: Finality,
}

impl Read {
    fn of(sql: &str) -> Self {
        Self { finality: Finality::of(sql), ..Self::default() }
    }

    fn listed(&mut self, listed: Listed) -> Result<Arc<dyn TableProvider>, Problem> {
        self.cut |= listed.cut;
        in_memory(listed.rows)
    }
}

/// The tables of one query by schema and name.
type Tables = BTreeMap<(String, String), Arc<dyn TableProvider>>;

impl QueryEngine {
    /// Parses a query, takes one snapshot per stream that it needs, and plans it.
    pub(super) async fn prepare(
        &self,
        catalog: &Catalog,
        request: &QueryRequest,
        timeout: Duration,
    ) -> Result<Prepared, Problem> {
        let to_problem = |e: DataFusionError| sql_problem(&e, request);
        let sql = plain_windows(&request.sql);
        let statement = self.base.sql_to_statement(&sql, &Dialect::PostgreSQL).map_err(to_problem)?;
        let references = self.base.resolve_table_references(&statement).map_err(to_problem)?;
        let mut snapshots = Snapshots::new(&self.parts, catalog, &request.at_least, timeout)?;
        let (mut tables, mut read) = (Tables::new(), Read::of(&request.sql));
        for reference in references {
            if self.is_table_function(&reference) {
                continue;
            }
            let referenced = resolve(catalog, &reference, &request.sql)?;
            let table = self.table(catalog, &referenced, &mut snapshots, &mut read).await?;
            tables.insert((schema_of(&reference).to_owned(), reference.table().to_owned()), table);
        }
        snapshots.assert_reached(&read.covered)?;
        let statement = read.finality.without_in_stars(statement);
        let session = self.session(tables).map_err(to_problem)?;
        let plan = session.statement_to_plan(statement).await.and_then(without_lateral);
        let plan = plan.map_err(|error| read.finality.explain(to_problem(error)))?;
        assert_read_only(&plan)?;
        let plan = with_params(plan, request)?;
        Ok(Prepared { session, plan, covered: read.covered, cut: read.cut, scanned: read.scanned })
    }

    /// `generate_series` and the like, which stand where a table can stand.
    fn is_table_function(&self, reference: &TableReference) -> bool {
        reference.schema().is_none() && self.base.table_functions().contains_key(reference.table())
    }

    /// A session that sees these tables and nothing else.
    fn session(&self, tables: Tables) -> Result<SessionState, DataFusionError> {
        let list = MemoryCatalogProviderList::new();
        let catalog = MemoryCatalogProvider::new();
        let schemas: BTreeMap<&str, Arc<MemorySchemaProvider>> =
            SCHEMAS.into_iter().map(|name| (name, Arc::new(MemorySchemaProvider::new()))).collect();
        for ((schema, name), table) in tables {
            if let Some(schema) = schemas.get(schema.as_str()) {
                schema.register_table(name, table)?;
            }
        }
        for (name, schema) in schemas {
            catalog.register_schema(name, schema)?;
        }
        datafusion::catalog::CatalogProviderList::register_catalog(&list, "bifold".into(), Arc::new(catalog));
        let mut session = self.base.clone();
        session.register_catalog_list(Arc::new(list));
        // what now() says, once for the whole query
        session.execution_props_mut().query_execution_start_time =
            chrono::DateTime::from_timestamp_micros(self.parts.clock.now_us());
        Ok(session)
    }

    async fn table(
        &self,
        catalog: &Catalog,
        referenced: &Referenced,
        snapshots: &mut Snapshots<'_>,
        read: &mut Read,
    ) -> Result<Arc<dyn TableProvider>, Problem> {
        match referenced {
            Referenced::View(named, layer) => self.view(named, *layer, snapshots, read).await,
            Referenced::Table(def) => {
                let rows = self.parts.views.table(def.id);
                let rows =
                    rows.ok_or_else(|| Problem::new(Code::NotReady, format!("table {} is being loaded", def.name)))?;
                in_memory(declared(&rows, def)?)
            }
            Referenced::Reconciliation(named) => in_memory(vec![system::reconciliation(&self.parts, named).await?]),
            Referenced::DeadLetters(def) => read.listed(system::dead_letters(&self.parts, def).await?),
            Referenced::System(name) if name == "sinks" => {
                in_memory(vec![system::sinks(&self.sinks, catalog, snapshots).await?])
            }
            Referenced::System(name) => {
                read.listed(system::table(name, &self.parts, catalog, &self.history, snapshots).await?)
            }
        }
    }
}

impl QueryEngine {
    /// A view as a table: the states of all of its parts, merged and answered together.
    async fn view(
        &self,
        named: &NamedView,
        layer: Layer,
        snapshots: &mut Snapshots<'_>,
        read: &mut Read,
    ) -> Result<Arc<dyn TableProvider>, Problem> {
        let parts = snapshots.parts(named, layer).await?;
        let states = |one: &Covered| {
            let (view, snapshot) = (Arc::clone(&one.view), Arc::clone(&one.snapshot));
            SnapshotStates::new(view, snapshot, layer, Arc::clone(&self.files)).counting(&read.scanned)
        };
        let states = Arc::new(UnionStates(parts.iter().map(states).collect()));
        let view = &parts[0].view;
        let are_alike = parts[1..].iter().all(|one| one.view.has_same_final_windows(view));
        let table = if are_alike && parts.iter().all(|one| read.finality.is_asked_of(one)) {
            read.finality.note(&named.name);
            operators::merged::table_with_finality(view, &named.name, states, &Covered::frontier_of(&parts))
        } else {
            operators::merged::table(view, &named.name, states)
        };
        read.covered.extend(parts);
        table.map_err(|e| internal(&e))
    }
}

/// A table's rows without the column that only views read.
fn declared(table: &StaticTable, def: &TableDef) -> Result<Vec<RecordBatch>, Problem> {
    if table.valid_from.is_none() {
        return Ok(table.rows.clone());
    }
    let columns: Vec<usize> = (0..def.columns.len()).collect();
    let rows = table.rows.iter().map(|rows| rows.project(&columns)).collect::<Result<_, _>>();
    rows.map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

fn internal(error: &DataFusionError) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}

/// A table of rows that are there already; at least one batch, for the schema.
fn in_memory(rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>, Problem> {
    let Some(first) = rows.first() else { return Err(Problem::new(Code::Internal, "a table without a schema")) };
    let table = MemTable::try_new(first.schema(), vec![rows]).map_err(|e| internal(&e))?;
    Ok(Arc::new(table))
}

/// A query may read; nothing else (INTERFACES §6).
fn assert_read_only(plan: &LogicalPlan) -> Result<(), Problem> {
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(plan).map_err(|error| {
        let message = error.strip_backtrace();
        let message = message.trim_start_matches("Error during planning: ");
        Problem::new(Code::Unsupported, format!("a query only reads: {message}"))
            .with_hint("queries are SELECT, WITH, VALUES, EXPLAIN and DESCRIBE")
    })
}

fn with_params(plan: LogicalPlan, request: &QueryRequest) -> Result<LogicalPlan, Problem> {
    let wanted = plan.get_parameter_names().map_err(|e| sql_problem(&e, request))?.len();
    if wanted != request.params.len() {
        let what = format!("the query has {wanted} parameters, params has {} values", request.params.len());
        return Err(Problem::new(Code::BadRequest, what));
    }
    if wanted == 0 {
        return Ok(plan);
    }
    plan.with_param_values(ParamValues::from(request.params.clone())).map_err(|e| sql_problem(&e, request))
}
