//! The query engine: one statement that only reads, answered from one consistent snapshot, within bounds.

mod coverage;
mod execute;
mod finality;
mod history;
mod memory;
mod request;
mod resolve;
mod stream;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::scalar::ScalarValue;
use schemas::freshness::{Freshness, Statistics};
use schemas::problem::SqlPosition;
use schemas::{Code, Problem};
use storage::batch_view::CheckedStore;
use tokio::sync::Semaphore;
use url::Url;

pub(crate) use coverage::{Covered, Snapshots, freshness, lag_us};
pub(crate) use history::{Entry, History};
pub use request::{QueryAnswer, QueryRequest, params_from_json};
pub(crate) use resolve::{NamedView, Referenced, SCHEMAS, resolve, schema_of};
pub(crate) use stream::stream_problem;

use crate::changes::FeedRoom;
use crate::lookup::Lookup;
use crate::parts::Parts;
use crate::sinks::SinkBook;
use crate::source::{Layer, STORE_URL};
use crate::system;
use coverage::{LateCounts, assert_fresh};
use memory::QueryMemory;

/// Answers queries over views, static tables and the system's own tables.
#[derive(Debug)]
pub struct QueryEngine {
    pub(crate) parts: Parts,
    pub(crate) history: History,
    base: SessionState,
    /// The store, with the checksums of batch views.
    files: Arc<CheckedStore>,
    running: Semaphore,
    /// Of all queries.
    memory: Arc<GreedyMemoryPool>,
    late: LateCounts,
    pub(crate) lookup: Lookup,
    pub(crate) feeds: FeedRoom,
    /// How the sinks do.
    pub(crate) sinks: SinkBook,
}

impl QueryEngine {
    /// An engine over the other layers.
    ///
    /// # Errors
    /// DataFusion could not be set up.
    pub fn new(parts: Parts) -> Result<Arc<Self>, Problem> {
        let files = Arc::new(CheckedStore::new(parts.store.inner()));
        let base = base_session(Arc::clone(&files))?;
        let running = Semaphore::new(parts.limits.queries_at_once.max(1));
        let lookup = Lookup::new(parts.store.clone());
        let memory = Arc::new(GreedyMemoryPool::new(parts.limits.queries_memory_bytes));
        Ok(Arc::new(Self {
            base,
            files,
            running,
            memory,
            lookup,
            parts,
            history: History::default(),
            late: LateCounts::default(),
            feeds: FeedRoom::default(),
            sinks: SinkBook::default(),
        }))
    }

    /// Ends all readers of changes: a request of theirs would otherwise go on for ever.
    pub fn end_changes(&self) {
        self.feeds.close();
    }

    /// Answers one query.
    ///
    /// # Errors
    /// `overloaded` when too many queries are running, `timeout`, `memory_limit`, and what is wrong with
    /// the query, with its place in `request.sql`.
    pub async fn query(&self, request: &QueryRequest) -> Result<QueryAnswer, Problem> {
        let timeout = self.timeout(request);
        self.bounded(&request.sql, timeout, self.answer(request, timeout)).await
    }

    /// The rows of a view whose leading key columns have these values, without planning anything. The
    /// values are in the order of `operators::View`'s key columns and of their types.
    ///
    /// None where this is no plain look-up: the view's finish sorts, limits or joins, or the view has no key.
    ///
    /// # Errors
    /// As [`QueryEngine::query`].
    pub async fn look_up(
        &self,
        view: &str,
        key: &[ScalarValue],
        request: &QueryRequest,
    ) -> Result<Option<QueryAnswer>, Problem> {
        let timeout = self.timeout(request);
        self.bounded(&request.sql, timeout, self.find(view, key, request, timeout)).await
    }

    /// `EXPLAIN LAYERS`: which batch views and which ranges a query would be answered from.
    ///
    /// # Errors
    /// As [`QueryEngine::query`].
    pub async fn explain_layers(&self, request: &QueryRequest) -> Result<QueryAnswer, Problem> {
        let timeout = self.timeout(request);
        let explain = async {
            let catalog = self.parts.catalogs.current();
            let prepared = self.prepare(&catalog, request, timeout).await?;
            let mut answer = QueryAnswer::of_rows(system::layers(&prepared.covered)?, String::new());
            answer.freshness = freshness(&self.parts, &prepared.covered, &self.late).await;
            Ok(answer)
        };
        self.bounded(&request.sql, timeout, explain).await
    }

    fn timeout(&self, request: &QueryRequest) -> Duration {
        let most = Duration::from_millis(self.parts.limits.query_timeout_ms);
        request.timeout.map_or(most, |timeout| timeout.min(most))
    }

    pub(crate) fn row_limit(&self, request: &QueryRequest) -> usize {
        let most = self.parts.limits.query_rows_max;
        request.row_limit.map_or(most, |limit| limit.min(most))
    }

