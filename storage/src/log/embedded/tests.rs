use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::log::conformance::{self, PARTITIONS, Subject, read_all, rows};

mod crash;
mod faults;

/// Errors that a test wants the disk to have. Those of the thread that opens a log are the log's.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// How many more writes and syncs go well; `usize::MAX`: all.
    left: AtomicUsize,
    is_armed: AtomicBool,
    cut_fails: AtomicBool,
    /// The next write stands still until this is released, then fails.
    stuck: AtomicBool,
    is_standing: AtomicBool,
}

thread_local! {
    static CURRENT: RefCell<Arc<Faults>> = RefCell::default();
}

impl Faults {
    pub(super) fn current() -> Arc<Self> {
        CURRENT.with_borrow(Arc::clone)
    }

    pub(super) fn on_write(&self) -> std::io::Result<()> {
        if self.stuck.load(Ordering::SeqCst) {
            self.is_standing.store(true, Ordering::SeqCst);
            while self.stuck.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            self.is_standing.store(false, Ordering::SeqCst);
            return Err(std::io::Error::other("planted"));
        }
        if !self.is_armed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| std::io::Error::other("planted"))
    }

    pub(super) fn on_sync(&self) -> std::io::Result<()> {
        self.on_write()
    }

    pub(super) fn on_cut(&self) -> std::io::Result<()> {
        if self.cut_fails.load(Ordering::SeqCst) { Err(std::io::Error::other("planted")) } else { Ok(()) }
    }
}

const INCARNATION: Uuid = Uuid::from_u128(0xb1f0);

fn small() -> EmbeddedLogConfig {
    EmbeddedLogConfig { segment_bytes: 4_096, tail_bytes_max: 3_000, queue_bytes_max: 1 << 20, tails: None }
}

fn open(folder: &Path, config: &EmbeddedLogConfig) -> Result<Arc<EmbeddedLog>, StorageError> {
    EmbeddedLog::open(folder, conformance::schema(), INCARNATION, PARTITIONS, config)
}

async fn append(log: &EmbeddedLog, partition: Partition, from: i64, count: usize) {
    log.append(log.epoch(), vec![(partition, rows(from, count).unwrap())]).unwrap().durable().await.unwrap();
}

/// Embedded logs, each in its own folder, found again by how many there were.
struct Subjects {
    root: tempfile::TempDir,
    config: EmbeddedLogConfig,
    folders: Mutex<usize>,
    /// Those of the newest log.
    faults: Mutex<Arc<Faults>>,
}

impl Subjects {
    fn new(config: EmbeddedLogConfig) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root, config, folders: Mutex::default(), faults: Mutex::default() }
    }

    fn open(&self, number: usize) -> Result<Arc<dyn Log>, StorageError> {
        let faults = Arc::new(Faults::default());
        *self.faults.lock() = Arc::clone(&faults);
        CURRENT.set(faults);
        Ok(open(&self.root.path().join(number.to_string()), &self.config)?)
    }
}

#[async_trait]
impl Subject for Subjects {
    async fn create(&self) -> Result<Arc<dyn Log>, StorageError> {
        let mut count = self.folders.lock();
        *count += 1;
        self.open(*count)
    }

    async fn fail(&self, log: &dyn Log, behind: usize) -> Result<Vec<Pending>, StorageError> {
        let faults = Arc::clone(&self.faults.lock());
        let append = || log.append(log.epoch(), vec![(0, rows(900, 5)?)]);
        faults.stuck.store(true, Ordering::SeqCst);
        let mut pending = vec![append()?];
        while !faults.is_standing.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        for _ in 0..behind {
            pending.push(append()?);
        }
        faults.stuck.store(false, Ordering::SeqCst);
        Ok(pending)
    }

    async fn reopen(&self, log: Arc<dyn Log>) -> Result<Arc<dyn Log>, StorageError> {
        log.close().await;
        drop(log);
        let newest = *self.folders.lock();
        self.open(newest)
    }
}

#[rstest::rstest]
#[case::small_segments_hardly_any_tail(4_096, 3_000)]
#[case::no_tail(4_096, 0)]
#[case::everything_in_one_segment_and_in_the_tail(1 << 30, 1 << 30)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_log_conforms(#[case] segment_bytes: u64, #[case] tail_bytes_max: usize) {
    let config = EmbeddedLogConfig { segment_bytes, tail_bytes_max, ..small() };
    conformance::check(&Subjects::new(config)).await.unwrap();
}

#[tokio::test]
async fn small_segments_are_many_and_truncate_frees_them() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &small()).unwrap();
    for step in 0..100 {
        append(&log, 0, step * 5, 5).await;
    }
    let files = || segment::list(folder.path()).unwrap().len();
    assert!(files() > 10, "{}", files());
    log.truncate(&log.head()).await.unwrap();
    assert_eq!(files(), 1, "never the newest one");
    assert_eq!(log.start().offset(0) as i64 % 5, 0);
}

