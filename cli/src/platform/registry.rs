//! What is open: logs, masters, compiled views, static tables. The catalogue says what should be.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use anyhow::Context;
use batch::landing::LandingParts;
use batch::{BatchView, Landing};
use futures::future::join_all;
use ingest::Connector;
use ingest::frozen::FrozenTable;
use operators::{StaticTable, View, ViewSource};
use parking_lot::{Mutex, RwLock};
use schemas::problem::SqlPosition;
use schemas::{Catalog, Limits, LogKind, Problem, StreamDef, ViewDef};
use speed::{SpeedService, ViewInput};
use storage::catalog::CatalogStore;
use storage::clock::Clock;
use storage::layers::{BacklogSize, Backlogs, Logs, SourceStatus};
use storage::log::{EmbeddedLog, EmbeddedLogConfig, Log, TailShares};
use storage::manifests::ManifestStore;
use storage::master::Master;
use storage::store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod claims;
mod streams;
mod tables;
mod topics;
mod waiting;

pub(crate) use self::tables::LookedUp;
pub(crate) use self::waiting::Waiting;
use super::folder::DataFolder;
use super::gate::Progress;
use super::static_tables;
use super::surroundings::LogPlace;
use super::table_sources::TableSources;
use super::tasks::Tasks;
use crate::config::KafkaSection;

/// The log of a stream's records, in keys and names of topics.
pub(crate) const RECORDS: &str = "records";
/// The log of a stream's dead letters.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";
/// The log of a stream's receipts.
pub(crate) const RECEIPTS: &str = "receipts";
/// Dead letters and receipts have one partition.
const DEAD_LETTER_PARTITIONS: u32 = 1;

/// What the registry works with.
pub(crate) struct RegistryParts {
    pub(crate) catalog: Arc<CatalogStore>,
    pub(crate) store: Store,
    pub(crate) speed: Arc<SpeedService>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    /// Landings of all streams that have a range in memory.
    pub(crate) landings: Arc<Semaphore>,
    /// What the logs of all streams keep in memory.
    pub(crate) tails: Arc<TailShares>,
    pub(crate) folder: Arc<DataFolder>,
    pub(crate) tasks: Tasks,
    pub(crate) kafka: KafkaSection,
    /// None: the data folder, or Kafka.
    pub(crate) logs: Option<Arc<dyn LogPlace>>,
    pub(crate) table_sources: TableSources,
}

/// An open stream.
pub(crate) struct OpenStream {
    pub(crate) def: Arc<StreamDef>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) dead_letters: Arc<dyn Log>,
    pub(crate) receipts: Arc<dyn Log>,
    pub(crate) landing: Arc<Landing>,
    /// Of a stream that is read from a topic.
    pub(crate) connector: Option<Arc<Connector>>,
    stop: CancellationToken,
}

/// A stream that is open and that nobody sees yet.
struct Opened {
    stream: Arc<OpenStream>,
    views: Vec<BatchView>,
}

