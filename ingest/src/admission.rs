//! Which rows of a request the log takes, and in which order: duplicates fall out here, append times
//! and largest event times are given here. Decided under one lock per stream, so the order of the
//! decisions is the order in the log.
//!
//! ```text
//!  recover (log → state) ─► decide + queue (one lock) ─► durable ─► acknowledged
//!        ▲                                                  │ failed: the state built on rows that
//!        └──────────────────────────────────────────────────┘         do not exist; read it again
//! ```
//!
//! A duplicate is acknowledged once the appends before it ended well, its original among them. The
//! head tells nothing about that: if a group fails, the next one gets the offsets of the lost rows.
//!
//! What was decided on top of a failed append would count rows that never came to be in its largest event
//! times. The log takes nothing of it: what is queued behind a failure fails too, and what comes later
//! is of an epoch that has ended, so it is decided again.
//!
//! One lock and not one per partition: a request of more than a few events touches every partition
//! anyway, and the log takes its parts as a whole.

mod conflicts;
mod decide;
pub(crate) mod index;
pub(crate) mod parts;
mod recovery;
pub(crate) mod series;
mod spill;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use schemas::{Cut, IntakeCounts, Offset, Partition, StreamDef};
use storage::StorageError;
use storage::clock::Clock;
use storage::log::{Epoch, Log, Pending};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::index::Disk;
use self::parts::Part;
use self::recovery::{PartitionState, recover};
pub(crate) use self::recovery::{append_time_at, first_since, last_append_time, last_record};
use self::series::Series;
use crate::identity::Identity;

/// Requests up to this many rows are decided where they are: a hop to another thread costs more.
const INLINE_ROWS_MAX: usize = 1_024;

/// What the log has taken of a request; durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) parts: Vec<AdmittedPart>,
    pub(crate) append_us: i64,
    /// Everything of the request, and the originals of its duplicates, is below. 0 for partitions
    /// that the request did not touch.
    pub(crate) cut: Cut,
}

/// What the log has taken of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdmittedPart {
    pub(crate) partition: Partition,
    /// Offset of its first new record.
    pub(crate) start: Offset,
    pub(crate) counts: IntakeCounts,
}

impl Admitted {
    pub(crate) fn counts(&self) -> IntakeCounts {
        IntakeCounts::sum(self.parts.iter().map(|part| &part.counts))
    }
}

/// How many ids are remembered, and where those go that memory has no room for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// In memory, over all partitions.
    pub(crate) ids_in_memory_max: usize,
    /// In all.
    pub(crate) ids_max: usize,
    /// None: everything is in memory.
    pub(crate) folder: Option<PathBuf>,
}

/// A record that an earlier one stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Duplicate {
    /// In its part.
    row: u32,
    original: Offset,
}

/// The gate of one stream's log. Nobody else appends to it.
#[derive(Debug)]
pub(crate) struct Admission {
    stream: Arc<StreamDef>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    memory: Memory,
    /// None until read from the log, and again after a failed append.
    state: Mutex<Option<State>>,
    recovering: tokio::sync::Mutex<()>,
    progress: watch::Sender<Progress>,
    /// Where the next request of a stream without primary key goes.
    turn: AtomicU32,
    /// Tables of ids on their way to disk.
    spills: TaskTracker,
    spilling: tokio::sync::Mutex<()>,
    /// A request found no room: tables go to disk however small they are.
    is_pressed: AtomicBool,
    /// States that were read so far.
    generations: AtomicU64,
}

#[derive(Debug)]
struct State {
    partitions: Vec<PartitionState>,
    last_append_us: i64,
    /// What was read from the log, and decided since, is of this epoch.
    epoch: Epoch,
    /// Tells a state from the one that is read after it.
    generation: u64,
}

#[derive(Debug, Default)]
struct Progress {
    /// Tickets of the appends that are queued and whose end is not known.
    in_flight: BTreeSet<u64>,
    /// The ticket of the next append; they follow the order of the decisions.
    next: u64,
    /// Appends that failed after they were queued.
    failures: u64,
}

/// A decided request on its way to the disk.
#[derive(Debug)]
struct Queued {
    pending: Option<Pending>,
    admitted: Admitted,
    /// Per part.
    duplicates: Vec<Vec<Duplicate>>,
    ticket: Ticket,
}

/// The place of a decision among the appends.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    /// What was decided before has a smaller one.
    number: u64,
    /// Failures known when it was decided.
    failures: u64,
}

impl Admission {
    pub(crate) fn new(stream: Arc<StreamDef>, log: Arc<dyn Log>, clock: Arc<dyn Clock>, memory: Memory) -> Self {
        let (state, recovering) = (Mutex::new(None), tokio::sync::Mutex::new(()));
        let (progress, turn) = (watch::Sender::new(Progress::default()), AtomicU32::new(0));
        let (spills, spilling) = (TaskTracker::new(), tokio::sync::Mutex::new(()));
        let (is_pressed, generations) = (AtomicBool::new(false), AtomicU64::new(0));
        Self {
            stream,
            log,
            clock,
            memory,
            state,
            recovering,
            progress,
            turn,
            spills,
            spilling,
            is_pressed,
            generations,
        }
    }

    fn disk(&self, partition: Partition) -> Option<Disk> {
        let incarnation = self.log.incarnation();
        self.memory.folder.clone().map(|folder| Disk { folder, incarnation, partition })
    }

    /// Ids that the table of one partition holds before it is written to disk: while it is, another one fills.
    fn table_ids_max(&self) -> usize {
        if self.is_pressed.load(Ordering::Relaxed) {
            return 1;
        }
        (self.memory.ids_in_memory_max / 2 / self.log.partitions().max(1) as usize).max(1)
    }

