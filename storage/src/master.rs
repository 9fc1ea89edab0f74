//! The master: every record of a stream, for ever, as a Delta Lake table that other programs read.
//!
//! ```text
//!  frames of the log ──► one Parquet file per partition ──► one Delta commit: adds the files and moves
//!                        (fsynced; of no use to anybody      the transaction ids <incarnation>/<partition>
//!                         until it is committed)             to the partitions' new ends
//! ```
//!
//! Exactly once needs nothing else: a landing has to start where the transaction ids say that the
//! last one ended, and of two commits on one version of the table only one is taken. Who takes a store over
//! commits that first: an older owner then finds a newer one in the table, and lands nothing more.

mod claim;
mod durable;
mod encode;
mod executor;
mod file;
mod place;
mod reader;
mod remote;
mod schema;
mod span;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use arrow::datatypes::SchemaRef;
use delta_kernel::SnapshotRef;
use object_store::ObjectStore;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use schemas::{Cut, Partition, StreamDef};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use url::Url;

use self::encode::Encoder;
use self::file::Written;
use self::place::Place;
use self::span::Span;
use self::table::{Outcome, Table};
use crate::clock::Clock;
use crate::error::StorageError;
use crate::log::Frame;
use crate::paths;
use crate::store::Store;

pub use self::file::MasterFile;
pub use self::reader::{MasterFileReader, MasterRows};
pub use self::schema::writer_properties;

/// Commits between two checkpoints of the table.
const CHECKPOINT_COMMITS: u64 = 100;
/// How often one landing tries to commit while others commit what does not concern it.
const COMMIT_ATTEMPTS_MAX: usize = 32;
/// Between a commit that failed and the look whether it is in the table.
const COMMIT_PAUSE: Duration = Duration::from_millis(20);
/// Files whose metadata is kept.
const METADATA_CACHED_MAX: usize = 1_024;
/// Files that are in no commit are removed when they are older: Delta's own retention, a week.
const ORPHAN_AGE_US: i64 = 7 * 24 * 3_600 * 1_000_000;

/// A stream's master. Share it as an `Arc`.
#[derive(Debug)]
pub struct Master {
    table: Arc<Table>,
    encoder: Arc<Encoder>,
    stream: Arc<StreamDef>,
    /// Grows, never shrinks.
    partitions: AtomicU32,
    schema: SchemaRef,
    clock: Arc<dyn Clock>,
    /// Number of this process among the store's owners; 0 where nobody else can take it over.
    epoch: u64,
    state: ArcSwap<State>,
    /// One landing at a time.
    landing: tokio::sync::Mutex<()>,
    metadata: Mutex<BTreeMap<String, ArrowReaderMetadata>>,
}

/// The table as of one version.
#[derive(Debug)]
struct State {
    snapshot: SnapshotRef,
    landed: Cut,
    files: Arc<Vec<MasterFile>>,
    /// Number of the owner that wrote last.
    owner: u64,
}

/// What one landing has added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// Version of the Delta table.
    pub version: u64,
    /// Where every partition ends, those that got nothing included.
    pub to: Cut,
    /// The files, by partition and offset.
    pub files: Vec<MasterFile>,
}

