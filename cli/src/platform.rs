//! The platform: all roles wired together in one process. The only place where the layers meet.
//!
//! ```text
//!  HTTP ─► ingest ─► log ─► speed ─┐            catalogue ─► registry: open streams, compiled views
//!                     └──► landing ─► master ─► runs ─► manifests
//!  HTTP ─► serving ◄─ snapshots ◄──┘◄──────────────────┘
//! ```

mod enclosed;
mod events;
mod folder;
mod gate;
mod health;
mod http;
mod intake;
mod internal;
mod listener;
mod no_queries;
mod reader;
mod registry;
mod starting;
mod statements;
mod static_tables;
mod surroundings;
mod table_refresh;
mod table_sources;
mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use batch::{RunParts, RunService, Schedule};
use ingest::service::{IngestParts, IngestService};
use schemas::{Code, Problem};
use serving::engine::QueryEngine;
use serving::http::HttpState;
use serving::sinks::{SinkParts, SinkService};
use speed::SpeedService;
use storage::catalog::CatalogStore;
use storage::clock::Clock;
use storage::deltas::DeltaStore;
use storage::log::TailShares;
use storage::owner::{Claim, Ownership};
use storage::store::Store;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Role};
pub use enclosed::Enclosed;
use folder::DataFolder;
use gate::Progress;
use no_queries::NoQueries;
use registry::{Registry, RegistryParts};
pub use starting::Starting;
use statements::StatementService;
pub use surroundings::{BeforeSpeed, LogPlace, Surroundings};
use table_sources::TableSources;
use tasks::Tasks;

/// A running platform. Dropping it does not stop it; [`Platform::stop`] does.
#[derive(Debug)]
pub struct Platform {
    address: SocketAddr,
    url: String,
    token: String,
    taken_port: Option<u16>,
    stop: CancellationToken,
    work: Mutex<Option<JoinHandle<anyhow::Result<()>>>>,
    folder: Arc<DataFolder>,
    node: Node,
}

/// What runs in this process.
#[derive(Debug)]
struct Node {
    engine: Arc<QueryEngine>,
    /// None on a node that only answers queries.
    owner: Option<Owner>,
}

/// What only the owner of the streams has.
#[derive(Debug)]
struct Owner {
    ingest: Arc<IngestService>,
    registry: Arc<Registry>,
}

impl Platform {
    /// Opens the data folder, listens, and recovers every stream; returns when it is ready.
    ///
    /// # Errors
    /// The folder is in use by another process or damaged; no port is free.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        Starting::listen(config).await?.recover().await
    }

    /// [`Platform::start`] with a clock of the caller's.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with_clock(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        Starting::listen(config).await?.recover_with_clock(clock).await
    }

    /// `http://127.0.0.1:4480`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The configured port, if another one had to be used because it is taken.
    pub fn taken_port(&self) -> Option<u16> {
        self.taken_port
    }

    /// The file that holds the admin token.
    pub fn token_file(&self) -> std::path::PathBuf {
        self.folder.token_file()
    }

    /// Answers queries without HTTP: for tests and measurements in the same process.
    pub fn engine(&self) -> &Arc<QueryEngine> {
        &self.node.engine
    }

    /// Takes events in without HTTP: for tests and measurements in the same process. None on a node that only
    /// answers queries.
    pub fn ingest(&self) -> Option<&Arc<IngestService>> {
        self.node.owner.as_ref().map(|owner| &owner.ingest)
    }

    /// Waits until the platform ends: after [`Platform::stop`], or because a part of it failed.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn wait(&self) -> anyhow::Result<()> {
        let mut work = self.work.lock().await;
        let Some(running) = work.as_mut() else { return Ok(()) };
        let ended = running.await;
        // only now: whoever stopped waiting half-way may wait again
        *work = None;
        ended.context("the platform stopped abnormally")?
    }

    /// Takes no more requests, checkpoints, and ends.
    ///
    /// # Errors
    /// What failed on the way; nothing acknowledged is lost by that.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.wait().await
    }

    /// Checkpoints a stream now, instead of when it is due: for measurements.
    ///
    /// # Errors
    /// There is no such stream; the checkpoint failed.
    pub async fn checkpoint(&self, stream: &str) -> anyhow::Result<()> {
        let registry =
            self.node.owner.as_ref().map(|owner| &owner.registry).context("this node only answers queries")?;
        let open = ingest::service::Streams::stream(registry.as_ref(), stream);
        let stream = open.with_context(|| format!("there is no stream {stream}"))?;
        let speed = &registry.parts.speed;
        let cut = storage::layers::Speed::barrier(speed.as_ref(), stream.id).await?;
        storage::layers::Speed::release_barrier(speed.as_ref(), stream.id, &cut);
        Ok(())
    }

    /// What ends the platform when it is cancelled.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }
}