    /// Runs an answer within the bounds of number and time, and keeps the books.
    async fn bounded<T: Answered>(
        &self,
        sql: &str,
        timeout: Duration,
        answer: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let entry = self.history.begin(sql, self.parts.clock.now_us());
        let result = if let Ok(_permit) = self.running.try_acquire() {
            tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Err(timed_out(timeout)))
        } else {
            let what = format!("{} queries are running, more are not admitted", self.parts.limits.queries_at_once);
            Err(Problem::new(Code::Overloaded, what))
        };
        metrics::histogram!("bifold_query_seconds").record(entry.elapsed_ms() / 1e3);
        let status = result.as_ref().map_or_else(|problem| problem.code.as_str(), |_| "ok");
        metrics::counter!("bifold_queries_total", "status" => status).increment(1);
        finish(entry, result)
    }

    async fn answer(&self, request: &QueryRequest, timeout: Duration) -> Result<QueryAnswer, Problem> {
        let catalog = self.parts.catalogs.current();
        let prepared = self.prepare(&catalog, request, timeout).await?;
        assert_fresh(&self.parts, &prepared.covered, request.max_staleness).await?;
        let memory = QueryMemory::new(self.parts.limits.query_memory_bytes, &self.memory);
        let executed = self.execute(&prepared, self.row_limit(request), &memory).await;
        let executed = executed.map_err(|e| if memory.is_crowded() { crowded() } else { sql_problem(&e, request) })?;
        let freshness = freshness(&self.parts, &prepared.covered, &self.late).await;
        Ok(QueryAnswer {
            freshness: Freshness { complete: freshness.complete && !prepared.cut, ..freshness },
            schema: executed.schema,
            rows: executed.rows,
            truncated: executed.truncated || prepared.cut,
            next: None,
            statistics: statistics(executed.cells_read, executed.bytes_read),
        })
    }

    async fn find(
        &self,
        name: &str,
        key: &[ScalarValue],
        request: &QueryRequest,
        timeout: Duration,
    ) -> Result<Option<QueryAnswer>, Problem> {
        let catalog = self.parts.catalogs.current();
        let Some(named) = NamedView::of(&catalog, name) else {
            return Err(Problem::new(Code::NotFound, format!("there is no view {name}")));
        };
        self.lookup.forget_dropped(&catalog);
        let mut snapshots = Snapshots::new(&self.parts, &catalog, &request.at_least, timeout)?;
        let covered = snapshots.parts(&named, Layer::Merged).await?;
        assert_fresh(&self.parts, &covered, request.max_staleness).await?;
        let found = self.lookup.get(&covered, key).await;
        let Some(found) = found.map_err(|problem| of_view(name, problem))? else { return Ok(None) };
        let limit = self.row_limit(request);
        Ok(Some(QueryAnswer {
            freshness: freshness(&self.parts, &covered, &self.late).await,
            schema: found.rows.schema(),
            truncated: found.rows.num_rows() > limit,
            next: None,
            rows: vec![found.rows.slice(0, found.rows.num_rows().min(limit))],
            statistics: statistics(found.cells_read, found.bytes_read),
        }))
    }
}

fn crowded() -> Problem {
    Problem::new(Code::Overloaded, "the queries that are running use all memory that queries may use")
}

/// A value that cannot be computed, of a view that the client knows by name.
fn of_view(name: &str, problem: Problem) -> Problem {
    match problem.code {
        Code::ComputationFailed => Problem { detail: format!("view {name}: {}", problem.detail), ..problem },
        _ => problem,
    }
}

fn timed_out(timeout: Duration) -> Problem {
    Problem::new(Code::Timeout, format!("the query took longer than {} ms", timeout.as_millis()))
}

/// Elapsed time and id are filled in when the books are closed.
fn statistics(cells_read: u64, bytes_read: u64) -> Statistics {
    Statistics { elapsed_ms: 0.0, cells_read, bytes_read, query_id: String::new() }
}

/// What the books note about an answer.
trait Answered {
    fn answered(&mut self) -> Option<&mut QueryAnswer>;
}

impl Answered for QueryAnswer {
    fn answered(&mut self) -> Option<&mut QueryAnswer> {
        Some(self)
    }
}

impl Answered for Option<QueryAnswer> {
    fn answered(&mut self) -> Option<&mut QueryAnswer> {
        self.as_mut()
    }
}

fn finish<T: Answered>(entry: Entry, mut result: Result<T, Problem>) -> Result<T, Problem> {
    match &mut result {
        Err(problem) => entry.fail(problem.code),
        Ok(value) => match value.answered() {
            Some(answer) => {
                answer.statistics.elapsed_ms = entry.elapsed_ms();
                answer.statistics.query_id = entry.id.to_string();
                entry.succeed(answer.row_count() as u64, answer.statistics.cells_read);
            }
            None => entry.succeed(0, 0),
        },
    }
    result
}

pub(crate) fn sql_problem(error: &datafusion::common::DataFusionError, request: &QueryRequest) -> Problem {
    operators::error::problem(error, &request.sql, SqlPosition { line: 1, column: 1 })
}

/// Functions, rules and caches that all queries share; no disk, no other object store than ours.
fn base_session(files: Arc<CheckedStore>) -> Result<SessionState, Problem> {
    let internal = |what: String| Problem::new(Code::Internal, format!("the query engine could not be set up: {what}"));
    let runtime: RuntimeEnv = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build()
        .map_err(|e| internal(e.to_string()))?;
    let url = Url::parse(STORE_URL).map_err(|e| internal(e.to_string()))?;
    // DataFusion's default reads the machine's files
    let machine = Url::parse("file://").map_err(|e| internal(e.to_string()))?;
    runtime.deregister_object_store(&machine).map_err(|e| internal(e.to_string()))?;
    runtime.register_object_store(&url, files);
    let mut config = operators::session::config();
    config.options_mut().execution.parquet.pushdown_filters = true;
    config.options_mut().execution.parquet.reorder_filters = true;
    Ok(operators::session::query_state(config, Arc::new(runtime)))
}