impl Landed {
    /// Records in it.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Master {
    /// Opens the stream's table at `root`, or makes it. The object store follows from the URL; its
    /// credentials come from the environment.
    ///
    /// # Errors
    /// The store failed; the table's columns are not the stream's (`Damaged`).
    pub async fn open(root: &Url, stream: &StreamDef, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StorageError> {
        Self::open_with(place::store_of(root)?, root, stream, clock, 0).await
    }

    /// [`Master::open`] at the stream's place in a store.
    ///
    /// # Errors
    /// Those of [`Master::open`].
    pub async fn open_in(store: &Store, stream: &StreamDef, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StorageError> {
        let path = paths::master(stream.id);
        let root = store.url().join(&path).map_err(|e| StorageError::io(format!("resolving {path}"), e))?;
        let objects = if store.local_path(&path).is_some() { place::store_of(&root)? } else { store.bucket() };
        let master = Self::open_with(objects, &root, stream, clock, store.epoch()).await?;
        if master.epoch > 0 {
            master.claim().await?;
        }
        Ok(master)
    }

    /// `store` is the one of the whole bucket or file system that `root` is in.
    async fn open_with(
        store: Arc<dyn ObjectStore>,
        root: &Url,
        stream: &StreamDef,
        clock: Arc<dyn Clock>,
        epoch: u64,
    ) -> Result<Arc<Self>, StorageError> {
        let handle = Handle::current();
        let (root, stream) = (root.clone(), Arc::new(stream.clone()));
        blocking(move || {
            let place = Arc::new(Place::new(&root, store, handle.clone())?);
            let table = Arc::new(Table::new(place.clone(), stream.incarnation, handle));
            let schema = schema::delta_schema(&stream)
                .map_err(|e| StorageError::io(format!("columns of stream {}", stream.name), e))?;
            let state = State::of(
                &table,
                table.ensure(&schema, &schema::statistics_columns(&stream))?,
                &stream,
                stream.partitions,
            )?;
            let encoder = Arc::new(Encoder::new(&stream, place, clock.clone())?);
            Ok(Arc::new(Self {
                table,
                encoder,
                partitions: AtomicU32::new(stream.partitions),
                schema: stream.record_schema(),
                stream,
                clock,
                epoch,
                state: ArcSwap::from_pointee(state),
                landing: tokio::sync::Mutex::new(()),
                metadata: Mutex::new(BTreeMap::new()),
            }))
        })
        .await
    }

    /// Per partition the end of what has landed.
    pub fn landed(&self) -> Cut {
        self.state.load().landed.clone()
    }

    /// The stream has got partitions: their ends are looked for from now on.
    pub fn grow(&self, partitions: u32) {
        self.partitions.fetch_max(partitions, Ordering::AcqRel);
    }

    /// Every file of the table, by partition and offset.
    pub fn files(&self) -> Arc<Vec<MasterFile>> {
        self.state.load().files.clone()
    }

    /// Version of the Delta table.
    pub fn version(&self) -> u64 {
        self.state.load().snapshot.version()
    }

    /// The columns that [`MasterFileReader::read`] counts.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads the table again: others may have landed.
    ///
    /// # Errors
    /// The store failed.
    pub async fn refresh(&self) -> Result<(), StorageError> {
        let _landing = self.landing.lock().await;
        self.reload().await.map(drop)
    }

    async fn reload(&self) -> Result<Arc<State>, StorageError> {
        let (table, stream) = (self.table.clone(), self.stream.clone());
        let partitions = self.partitions.load(Ordering::Acquire);
        let state = blocking(move || State::of(&table, table.load()?, &stream, partitions)).await?;
        let state = Arc::new(state);
        self.state.store(state.clone());
        Ok(state)
    }

    /// One landing: writes Parquet files and one commit that adds them all and moves the ends. The
    /// frames of a partition have to follow each other and start at its end in [`Master::landed`].
    ///
    /// # Errors
    /// `Conflict` when somebody has landed some of it ([`Master::landed`] then says what), `Damaged`
    /// when there is a gap; nothing is committed. `Io` when the store failed: whether the landing is in
    /// the table shows after [`Master::refresh`].
    pub async fn land(&self, frames: Vec<Frame>) -> Result<Landed, StorageError> {
        let _landing = self.landing.lock().await;
        let mut by_partition: BTreeMap<Partition, Vec<Frame>> = BTreeMap::new();
        for frame in frames.into_iter().filter(|frame| frame.rows.num_rows() > 0) {
            by_partition.entry(frame.partition).or_default().push(frame);
        }
        let span = Span::of(&by_partition, &self.table.place.root)?;
        if span.partitions.is_empty() {
            let state = self.state.load();
            return Ok(Landed { version: state.snapshot.version(), to: state.landed.clone(), files: Vec::new() });
        }
        if span.check(&self.state.load().landed, &self.table.place.root).is_err() {
            span.check(&self.reload().await?.landed, &self.table.place.root)?;
        }
        let written = self.write(by_partition).await?;
        let landed = self.commit(&span, &written).await?;
        Ok(landed)
    }

    /// Writes the files of every partition, as many at a time as there are cores. All have ended when this
    /// returns, also if one has failed: nobody writes on behind the next attempt's back.
    async fn write(&self, by_partition: BTreeMap<Partition, Vec<Frame>>) -> Result<Vec<Written>, StorageError> {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let mut tasks = JoinSet::new();
        let mut ended = Vec::new();
        for (partition, frames) in by_partition {
            while tasks.len() >= at_once {
                ended.push(joined(tasks.join_next().await));
            }
            let encoder = self.encoder.clone();
            tasks.spawn_blocking(move || encoder.encode(partition, frames));
        }
        while !tasks.is_empty() {
            ended.push(joined(tasks.join_next().await));
        }
        let mut written = Vec::new();
        for files in ended {
            written.extend(files?);
        }
        written.sort_by_key(|w| (w.file.partition, w.file.from));
        let place = self.table.place.clone();
        blocking(move || place.sync_names()).await?;
        Ok(written)
    }

    /// Commits until it is certain that the files are in the table, or that they must not be.
    async fn commit(&self, span: &Span, written: &[Written]) -> Result<Landed, StorageError> {
        let actions = file::add_actions(written, self.stream.time_column.as_deref())
            .map_err(|e| StorageError::io("describing a landing", e))?;
        let files: Vec<MasterFile> = written.iter().map(|w| w.file.clone()).collect();
        let mut lost = None;
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let state = self.state.load_full();
            if let Err(fenced) = self.assert_not_fenced(&state) {
                self.discard(files).await;
                return Err(fenced);
            }
            let (table, actions, ends) = (self.table.clone(), actions.clone(), span.clone());
            let snapshot = state.snapshot.clone();
            match blocking(move || table.commit(&snapshot, actions, &ends.to, &ends.partitions)).await? {
                Outcome::Committed(snapshot) => return Ok(self.committed(&state, snapshot, span, files).await),
                Outcome::Conflicted => {}
                Outcome::Unknown(error) => {
                    lost = Some(error);
                    tokio::time::sleep(COMMIT_PAUSE).await;
                }
            }
            let state = self.reload().await?;
            if state.has(&files) {
                return Ok(Landed { version: state.snapshot.version(), to: state.landed.clone(), files });
            }
            if let Err(error) = span.check(&state.landed, &self.table.place.root) {
                self.discard(files).await;
                return Err(error);
            }
        }
        Err(self.never_committed(lost))
    }

    /// Takes a commit into the state, and writes a checkpoint when one is due.
    async fn committed(&self, before: &State, snapshot: SnapshotRef, span: &Span, files: Vec<MasterFile>) -> Landed {
        let to = before.landed.join(&span.to);
        let mut all = before.files.as_ref().clone();
        all.extend_from_slice(&files);
        all.sort_by_key(|file| (file.partition, file.from));
        let version = snapshot.version();
        let state = State { snapshot, landed: to.clone(), files: Arc::new(all), owner: before.owner };
        self.state.store(Arc::new(state));
        if version.is_multiple_of(CHECKPOINT_COMMITS) {
            self.checkpoint().await;
        }
        Landed { version, to, files }
    }

    async fn checkpoint(&self) {
        let state = self.state.load_full();
        let (table, snapshot) = (self.table.clone(), state.snapshot.clone());
        if let Ok(snapshot) = blocking(move || Ok(table.checkpoint(&snapshot))).await {
            let (landed, files, owner) = (state.landed.clone(), state.files.clone(), state.owner);
            self.state.store(Arc::new(State { snapshot, landed, files, owner }));
        }
    }

    /// Removes files that will never be committed. They would do no harm.
    async fn discard(&self, files: Vec<MasterFile>) {
        let place = self.table.place.clone();
        let removed = blocking(move || files.iter().try_for_each(|file| place.remove(&file.path))).await;
        if let Err(error) = removed {
            tracing::debug!(table = %self.table.place.root, %error, "files of a lost landing remain");
        }
    }

    /// Removes Parquet files that are in no commit and older than a week: what crashes have left.
    /// Returns how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn remove_orphans(&self) -> Result<usize, StorageError> {
        // The list comes first: what is committed afterwards cannot be an orphan of it.
        let place = self.table.place.clone();
        let listed = blocking(move || place.list()).await?;
        self.refresh().await?;
        let files = self.files();
        let oldest_us = self.clock.now_us() - ORPHAN_AGE_US;
        let orphans: Vec<String> = listed
            .into_iter()
            .filter(|object| object.last_modified.timestamp_micros() < oldest_us)
            .filter_map(|object| object.location.filename().map(str::to_string))
            .filter(|name| name.starts_with("part-") && name.ends_with(".parquet"))
            .filter(|name| files.iter().all(|file| file.path != *name))
            .collect();
        let (place, count) = (self.table.place.clone(), orphans.len());
        blocking(move || orphans.iter().try_for_each(|name| place.remove(name))).await?;
        Ok(count)
    }