    /// Waits until nothing is on its way to disk any more.
    pub(crate) async fn close(&self) {
        self.spills.close();
        self.spills.wait().await;
    }

    /// Where the record that stands for an identity is, if it is within the horizon.
    ///
    /// # Errors
    /// The log or the index cannot be read.
    pub(crate) async fn find(
        self: &Arc<Self>,
        partition: Partition,
        identity: Identity,
    ) -> Result<Option<Offset>, StorageError> {
        self.ensure_recovered().await?;
        let admission = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || {
            let state = admission.state.lock();
            let known = state.as_ref().and_then(|state| state.partitions.get(partition as usize));
            known.map_or(Ok(None), |partition| partition.index.find(identity))
        });
        found.await.unwrap_or_else(|error| Err(StorageError::io("looking for an id", error)))
    }

    /// The partition of a whole request to a stream without primary key: each in its turn.
    pub(crate) fn next_partition(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.log.partitions().max(1)
    }

    /// Queues what is new in `parts` and waits until it, and the originals of what is not, are
    /// durable. The parts are in order of their partitions, each partition once.
    ///
    /// Run it to its end: dropped halfway, it never learns whether the append failed.
    ///
    /// # Errors
    /// `Full` when the log's queue or the index of ids is full: nothing was written. `Io` when the
    /// log failed: nothing is acknowledged, the request may be sent again.
    pub(crate) async fn admit(self: &Arc<Self>, parts: Vec<Part>) -> Result<Admitted, StorageError> {
        let parts: Arc<[Part]> = parts.into();
        loop {
            self.ensure_recovered().await?;
            let decided = self.decide_where_it_may_block(&parts, None).await;
            self.spill_if_due();
            if let Some(queued) = decided? {
                return self.settle(queued, &parts).await;
            }
        }
    }

    /// Many rows keep a thread busy for milliseconds (probes, the log's encoding): not one that
    /// answers requests.
    async fn decide_where_it_may_block(
        self: &Arc<Self>,
        parts: &Arc<[Part]>,
        series: Option<Series>,
    ) -> Result<Option<Queued>, StorageError> {
        if parts.iter().map(|part| part.rows.num_rows()).sum::<usize>() <= INLINE_ROWS_MAX {
            return self.decide(parts, series);
        }
        let (admission, parts) = (Arc::clone(self), Arc::clone(parts));
        let decided = tokio::task::spawn_blocking(move || admission.decide(&parts, series)).await;
        decided.unwrap_or_else(|error| Err(StorageError::io("deciding what is new", error)))
    }

    /// Forgets what is in memory: the next request reads it from the log again. Nothing may be on its way.
    pub(crate) fn forget(&self) {
        *self.state.lock() = None;
    }

    async fn ensure_recovered(&self) -> Result<(), StorageError> {
        if self.state.lock().is_some() {
            return Ok(());
        }
        let _one_at_a_time = self.recovering.lock().await;
        if self.state.lock().is_some() {
            return Ok(());
        }
        // Without state nothing new is queued; what is on its way has to end first.
        let mut progress = self.progress.subscribe();
        if progress.wait_for(|p| p.in_flight.is_empty()).await.is_err() {
            return Err(StorageError::Closed { what: "admission".into() });
        }
        // before the head is looked at: what fails from here on ends this epoch
        let epoch = self.log.epoch();
        let recovered = recover(self, self.clock.now_us()).await?;
        tracing::info!(stream = %self.stream.name, head = %self.log.head(), "read the admission state from the log");
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let (partitions, last_append_us) = (recovered.partitions, recovered.last_append_us);
        let state = State { partitions, last_append_us, epoch, generation };
        *self.state.lock() = Some(state);
        Ok(())
    }

    async fn settle(self: &Arc<Self>, queued: Queued, parts: &Arc<[Part]>) -> Result<Admitted, StorageError> {
        let Queued { pending, mut admitted, duplicates, ticket } = queued;
        if let Some(pending) = pending {
            let placed = pending.durable().await;
            self.end(ticket, placed.is_ok());
            for (partition, range) in placed? {
                admitted.cut.set(partition, range.end);
                for part in admitted.parts.iter_mut().filter(|part| part.partition == partition) {
                    part.start = range.start;
                    part.counts.accepted = range.end - range.start;
                }
            }
        }
        if duplicates.iter().any(|of_part| !of_part.is_empty()) {
            self.wait_for_appends_before(ticket).await?;
            for ((admitted, part), duplicates) in admitted.parts.iter_mut().zip(parts.iter()).zip(&duplicates) {
                admitted.counts.conflicts = conflicts::count(&self.stream, &self.log, part, duplicates).await?;
            }
        }
        Ok(admitted)
    }

    /// A failed append takes the state with it before anybody can see that it has ended.
    fn end(&self, ticket: Ticket, well: bool) {
        if !well {
            *self.state.lock() = None;
        }
        self.progress.send_modify(|p| {
            p.in_flight.remove(&ticket.number);
            p.failures += u64::from(!well);
        });
    }

    /// Originals of duplicates may be on their way still: they have to be durable first.
    async fn wait_for_appends_before(&self, ticket: Ticket) -> Result<(), StorageError> {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|p| {
            p.failures != ticket.failures || p.in_flight.first().is_none_or(|first| *first >= ticket.number)
        });
        let failures = ended.await.map_err(|_| StorageError::Closed { what: "admission".into() })?.failures;
        if failures == ticket.failures {
            return Ok(());
        }
        Err(StorageError::io(
            format!("stream {}: an append that this one builds on", self.stream.name),
            "it failed; nothing of this request is acknowledged",
        ))
    }
}