/// Everything that runs.
pub(crate) struct Wired {
    pub(crate) registry: Arc<Registry>,
    pub(crate) speed: Arc<SpeedService>,
    pub(crate) runs: Arc<RunService>,
    pub(crate) ingest: Arc<IngestService>,
    pub(crate) engine: Arc<QueryEngine>,
    pub(crate) statements: Arc<StatementService>,
    pub(crate) tasks: Tasks,
    /// Ends the work of the layers, after the last request.
    pub(crate) background: CancellationToken,
}

impl Wired {
    /// Ends everything, when no more requests come in.
    async fn wind_down(self) -> anyhow::Result<()> {
        self.ingest.close().await;
        self.background.cancel();
        self.registry.stop();
        let ended = self.tasks.finish().await;
        self.registry.close().await;
        ended
    }
}

async fn wire(
    config: &Config,
    folder: &Arc<DataFolder>,
    surroundings: &Surroundings,
    stop: &CancellationToken,
    progress: &Progress,
) -> anyhow::Result<Wired> {
    let clock = Arc::clone(&surroundings.clock);
    let tasks = Tasks::new();
    let store = owned(config, folder, store_of(config, folder, surroundings)?, &clock, &tasks, stop).await?;
    // only now: what is half written in another's store is not ours to remove
    store.sweep().await?;
    let catalog = Arc::new(CatalogStore::open(store.clone()).await?);
    let limits = config.limits.clone();
    let deltas = DeltaStore::new(store.clone());
    let speed = SpeedService::new(deltas, Arc::clone(&clock), limits.clone(), surroundings.threads);
    let parts = RegistryParts {
        catalog: Arc::clone(&catalog),
        store: store.clone(),
        speed: Arc::clone(&speed),
        clock: Arc::clone(&clock),
        limits: limits.clone(),
        landings: Arc::new(Semaphore::new(limits.landings_at_once.max(1))),
        tails: TailShares::new(limits.log_tails_bytes_max),
        folder: Arc::clone(folder),
        tasks: tasks.clone(),
        kafka: config.kafka.clone(),
        logs: surroundings.logs.clone(),
        table_sources: TableSources::of(config),
    };
    let registry = Registry::open(parts, progress).await?;
    let logs = Arc::clone(folder);
    let ingest = IngestService::new(IngestParts {
        streams: Arc::clone(&registry) as _,
        logs: Arc::clone(&registry) as _,
        snapshots: Some(Arc::clone(&speed) as _),
        clock: Arc::clone(&clock),
        limits: limits.clone(),
        backlogs: Some(Arc::clone(&registry) as _),
        ids_folder: Some(Arc::new(move |stream| logs.ids(stream))),
    });
    let intake: Arc<dyn storage::layers::Intake> =
        Arc::new(intake::IntakeBook { registry: Arc::clone(&registry), ingest: Arc::clone(&ingest) });
    let runs = Arc::new(RunService::new(RunParts {
        views: Arc::clone(&registry) as _,
        catalog: Arc::clone(&catalog),
        store: store.clone(),
        speed: surroundings.before(Arc::clone(&speed) as _),
        clock: Arc::clone(&clock),
        limits: limits.clone(),
        spill: folder.spill(),
        threads: surroundings.threads,
        intake: Some(Arc::clone(&intake)),
    }));
    let engine = QueryEngine::new(serving::parts::Parts {
        catalogs: catalog,
        views: Arc::clone(&registry) as _,
        snapshots: if config.has(Role::Serving) { Arc::clone(&speed) as _ } else { Arc::new(NoQueries) },
        runs: Arc::clone(&runs) as _,
        logs: Arc::clone(&registry) as _,
        store,
        clock,
        limits,
        dead_letter_schema: ingest::dead_letters::dead_letter_schema(),
        intake: Some(intake),
    })?;
    let statements = StatementService::new(Arc::clone(&registry), Arc::clone(&runs), Arc::clone(&ingest), stop.clone());
    let statements = Arc::new(statements);
    for waiting in registry.waiting() {
        let reached = Arc::clone(&registry).open_when_reached(waiting.def.id, Arc::clone(&runs), stop.clone());
        tasks.spawn("stream", reached);
    }
    let background = CancellationToken::new();
    Ok(Wired { registry, speed, runs, ingest, engine, statements, tasks, background })
}