    /// Opens a file for reading. Blocks, for what is not known of the file yet.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when its columns are not the stream's.
    pub fn open_file(&self, file: &MasterFile) -> Result<MasterFileReader, StorageError> {
        let known = self.metadata.lock().get(&file.path).cloned();
        let is_known = known.is_some();
        let reader = MasterFileReader::open(&self.table.place, file, known, &self.schema)?;
        if !is_known {
            let mut cached = self.metadata.lock();
            if cached.len() >= METADATA_CACHED_MAX {
                cached.pop_first();
            }
            cached.insert(file.path.clone(), reader.metadata().clone());
        }
        Ok(reader)
    }
}

impl State {
    fn of(table: &Table, snapshot: SnapshotRef, stream: &StreamDef, partitions: u32) -> Result<Self, StorageError> {
        let landed = table.landed(&snapshot, partitions)?;
        let files = table.files(&snapshot, stream.time_column.as_deref())?;
        let owner = table.owner(&snapshot)?;
        Ok(Self { snapshot, landed, files: Arc::new(files), owner })
    }

    /// True if these files, of one landing, are in the table.
    fn has(&self, files: &[MasterFile]) -> bool {
        files.iter().all(|file| self.files.iter().any(|other| other.path == file.path))
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(StorageError::io("working on the master", join)),
    }
}

type Encoded = Result<Result<Vec<Written>, StorageError>, tokio::task::JoinError>;

fn joined(task: Option<Encoded>) -> Result<Vec<Written>, StorageError> {
    match task {
        Some(Ok(written)) => written,
        Some(Err(join)) => Err(StorageError::io("encoding a landing", join)),
        None => Ok(Vec::new()),
    }
}
