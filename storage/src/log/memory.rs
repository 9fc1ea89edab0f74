//! A log in memory, for tests and simulations: its disk does what it is told.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{Cut, Offset, Partition};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::{Epoch, Frame, Log, Pending, Placed};
use crate::error::StorageError;

/// What the disk of a [`MemoryLog`] does with an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disk {
    /// Durable at once.
    #[default]
    Quick,
    /// Waits for [`MemoryLog::flush`].
    Held,
    /// The queue takes nothing.
    Full,
    /// What is being written has not ended for so many seconds.
    Stalled(u64),
}

type Queued = (Vec<(Partition, RecordBatch)>, oneshot::Sender<Result<Vec<Placed>, StorageError>>);

#[derive(Debug, Default)]
struct Inner {
    disk: Disk,
    is_closed: bool,
    start: Cut,
    /// By partition, consecutive.
    frames: Vec<Vec<Frame>>,
    queue: Vec<Queued>,
    epoch: Epoch,
}

/// A log in memory. What was queued is lost with it; what is durable survives [`MemoryLog::reopen`].
#[derive(Debug)]
pub struct MemoryLog {
    incarnation: Uuid,
    inner: Mutex<Inner>,
    head: watch::Sender<Cut>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(incarnation: Uuid, partitions: u32) -> Arc<Self> {
        let start = Cut::zero(partitions);
        let head = watch::Sender::new(start.clone());
        let inner = Inner { start, frames: vec![vec![]; partitions as usize], ..Inner::default() };
        Arc::new(Self { incarnation, inner: Mutex::new(inner), head })
    }

    /// The log as a new process finds it.
    #[must_use]
    pub fn reopen(&self) -> Arc<Self> {
        let inner = self.inner.lock();
        let durable = Inner { start: inner.start.clone(), frames: inner.frames.clone(), ..Inner::default() };
        let head = watch::Sender::new(self.head());
        Arc::new(Self { incarnation: self.incarnation, inner: Mutex::new(durable), head })
    }

    /// From now on the disk does this.
    pub fn set(&self, disk: Disk) {
        self.inner.lock().disk = disk;
    }

    /// How many appends are queued.
    pub fn queued(&self) -> usize {
        self.inner.lock().queue.len()
    }

    /// Ends everything that is queued, well or not.
    pub fn flush(&self, well: bool) {
        self.flush_first(self.queued(), well);
    }

    /// Ends the oldest `appends` that are queued, a group of their own; if not well, those behind them too.
    pub fn flush_first(&self, appends: usize, well: bool) {
        let mut inner = self.inner.lock();
        // a failure takes what is queued behind it with it
        let end = if well { appends.min(inner.queue.len()) } else { inner.queue.len() };
        let group: Vec<Queued> = inner.queue.drain(..end).collect();
        inner.epoch += u64::from(!well && end > 0);
        for (rows, done) in group {
            let result =
                if well { Ok(self.place(&mut inner, rows)) } else { Err(StorageError::io("fsync", "no disk")) };
            // nobody waits any more: nobody needs to know
            let _ = done.send(result);
        }
    }

    /// Puts a frame at the end of its partition, durable.
    ///
    /// # Panics
    /// If it does not start there.
    pub fn push(&self, frame: Frame) {
        let mut inner = self.inner.lock();
        let end = self.head.borrow().offset(frame.partition);
        assert!(frame.base == end, "partition {}: {} follows {end}", frame.partition, frame.base);
        self.place(&mut inner, vec![(frame.partition, frame.rows)]);
    }

    /// Everything that is durable and kept, by partition.
    pub fn frames(&self) -> Vec<Frame> {
        self.inner.lock().frames.iter().flatten().cloned().collect()
    }

    fn place(&self, inner: &mut Inner, rows: Vec<(Partition, RecordBatch)>) -> Vec<Placed> {
        let mut placed = vec![];
        self.head.send_modify(|head| {
            for (partition, rows) in rows {
                let frame = Frame { partition, base: head.offset(partition), rows };
                placed.push((partition, frame.base..frame.end()));
                head.set(partition, frame.end());
                if frame.rows.num_rows() > 0 {
                    inner.frames[partition as usize].push(frame);
                }
            }
        });
        placed
    }
}

impl Inner {
    fn check_progress(&self) -> Result<(), StorageError> {
        match self.disk {
            Disk::Stalled(seconds) => Err(StorageError::Stalled { what: "the log".into(), seconds }),
            _ => Ok(()),
        }
    }