/// The store with its folders on the local disk.
fn store_of(config: &Config, folder: &DataFolder, surroundings: &Surroundings) -> anyhow::Result<Store> {
    let store = match &surroundings.store {
        Some(store) => store.clone(),
        None => Store::open(config.object_store_url()?.as_str())?,
    };
    Ok(store.with_cache(&folder.cache(), config.limits.store_cache_bytes_max)?.with_scratch(&folder.upload()))
}

/// Takes a store that other nodes may reach. The lock of the data folder is enough for a store that is in it.
async fn owned(
    config: &Config,
    folder: &DataFolder,
    store: Store,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
    stop: &CancellationToken,
) -> anyhow::Result<Store> {
    if config.store_url.is_none() {
        return Ok(store);
    }
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let place = format!("{}:{}", host.trim(), folder.root().display());
    let ownership = Ownership::take(&store, Claim { node: folder.node()?, place }, clock).await;
    let ownership = Arc::new(ownership.map_err(|problem| anyhow::anyhow!(problem.text()))?);
    let (stop, watched) = (stop.clone(), Arc::clone(&ownership));
    tasks.spawn("store", async move {
        tokio::select! {
            biased;
            overtaken = watched.watch() => overtaken,
            () = stop.cancelled() => Ok(()),
        }
    });
    Ok(store.owned_by(ownership))
}

/// Folds what the logs hold beyond the deltas; fails if background work does.
async fn replay(wired: &Wired, progress: &Progress) -> anyhow::Result<()> {
    wired.tasks.spawn("speed", Arc::clone(&wired.speed).run(wired.background.clone()));
    tokio::select! {
        biased;
        () = wired.registry.replay(progress) => Ok(()),
        failed = wired.tasks.first_failure() => Err(failed),
    }
}

/// Waits for the end of the server; the first failure of other work ends it.
async fn served(tasks: &Tasks, mut server: JoinHandle<std::io::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        served = &mut server => served.map_err(anyhow::Error::from).and_then(|served| served.context("http")),
        failed = tasks.first_failure() => {
            server.abort();
            Err(failed)
        }
    }
}

/// Runs all background work until the server ends; the first failure stops the rest.
async fn run(wired: Wired, server: JoinHandle<std::io::Result<()>>, stop: CancellationToken) -> anyhow::Result<()> {
    wired.tasks.spawn("runs", Arc::clone(&wired.runs).work(wired.background.clone()));
    wired.tasks.spawn("schedule", schedule(&wired).run(wired.background.clone()));
    let refreshing = table_refresh::run(Arc::clone(&wired.statements), wired.background.clone());
    wired.tasks.spawn("tables", refreshing);
    wired.tasks.spawn("sinks", sinks(&wired).run(wired.background.clone().cancelled_owned()));
    let (engine, stopped) = (Arc::clone(&wired.engine), stop.clone());
    wired.tasks.spawn("changes", async move {
        stopped.cancelled().await;
        // their requests would keep the server from ending
        engine.end_changes();
        Ok(())
    });
    let result = served(&wired.tasks, server).await;
    stop.cancel();
    result.and(wired.wind_down().await)
}

fn sinks(wired: &Wired) -> SinkService {
    let kafka = wired.registry.parts.kafka.clone();
    let cluster = move |brokers: Option<&str>| {
        kafka.cluster(brokers).map_err(|error| Problem::new(Code::InvalidSql, format!("{error:#}")))
    };
    let (engine, exports) = (Arc::clone(&wired.engine), wired.registry.parts.folder.exports());
    SinkService::new(SinkParts { engine, exports, clusters: Arc::new(cluster) })
}

fn schedule(wired: &Wired) -> Schedule {
    let clock = Arc::clone(&wired.registry.parts.clock);
    Schedule::new(Arc::clone(&wired.registry) as _, Arc::clone(&wired.runs) as _, clock)
}

/// The state of the routes that serving owns.
pub(crate) fn http_state(wired: &Wired) -> HttpState {
    HttpState { engine: Arc::clone(&wired.engine), statements: Arc::clone(&wired.statements) as _ }
}

#[cfg(test)]
mod tests;