/// Everything that is open in this process.
pub(crate) struct Registry {
    /// Itself: what it opens asks it back.
    this: Weak<Self>,
    pub(crate) parts: RegistryParts,
    streams: RwLock<BTreeMap<Uuid, Arc<OpenStream>>>,
    /// Streams that cannot be opened yet.
    waiting: RwLock<BTreeMap<Uuid, Waiting>>,
    views: RwLock<BTreeMap<Uuid, Arc<BatchView>>>,
    /// Static tables by id and version.
    tables: RwLock<BTreeMap<(Uuid, u32), Arc<StaticTable>>>,
    /// Of tables that streams look values up in, the newest version, by id and column.
    frozen: RwLock<BTreeMap<(Uuid, String), Arc<FrozenTable>>>,
    /// Held by whoever makes one of them.
    freezing: Mutex<()>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens everything that the catalogue names.
    pub(crate) async fn open(parts: RegistryParts, progress: &Progress) -> anyhow::Result<Arc<Self>> {
        let catalog = parts.catalog.current();
        let registry = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            parts,
            streams: RwLock::default(),
            waiting: RwLock::default(),
            views: RwLock::default(),
            tables: RwLock::default(),
            frozen: RwLock::default(),
            freezing: Mutex::default(),
        });
        registry.claim_views(&catalog).await?;
        for table in &catalog.tables {
            let rows = static_tables::load(&registry.parts.store, table).await?;
            registry.add_table(table, rows);
        }
        for stream in &catalog.streams {
            progress.say(&stream.name, "opening its log and its deltas");
            match registry.recover_stream(stream, &catalog).await {
                Ok(opened) => registry.publish(opened),
                Err(error) if waiting::may_come_back(stream, &error) => registry.note_waiting(stream, &error),
                Err(error) => return Err(error).with_context(|| format!("opening stream {}", stream.name)),
            }
            progress.say(&stream.name, "opened");
        }
        Ok(registry)
    }

    /// Waits until the folds of all streams have replayed what their logs hold now.
    pub(crate) async fn replay(&self, progress: &Progress) {
        let streams = self.streams();
        let replays = streams.iter().filter_map(|open| {
            let folded = self.parts.speed.stream(open.def.id)?.watch_folded();
            Some(async move { progress.replay(&open.def.name, &open.log.head(), folded).await })
        });
        join_all(replays).await;
    }

    /// Opens a stream with its views, and begins to fold its log; nobody sees it yet.
    async fn recover_stream(&self, stream: &StreamDef, catalog: &Catalog) -> anyhow::Result<Opened> {
        let open = self.prepare_stream(stream).await?;
        let manifests = ManifestStore::new(self.parts.store.clone());
        let (mut inputs, mut views) = (vec![], vec![]);
        for def in catalog.views_of(stream.id) {
            let view = self.compile(def, stream).map_err(|p| anyhow::anyhow!("view {}: {}", def.name, p.text()))?;
            let kept = manifests.list(def.id).await?;
            inputs.push(ViewInput {
                id: def.id,
                view: Arc::clone(&view.view),
                from: def.from.clone(),
                manifests: kept,
            });
            views.push(view);
        }
        self.parts.speed.open(stream.clone(), Arc::clone(&open.log), &inputs).await?;
        self.assert_own_log(&open)?;
        Ok(Opened { stream: open, views })
    }

    /// Makes a stream and its views known.
    fn publish(&self, opened: Opened) {
        opened.views.into_iter().for_each(|view| self.add_view(view));
        self.start_stream(opened.stream);
    }

    /// H6: a log that ends before what was counted and stored is another one, whose positions would be given out
    /// a second time.
    fn assert_own_log(&self, open: &OpenStream) -> anyhow::Result<()> {
        let stored = open.landing.master().landed();
        let stored = stored.join(&self.parts.speed.durable(open.def.id).unwrap_or_default());
        let head = open.log.head();
        if stored.is_at_most(&head) {
            return Ok(());
        }
        anyhow::bail!(
            "its log in {} ends at {head}, but the store {} has records up to {stored}: this is not the log that the store \
             was made from; start with the data folder that was used before, or give this one a store_url of its own",
            self.parts.folder.logs(open.def.id).display(),
            self.parts.store.url()
        )
    }

    /// Opens the logs and the master of a stream; nothing runs yet.
    pub(crate) async fn prepare_stream(&self, stream: &StreamDef) -> anyhow::Result<Arc<OpenStream>> {
        let parts = &self.parts;
        let letters = ingest::dead_letters::dead_letter_schema();
        // at the same time: a broker takes its time for each
        let (log, dead_letters, receipts) = tokio::try_join!(
            self.open_log(stream, RECORDS, stream.log_schema(), stream.partitions),
            self.open_log(stream, DEAD_LETTERS, letters, DEAD_LETTER_PARTITIONS),
            self.open_log(stream, RECEIPTS, ingest::receipt_schema(), DEAD_LETTER_PARTITIONS),
        )?;
        let master = Master::open_in(&parts.store, stream, Arc::clone(&parts.clock)).await?;
        let (speed, id) = (Arc::downgrade(&parts.speed), stream.id);
        let def = Arc::new(stream.clone());
        let landing = Arc::new(Landing::new(LandingParts {
            stream: Arc::clone(&def),
            log: Arc::clone(&log),
            dead_letters: Arc::clone(&dead_letters),
            master,
            durable: Arc::new(move || speed.upgrade().and_then(|speed| speed.durable(id))),
            clock: Arc::clone(&parts.clock),
            limits: parts.limits.clone(),
            at_once: Arc::clone(&parts.landings),
        }));
        let connector = self.connector(&def, &log, &dead_letters, &receipts).await?;
        Ok(Arc::new(OpenStream {
            def,
            log,
            dead_letters,
            receipts,
            landing,
            connector,
            stop: CancellationToken::new(),
        }))
    }

    async fn open_log(
        &self,
        stream: &StreamDef,
        kind: &str,
        schema: arrow::datatypes::SchemaRef,
        partitions: u32,
    ) -> anyhow::Result<Arc<dyn Log>> {
        if let Some(place) = &self.parts.logs {
            return Ok(place.open(stream, kind, schema, partitions).await?);
        }
        if stream.transport.log == LogKind::Kafka {
            return self.open_kafka_log(stream, kind, schema, partitions).await;
        }
        let folder = self.parts.folder.log(stream.id, kind);
        let incarnation = stream.incarnation;
        let config = EmbeddedLogConfig {
            segment_bytes: self.parts.limits.log_segment_bytes as u64,
            tail_bytes_max: self.parts.limits.log_tail_bytes_max,
            queue_bytes_max: self.parts.limits.ingest_bytes_in_flight_max,
            tails: Some(Arc::clone(&self.parts.tails)),
        };
        let open = move || EmbeddedLog::open(&folder, schema, incarnation, partitions, &config);
        let log: Arc<dyn Log> = tokio::task::spawn_blocking(open).await??;
        Ok(log)
    }

    /// Makes a stream known and lands it from now on.
    pub(crate) fn start_stream(&self, open: Arc<OpenStream>) {
        self.parts.tasks.spawn("landing", Arc::clone(&open.landing).run(open.stop.clone()));
        if let Some(connector) = &open.connector {
            self.parts.tasks.spawn("connector", Arc::clone(connector).run(open.stop.clone()));
        }
        self.streams.write().insert(open.def.id, open);
    }

    /// Stops everything that works on a stream, and forgets it.
    pub(crate) async fn close_stream(&self, id: Uuid) {
        self.parts.speed.close(id);
        self.waiting.write().remove(&id);
        let open = self.streams.write().remove(&id);
        if let Some(open) = open {
            open.stop.cancel();
            open.log.close().await;
            open.dead_letters.close().await;
            open.receipts.close().await;
        }
    }

    /// All open streams, by id.
    pub(crate) fn streams(&self) -> Vec<Arc<OpenStream>> {
        self.streams.read().values().cloned().collect()
    }

    /// Tells the landings to stop.
    pub(crate) fn stop(&self) {
        self.streams().iter().for_each(|open| open.stop.cancel());
    }

    /// Closes the logs, once nothing appends any more.
    pub(crate) async fn close(&self) {
        for open in self.streams() {
            open.log.close().await;
            open.dead_letters.close().await;
            open.receipts.close().await;
        }
    }

    /// Compiles a stored view with the tables that it is pinned to.
    fn compile(&self, def: &ViewDef, stream: &StreamDef) -> Result<BatchView, Problem> {
        compile_view(def, stream, &self.tables.read())
    }

    pub(crate) fn add_view(&self, view: BatchView) {
        self.views.write().insert(view.def.id, Arc::new(view));
    }

    pub(crate) fn remove_view(&self, id: Uuid) {
        self.views.write().remove(&id);
    }
}