    fn check(&self, epoch: Epoch, rows: &[(Partition, RecordBatch)]) -> Result<(), StorageError> {
        if self.is_closed {
            return Err(StorageError::Closed { what: "log".into() });
        }
        if epoch != self.epoch {
            return Err(StorageError::Outdated { what: "an append to the log".into() });
        }
        self.check_progress()?;
        if self.disk == Disk::Full {
            return Err(StorageError::Full { what: "the log's queue".into() });
        }
        // the first rows that come say what the schema is
        let known = self.frames.iter().flatten().next().map(|frame| frame.rows.schema());
        for (partition, rows) in rows {
            let doing = || format!("appending to partition {partition}");
            if *partition as usize >= self.frames.len() {
                return Err(StorageError::io(doing(), format!("there are {} partitions", self.frames.len())));
            }
            if known.as_ref().is_some_and(|known| known.fields() != rows.schema().fields()) {
                return Err(StorageError::io(doing(), "the rows have another schema"));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    fn partitions(&self) -> u32 {
        self.inner.lock().frames.len() as u32
    }

    fn epoch(&self) -> Epoch {
        self.inner.lock().epoch
    }

    fn append(&self, epoch: Epoch, rows: Vec<(Partition, RecordBatch)>) -> Result<Pending, StorageError> {
        let mut inner = self.inner.lock();
        inner.check(epoch, &rows)?;
        let (done, pending) = Pending::new();
        if inner.disk == Disk::Held {
            inner.queue.push((rows, done));
        } else {
            // a `Pending` that was just made takes everything
            let _ = done.send(Ok(self.place(&mut inner, rows)));
        }
        Ok(pending)
    }

    fn check_progress(&self) -> Result<(), StorageError> {
        self.inner.lock().check_progress()
    }

    fn start(&self) -> Cut {
        self.inner.lock().start.clone()
    }

    fn head(&self) -> Cut {
        self.head.borrow().clone()
    }

    fn watch_head(&self) -> watch::Receiver<Cut> {
        self.head.subscribe()
    }

    async fn read(&self, partition: Partition, from: Offset, rows_max: usize) -> Result<Vec<Frame>, StorageError> {
        let inner = self.inner.lock();
        if from < inner.start.offset(partition) {
            return Err(StorageError::NotFound { path: format!("partition {partition}, offset {from}") });
        }
        let (mut read, mut rows) = (vec![], 0);
        let frames = inner.frames.get(partition as usize).into_iter().flatten();
        for frame in frames.filter_map(|frame| frame.clip(&(from..Offset::MAX))) {
            if rows >= rows_max && !read.is_empty() {
                break;
            }
            rows += frame.rows.num_rows();
            read.push(frame);
        }
        Ok(read)
    }

    async fn truncate(&self, below: &Cut) -> Result<(), StorageError> {
        let mut inner = self.inner.lock();
        inner.start = inner.start.join(&below.meet(&self.head()));
        Ok(())
    }

    fn bytes(&self) -> Option<u64> {
        let frames = self.frames();
        Some(frames.iter().map(|frame| crate::footprint::bytes_of(&frame.rows) as u64).sum())
    }

    async fn close(&self) {
        self.inner.lock().is_closed = true;
        self.flush(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::conformance::{self, PARTITIONS, Subject};

    /// The newest log, found again when it is to be reopened.
    #[derive(Default)]
    struct Subjects(Mutex<Option<Arc<MemoryLog>>>);

    #[async_trait]
    impl Subject for Subjects {
        async fn create(&self) -> Result<Arc<dyn Log>, StorageError> {
            let log = MemoryLog::new(Uuid::from_u128(7), PARTITIONS);
            *self.0.lock() = Some(Arc::clone(&log));
            Ok(log)
        }

        async fn fail(&self, log: &dyn Log, behind: usize) -> Result<Vec<Pending>, StorageError> {
            let memory = self.0.lock().clone().unwrap();
            memory.set(Disk::Held);
            let pending = (0..=behind).map(|_| log.append(log.epoch(), vec![(0, conformance::rows(900, 5)?)]));
            let pending = pending.collect();
            memory.flush_first(1, false);
            memory.set(Disk::Quick);
            pending
        }

        async fn reopen(&self, log: Arc<dyn Log>) -> Result<Arc<dyn Log>, StorageError> {
            log.close().await;
            let log = self.0.lock().take().unwrap().reopen();
            *self.0.lock() = Some(Arc::clone(&log));
            Ok(log)
        }
    }

    #[tokio::test]
    async fn memory_log_conforms() {
        conformance::check(&Subjects::default()).await.unwrap();
    }
}
