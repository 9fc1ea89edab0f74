//! A log whose disk is the world's: what is appended is durable when the simulation lets an fsync go on.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bifold::platform::LogPlace;
use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use schemas::{Cut, Offset, Partition, StreamDef};
use storage::StorageError;
use storage::log::{Epoch, Frame, Log, Pending, Placed};
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use super::link::{Fate, Link};
use super::world::Disk;

/// Appends that wait for the disk.
const QUEUED_MAX: usize = 256;

type Done = oneshot::Sender<Result<Vec<Placed>, StorageError>>;
type Rows = Vec<(Partition, RecordBatch)>;

/// The logs of one process.
#[derive(Debug)]
pub(crate) struct Logs(pub(crate) Arc<Link>);

#[async_trait]
impl LogPlace for Logs {
    async fn open(
        &self,
        stream: &StreamDef,
        kind: &str,
        schema: SchemaRef,
        partitions: u32,
    ) -> Result<Arc<dyn Log>, StorageError> {
        Ok(SimulatedLog::open(&self.0, (stream.id, kind.to_owned()), schema, stream.incarnation, partitions))
    }
}

/// One process's handle on a log.
pub(crate) struct SimulatedLog {
    incarnation: Uuid,
    partitions: u32,
    schema: SchemaRef,
    key: (Uuid, String),
    head: watch::Sender<Cut>,
    inner: Mutex<Inner>,
    emptied: Notify,
    link: Arc<Link>,
}

#[derive(Default)]
struct Inner {
    is_closed: bool,
    epoch: Epoch,
    queue: VecDeque<(Rows, Option<Done>)>,
    /// What the planted bug shows to readers although it is not on the disk.
    early: Vec<Frame>,
}

impl fmt::Debug for SimulatedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedLog").field("kind", &self.key.1).finish_non_exhaustive()
    }
}

impl SimulatedLog {
    /// The log as its disk has it; a new disk if there is none.
    fn open(link: &Arc<Link>, key: (Uuid, String), schema: SchemaRef, incarnation: Uuid, partitions: u32) -> Arc<Self> {
        let (end, incarnation) = {
            let mut state = link.world.state();
            let disk = state.logs.entry(key.clone()).or_insert_with(|| Disk::new(incarnation, partitions));
            (disk.end.clone(), disk.incarnation)
        };
        let (head, inner, emptied) = (watch::Sender::new(end), Mutex::default(), Notify::new());
        let log = Arc::new(Self { incarnation, partitions, schema, key, head, inner, emptied, link: Arc::clone(link) });
        link.add_log(&log);
        log
    }

    pub(crate) fn name(&self) -> &str {
        &self.key.1
    }

    fn fits(&self, rows: &RecordBatch) -> bool {
        rows.schema().fields() == self.schema.fields()
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.inner.lock().queue.is_empty()
    }

    /// One group commit of some of what is queued.
    pub(crate) fn fsync(&self, fate: Fate, rng: &mut ChaCha8Rng) {
        let mut inner = self.inner.lock();
        let queued = inner.queue.len();
        if queued == 0 {
            return;
        }
        let group = rng.random_range(1..=queued);
        let is_writer = self.link.world.state().log_writer == self.link.number;
        match fate {
            _ if !is_writer => Self::fail(&mut inner, "the volume is another machine's"),
            Fate::Fine => self.write(&mut inner, group),
            Fate::FailsBefore | Fate::FailsAfter => Self::fail(&mut inner, "the disk failed"),
            Fate::DiesBefore => {}
            Fate::DiesAfter | Fate::Dead => self.leave(&mut inner, group),
        }
        if inner.queue.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// The process has died: some of what it wrote is on the disk although nobody synced it.
    pub(crate) fn crash(&self, rng: &mut ChaCha8Rng) {
        let mut inner = self.inner.lock();
        let left = rng.random_range(0..=inner.queue.len());
        if self.link.world.state().log_writer == self.link.number {
            self.leave(&mut inner, left);
        }
        inner.queue.clear();
    }

    fn write(&self, inner: &mut Inner, group: usize) {
        for (rows, done) in inner.queue.drain(..group).collect::<Vec<_>>() {
            let placed = self.place(rows);
            let Some(done) = done else { continue };
            self.head.send_modify(|head| placed.iter().for_each(|(partition, at)| head.set(*partition, at.end)));
            // nobody waits any more: nobody needs to know
            let _ = done.send(Ok(placed));
        }
        inner.early.clear();
        if self.link.world.bugs.acknowledges_before_the_fsync {
            let mut end = self.link.world.state().logs[&self.key].end.clone();
            for (rows, _) in &inner.queue {
                inner.early.extend(frames_at(&mut end, rows));
            }
        }
    }

    fn leave(&self, inner: &mut Inner, appends: usize) {
        for (rows, _) in inner.queue.drain(..appends).collect::<Vec<_>>() {
            self.place(rows);
        }
    }

    /// A failure takes what is queued behind it with it; the epoch has ended before anybody learns of it.
    fn fail(inner: &mut Inner, why: &str) {
        inner.epoch += 1;
        inner.early.clear();
        for (_, done) in inner.queue.drain(..).collect::<Vec<_>>() {
            if let Some(done) = done {
                let _ = done.send(Err(StorageError::io("fsync", why.to_owned())));
            }
        }
    }

    fn place(&self, rows: Rows) -> Vec<Placed> {
        let mut state = self.link.world.state();
        let disk = state.logs.get_mut(&self.key).expect("an open log has a disk");
        let frames = rows.into_iter().map(|(partition, rows)| disk.place(partition, rows));
        frames.map(|frame| (frame.partition, frame.base..frame.end())).collect()
    }

    /// The planted bug: acknowledged and visible, and not on the disk.
    fn acknowledge_early(&self, inner: &mut Inner, rows: Rows, done: Done) {
        let mut end = self.head.borrow().clone();
        let frames = frames_at(&mut end, &rows);
        let placed = frames.iter().map(|frame| (frame.partition, frame.base..frame.end())).collect();
        inner.early.extend(frames);
        inner.queue.push_back((rows, None));
        self.head.send_replace(end);
        let _ = done.send(Ok(placed));
    }
}

fn frames_at(end: &mut Cut, rows: &[(Partition, RecordBatch)]) -> Vec<Frame> {
    let mut frames = vec![];
    for (partition, rows) in rows {
        let frame = Frame { partition: *partition, base: end.offset(*partition), rows: rows.clone() };
        end.set(*partition, frame.end());
        frames.push(frame);
    }
    frames
}

#[async_trait]
impl Log for SimulatedLog {
    fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn epoch(&self) -> Epoch {
        self.inner.lock().epoch
    }