#[tokio::test]
async fn other_incarnation_schema_or_partitions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), &small()).unwrap());
    let other =
        |incarnation, partitions, schema| EmbeddedLog::open(folder.path(), schema, incarnation, partitions, &small());
    let damaged = |result| matches!(result, Err(StorageError::Damaged { .. }));
    assert!(damaged(other(Uuid::nil(), PARTITIONS, conformance::schema())));
    assert!(damaged(other(INCARNATION, PARTITIONS - 1, conformance::schema())));
    assert!(damaged(other(INCARNATION, PARTITIONS, Arc::new(arrow::datatypes::Schema::empty()))));
    assert!(other(INCARNATION, PARTITIONS, conformance::schema()).is_ok());
}

/// Frames of an added partition may stand in a segment whose header knows of fewer.
#[tokio::test]
async fn added_partitions_are_there_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &small()).unwrap();
    append(&log, 0, 0, 5).await;
    assert!(log.append(log.epoch(), vec![(PARTITIONS, conformance::rows(0, 1).unwrap())]).is_err());
    log.grow(PARTITIONS + 2).unwrap();
    log.grow(PARTITIONS).unwrap();
    assert_eq!(log.partitions(), PARTITIONS + 2);
    append(&log, PARTITIONS + 1, 0, 7).await;
    append(&log, 0, 5, 1).await;
    assert_eq!(conformance::read_all(&*log, PARTITIONS + 1, 0).await.unwrap(), (0..7).collect::<Vec<_>>());
    drop(log);
    let log = EmbeddedLog::open(folder.path(), conformance::schema(), INCARNATION, PARTITIONS + 2, &small()).unwrap();
    assert_eq!(conformance::read_all(&*log, PARTITIONS + 1, 0).await.unwrap(), (0..7).collect::<Vec<_>>());
    for step in 1..200 {
        append(&log, PARTITIONS + 1, step * 7, 7).await;
    }
    assert!(segment::list(folder.path()).unwrap().len() > 2);
    drop(log);
    let log = EmbeddedLog::open(folder.path(), conformance::schema(), INCARNATION, PARTITIONS + 2, &small()).unwrap();
    assert_eq!(conformance::read_all(&*log, PARTITIONS + 1, 0).await.unwrap(), (0..1_400).collect::<Vec<_>>());
    assert_eq!(conformance::read_all(&*log, 0, 0).await.unwrap(), (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn second_opening_of_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &small()).unwrap();
    assert!(matches!(open(folder.path(), &small()), Err(StorageError::Io { .. })));
    drop(log);
    assert!(open(folder.path(), &small()).is_ok());
}

#[tokio::test]
async fn rows_of_a_reader_that_keeps_up_are_those_that_were_appended() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &EmbeddedLogConfig::default()).unwrap();
    let sent = rows(0, 100).unwrap();
    log.append(log.epoch(), vec![(1, sent.clone())]).unwrap().durable().await.unwrap();
    let frames = log.read(1, 0, 1_000).await.unwrap();
    assert!(Arc::ptr_eq(frames[0].rows.column(0), sent.column(0)), "not parsed again");
}

#[tokio::test]
async fn slice_of_a_large_batch_writes_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &EmbeddedLogConfig::default()).unwrap();
    let large = rows(0, 50_000).unwrap();
    log.append(log.epoch(), vec![(0, large.slice(40_000, 10))]).unwrap().durable().await.unwrap();
    let length = segment::path_of(folder.path(), 0).metadata().unwrap().len();
    assert!(length < 4_000, "{length}");
    let log = {
        drop(log);
        open(folder.path(), &small()).unwrap()
    };
    assert_eq!(log.read(0, 0, 99).await.unwrap()[0].rows, rows(40_000, 10).unwrap());
}

#[test]
fn frame_header_has_a_fixed_layout() {
    let header = frame::Header { length: 64, crc: 2, partition: 3, rows: 4, base: 5 << 40, metadata: 6, marks: 7 };
    let rows = rows(0, 4).unwrap();
    let mut frame = frame::FrameEncoder::new(&rows.schema()).unwrap().encode(3, rows).unwrap();
    let sealed = frame.seal(1 << 40, 9, frame::LAST_OF_APPEND);
    let bytes: Vec<u8> = frame.parts().flatten().copied().collect();
    let parsed = frame::Header::parse(bytes[..frame::HEADER].try_into().unwrap());
    assert_eq!(parsed, sealed);
    assert!(frame::is_intact(&parsed, &bytes));
    assert_eq!((parsed.base, parsed.group(), parsed.rows, bytes.len() % 64), (1 << 40, 9, 4, 0));
    assert_eq!(header.end(), (5 << 40) + 4);
}