/// Compiles a stored view with the tables that it is pinned to.
pub(crate) fn compile_view(
    def: &ViewDef,
    stream: &StreamDef,
    known: &BTreeMap<(Uuid, u32), Arc<StaticTable>>,
) -> Result<BatchView, Problem> {
    // a table that is joined late may be in a later version than when the view was made
    let newest = |id: Uuid| known.range((id, 0)..=(id, u32::MAX)).next_back().map(|(_, table)| table);
    let table = |pinned: &(Uuid, u32)| known.get(pinned).or_else(|| newest(pinned.0).filter(|table| table.is_late));
    let tables: Vec<StaticTable> =
        def.tables.iter().filter_map(|pinned| table(pinned).map(|table| StaticTable::clone(table))).collect();
    let view = View::compile(&ViewSource {
        sql: &def.sql,
        position: SqlPosition { line: 1, column: 1 },
        stream,
        tables: &tables,
        late: def.late.unwrap_or(stream.late),
    })?;
    Ok(BatchView { def: def.clone(), stream: Arc::new(stream.clone()), view, tables })
}

impl Logs for Registry {
    fn log(&self, stream: Uuid) -> Option<Arc<dyn Log>> {
        self.streams.read().get(&stream).map(|open| Arc::clone(&open.log))
    }

    fn dead_letters(&self, stream: Uuid) -> Option<Arc<dyn Log>> {
        self.streams.read().get(&stream).map(|open| Arc::clone(&open.dead_letters))
    }

    fn receipts(&self, stream: Uuid) -> Option<Arc<dyn Log>> {
        self.streams.read().get(&stream).map(|open| Arc::clone(&open.receipts))
    }

    fn source(&self, stream: Uuid) -> Option<SourceStatus> {
        self.streams.read().get(&stream).and_then(|open| Some(open.connector.as_ref()?.status()))
    }
}

impl Backlogs for Registry {
    fn backlog(&self, stream: Uuid) -> Option<BacklogSize> {
        let open = self.streams.read().get(&stream).cloned()?;
        Some(open.landing.backlog())
    }

    fn chain_bytes(&self, stream: Uuid) -> u64 {
        self.parts.speed.stream(stream).map_or(0, |speed| speed.chain_bytes() as u64)
    }
}

impl batch::Views for Registry {
    fn view(&self, name: &str) -> Option<Arc<BatchView>> {
        self.views.read().values().find(|view| view.def.name == name).cloned()
    }

    fn views(&self) -> Vec<Arc<BatchView>> {
        let mut views: Vec<_> = self.views.read().values().cloned().collect();
        views.sort_by(|a, b| a.def.name.cmp(&b.def.name));
        views
    }

    fn landing(&self, stream: Uuid) -> Option<Arc<Landing>> {
        self.streams.read().get(&stream).map(|open| Arc::clone(&open.landing))
    }
}

impl serving::parts::Views for Registry {
    fn view(&self, id: Uuid) -> Option<Arc<View>> {
        self.views.read().get(&id).map(|view| Arc::clone(&view.view))
    }

    fn table(&self, id: Uuid) -> Option<Arc<StaticTable>> {
        self.tables.read().range((id, 0)..=(id, u32::MAX)).next_back().map(|(_, table)| Arc::clone(table))
    }
}
