//! A node that only answers queries: no log, no fold, nothing of its own but a cache. Any number of them may
//! work on one store.
//!
//! ```text
//!  store ─► catalogue ─► compiled views ─┐
//!  store ─► manifests, deltas ───────────┼─► snapshots ─► queries
//!  owner ─► tail (internal HTTP) ────────┘
//! ```

mod owner;
mod runs;
mod statements;
mod views;

use std::sync::Arc;
use std::time::Duration;

use schemas::Problem;
use serving::engine::QueryEngine;
use serving::stored::{StoredParts, StoredSnapshots, Tails};
use storage::catalog::CatalogStore;
use storage::clock::Clock;
use storage::layers::Logs;
use storage::log::Log;
use storage::store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::owner::OwnerClient;
use self::runs::StoredRuns;
use self::statements::ReaderStatements;
use self::views::ReaderViews;
use super::folder::DataFolder;
use super::tasks::Tasks;
use crate::config::Config;

/// Everything that runs on such a node.
pub(super) struct Reader {
    pub(super) engine: Arc<QueryEngine>,
    pub(super) statements: Arc<ReaderStatements>,
    pub(super) tasks: Tasks,
    follower: Follower,
}

/// What follows the store.
struct Follower {
    catalog: Arc<CatalogStore>,
    views: Arc<ReaderViews>,
    snapshots: Arc<StoredSnapshots>,
    interval: Duration,
}

impl Follower {
    /// Takes over what is new: the snapshots first, so that a view that is in the catalogue can be answered.
    async fn once(&self) -> Result<(), Problem> {
        let catalog = self.catalog.refresh().await.map_err(|e| e.problem())?;
        let compiled = self.views.compile(&catalog).await?;
        self.snapshots.refresh(&catalog).await?;
        self.views.set(compiled);
        Ok(())
    }

    /// Follows the store until stopped. While it fails, what was read before stays in use.
    async fn run(self, stop: CancellationToken) -> Result<(), Problem> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.interval) => {}
            }
            let synced = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                synced = self.once() => synced,
            };
            if let Err(problem) = synced {
                metrics::counter!("bifold_store_refresh_failures_total").increment(1);
                tracing::warn!(error = %problem, "what is new in the store could not be read; trying again");
            }
        }
    }
}

/// Streams of a node without a log.
struct NoLogs;

impl Logs for NoLogs {
    fn log(&self, _: Uuid) -> Option<Arc<dyn Log>> {
        None
    }

    fn dead_letters(&self, _: Uuid) -> Option<Arc<dyn Log>> {
        None
    }
}

/// Reads the store once; the node is ready afterwards.
pub(super) async fn wire(config: &Config, folder: &DataFolder, clock: Arc<dyn Clock>) -> anyhow::Result<Reader> {
    let limits = config.limits.clone();
    let store = Store::open(config.object_store_url()?.as_str())?;
    let store = store.with_cache(&folder.cache(), limits.store_cache_bytes_max)?;
    let catalog = Arc::new(CatalogStore::open(store.clone()).await?);
    let owner = match &config.owner_url {
        Some(url) => {
            let token = config.auth.owner_token.as_deref().unwrap_or(folder.token());
            Some(Arc::new(OwnerClient::new(url, token)?) as Arc<dyn Tails>)
        }
        None => None,
    };
    let parts = StoredParts { store: store.clone(), clock: Arc::clone(&clock), owner };
    let snapshots = Arc::new(StoredSnapshots::new(parts));
    let views = Arc::new(ReaderViews::new(store.clone()));
    let interval = Duration::from_millis(limits.store_refresh_ms.max(10));
    let follower = Follower { catalog, views: Arc::clone(&views), snapshots: Arc::clone(&snapshots), interval };
    follower.once().await?;
    let engine = QueryEngine::new(serving::parts::Parts {
        catalogs: Arc::clone(&views) as _,
        views: Arc::clone(&views) as _,
        snapshots,
        runs: Arc::new(StoredRuns::new(&store, Arc::clone(&views), config.owner_url.clone())),
        logs: Arc::new(NoLogs),
        store,
        clock,
        limits,
        dead_letter_schema: ingest::dead_letters::dead_letter_schema(),
        intake: None,
    })?;
    let statements = Arc::new(ReaderStatements::new(views, config.owner_url.clone()));
    Ok(Reader { engine, statements, tasks: Tasks::new(), follower })
}

/// Answers until stopped.
pub(super) async fn run(
    reader: Reader,
    server: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Reader { tasks, follower, engine, .. } = reader;
    let stopped = stop.clone();
    tasks.spawn("changes", async move {
        stopped.cancelled().await;
        // their requests would keep the server from ending
        engine.end_changes();
        Ok(())
    });
    tasks.spawn("store", follower.run(stop.clone()));
    let result = super::served(&tasks, server).await;
    stop.cancel();
    result.and(tasks.finish().await)
}

/// What only the owner of the store does.
fn not_here(what: &str, owner: Option<&str>) -> Problem {
    let problem = Problem::new(schemas::Code::Unsupported, format!("this node only answers queries: {what}"));
    match owner {
        Some(url) => problem.with_hint(format!("ask {url}")),
        None => problem.with_hint("ask the node that writes to the store"),
    }
}