    fn append(&self, epoch: Epoch, rows: Rows) -> Result<Pending, StorageError> {
        let mut inner = self.inner.lock();
        if inner.is_closed {
            return Err(StorageError::Closed { what: "log".into() });
        }
        if epoch != inner.epoch {
            return Err(StorageError::Outdated { what: "an append to the log".into() });
        }
        if inner.queue.len() >= QUEUED_MAX {
            return Err(StorageError::Full { what: "the log's queue".into() });
        }
        if rows.iter().any(|(partition, rows)| *partition >= self.partitions || !self.fits(rows)) {
            return Err(StorageError::io("appending", "no such partition, or rows of another schema"));
        }
        let (done, pending) = Pending::new();
        if self.link.world.bugs.acknowledges_before_the_fsync {
            self.acknowledge_early(&mut inner, rows, done);
        } else {
            inner.queue.push_back((rows, Some(done)));
        }
        Ok(pending)
    }

    fn start(&self) -> Cut {
        self.link.world.state().logs[&self.key].start.clone()
    }

    fn head(&self) -> Cut {
        self.head.borrow().clone()
    }

    fn watch_head(&self) -> watch::Receiver<Cut> {
        self.head.subscribe()
    }

    async fn read(&self, partition: Partition, from: Offset, rows_max: usize) -> Result<Vec<Frame>, StorageError> {
        let head = self.head.borrow().offset(partition);
        let inner = self.inner.lock();
        let state = self.link.world.state();
        let disk = &state.logs[&self.key];
        if from < disk.start.offset(partition) {
            return Err(StorageError::NotFound { path: format!("partition {partition}, offset {from}") });
        }
        let (mut read, mut rows) = (vec![], 0);
        let early = inner.early.iter().filter(|frame| frame.partition == partition);
        let frames = disk.frames[partition as usize].iter().chain(early);
        for frame in frames.filter_map(|frame| frame.clip(&(from..head))) {
            if rows >= rows_max && !read.is_empty() {
                break;
            }
            rows += frame.rows.num_rows();
            read.push(frame);
        }
        Ok(read)
    }

    async fn truncate(&self, below: &Cut) -> Result<(), StorageError> {
        let mut state = self.link.world.state();
        let disk = state.logs.get_mut(&self.key).expect("an open log has a disk");
        disk.start = disk.start.join(&below.meet(&disk.end));
        Ok(())
    }

    async fn close(&self) {
        self.inner.lock().is_closed = true;
        loop {
            let emptied = self.emptied.notified();
            if !self.has_queued() {
                return;
            }
            emptied.await;
        }
    }
}

mod tests {
    use std::sync::Weak;

    use rand::SeedableRng;
    use storage::log::conformance::{self, PARTITIONS, Subject};

    use super::super::link::Weather;
    use super::super::world::{Bugs, World};
    use super::*;

    /// The newest log.
    #[derive(Default)]
    struct Subjects(Mutex<Option<Arc<SimulatedLog>>>);

    impl Subjects {
        fn open(&self, link: &Arc<Link>) -> Arc<dyn Log> {
            let log = SimulatedLog::open(
                link,
                (Uuid::nil(), "records".into()),
                conformance::schema(),
                Uuid::from_u128(7),
                PARTITIONS,
            );
            tokio::spawn(sync_always(Arc::downgrade(&log)));
            *self.0.lock() = Some(Arc::clone(&log));
            log
        }
    }

    async fn sync_always(log: Weak<SimulatedLog>) {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        while let Some(log) = log.upgrade() {
            log.fsync(Fate::Fine, &mut rng);
            tokio::task::yield_now().await;
        }
    }

    #[async_trait]
    impl Subject for Subjects {
        async fn create(&self) -> Result<Arc<dyn Log>, StorageError> {
            let world = World::new(Bugs::default());
            world.state().log_writer = 1;
            Ok(self.open(&Link::new(&world, 1, 1, Weather::CALM, None)))
        }

        async fn fail(&self, log: &dyn Log, behind: usize) -> Result<Vec<Pending>, StorageError> {
            let newest = self.0.lock().clone().unwrap();
            let pending = (0..=behind).map(|_| log.append(log.epoch(), vec![(0, conformance::rows(900, 5)?)]));
            let pending = pending.collect();
            newest.fsync(Fate::FailsBefore, &mut ChaCha8Rng::seed_from_u64(1));
            pending
        }

        async fn reopen(&self, log: Arc<dyn Log>) -> Result<Arc<dyn Log>, StorageError> {
            log.close().await;
            let link = Arc::clone(&self.0.lock().take().unwrap().link);
            Ok(self.open(&link))
        }
    }

    #[tokio::test]
    async fn simulated_log_conforms() {
        conformance::check(&Subjects::default()).await.unwrap();
    }
}
