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

pub(crate) mod index;
pub(crate) mod parts;
mod recovery;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use schemas::{Cut, StreamDef};
use storage::StorageError;
use storage::clock::Clock;
use storage::log::{Epoch, Log, Pending};
use tokio::sync::watch;

use self::parts::Part;
use self::recovery::{PartitionState, recover};
pub(crate) use self::recovery::{last_append_time, last_record};

/// Requests up to this many rows are decided where they are: a hop to another thread costs more.
const INLINE_ROWS_MAX: usize = 1_024;

/// What the log has taken of a request; durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
    /// Everything of the request, and the originals of its duplicates, is below. 0 for partitions
    /// that the request did not touch.
    pub(crate) cut: Cut,
}

/// The gate of one stream's log. Nobody else appends to it.
#[derive(Debug)]
pub(crate) struct Admission {
    stream: Arc<StreamDef>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    ids_max: usize,
    /// None until read from the log, and again after a failed append.
    state: Mutex<Option<State>>,
    recovering: tokio::sync::Mutex<()>,
    progress: watch::Sender<Progress>,
    /// Where the next request of a stream without primary key goes.
    turn: AtomicU32,
}

#[derive(Debug)]
struct State {
    partitions: Vec<PartitionState>,
    last_append_us: i64,
    /// What was read from the log, and decided since, is of this epoch.
    epoch: Epoch,
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

/// Why nothing was queued.
#[derive(Debug)]
enum Refusal {
    /// The state is as it was.
    Unchanged(StorageError),
    /// An append that the state counts has failed: it has to be read again.
    Outdated,
    /// The state is of no use any more.
    Bug(ArrowError),
}

/// How to take one part's decision back.
struct Undo {
    partition: usize,
    kept: Vec<u128>,
    max_event_time_us: Option<i64>,
}

impl Admission {
    pub(crate) fn new(stream: Arc<StreamDef>, log: Arc<dyn Log>, clock: Arc<dyn Clock>, ids_max: usize) -> Self {
        let (state, recovering) = (Mutex::new(None), tokio::sync::Mutex::new(()));
        let (progress, turn) = (watch::Sender::new(Progress::default()), AtomicU32::new(0));
        Self { stream, log, clock, ids_max, state, recovering, progress, turn }
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
            if let Some(queued) = self.decide_where_it_may_block(&parts).await? {
                return self.settle(queued).await;
            }
        }
    }

    /// Many rows keep a thread busy for milliseconds (probes, the log's encoding): not one that
    /// answers requests.
    async fn decide_where_it_may_block(self: &Arc<Self>, parts: &Arc<[Part]>) -> Result<Option<Queued>, StorageError> {
        if parts.iter().map(|part| part.rows.num_rows()).sum::<usize>() <= INLINE_ROWS_MAX {
            return self.decide(parts);
        }
        let (admission, parts) = (Arc::clone(self), Arc::clone(parts));
        let decided = tokio::task::spawn_blocking(move || admission.decide(&parts)).await;
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
        let recovered = recover(&self.stream, self.log.as_ref(), self.clock.now_us()).await?;
        tracing::info!(stream = %self.stream.name, head = %self.log.head(), "read the admission state from the log");
        let state = State { partitions: recovered.partitions, last_append_us: recovered.last_append_us, epoch };
        *self.state.lock() = Some(state);
        Ok(())
    }

    /// Decides and queues; none if the state has to be read again first.
    ///
    /// The state is out of its place meanwhile: whatever goes wrong, it is never half changed.
    fn decide(&self, parts: &[Part]) -> Result<Option<Queued>, StorageError> {
        let mut place = self.state.lock();
        let Some(mut state) = place.take() else { return Ok(None) };
        match self.decide_with(&mut state, parts) {
            Ok(queued) => {
                *place = Some(state);
                Ok(Some(queued))
            }
            Err(Refusal::Unchanged(error)) => {
                *place = Some(state);
                Err(error)
            }
            Err(Refusal::Outdated) => Ok(None),
            Err(Refusal::Bug(error)) => Err(StorageError::io("placing rows", error)),
        }
    }

    fn decide_with(&self, state: &mut State, parts: &[Part]) -> Result<Queued, Refusal> {
        let now_us = self.clock.now_us().max(state.last_append_us);
        self.check_room(state, parts, now_us).map_err(Refusal::Unchanged)?;
        let mut admitted = Admitted { accepted: 0, duplicates: 0, cut: Cut::zero(self.log.partitions()) };
        let mut appends = vec![];
        let mut undo = vec![];
        for part in parts {
            let partition = &mut state.partitions[part.partition as usize];
            let (rows, taken) = self.decide_part(partition, part, now_us).map_err(Refusal::Bug)?;
            admitted.accepted += rows.num_rows() as u64;
            admitted.duplicates += (part.rows.num_rows() - rows.num_rows()) as u64;
            admitted.cut.set(part.partition, partition.next + rows.num_rows() as u64);
            if rows.num_rows() > 0 {
                appends.push((part.partition, rows));
            }
            undo.push(taken);
        }
        if appends.is_empty() {
            return Ok(Queued { pending: None, admitted, ticket: self.ticket(false) });
        }
        match self.log.append(state.epoch, appends) {
            Ok(pending) => {
                state.accept(parts, &admitted.cut, now_us);
                Ok(Queued { pending: Some(pending), admitted, ticket: self.ticket(true) })
            }
            Err(StorageError::Outdated { .. }) => Err(Refusal::Outdated),
            Err(error) => {
                state.take_back(undo);
                Err(Refusal::Unchanged(error))
            }
        }
    }

    fn check_room(&self, state: &mut State, parts: &[Part], now_us: i64) -> Result<(), StorageError> {
        let mut ids = 0;
        for part in parts.iter().filter(|part| !part.identities.is_empty()) {
            state.partitions[part.partition as usize].index.expire(now_us);
            ids += part.identities.len();
        }
        ids += state.partitions.iter().map(|p| p.index.len()).sum::<usize>();
        if ids <= self.ids_max {
            return Ok(());
        }
        let what =
            format!("stream {}: index of the ids within dedup_horizon ({} at most)", self.stream.name, self.ids_max);
        Err(StorageError::Full { what })
    }

    fn decide_part(
        &self,
        partition: &mut PartitionState,
        part: &Part,
        now_us: i64,
    ) -> Result<(RecordBatch, Undo), ArrowError> {
        let max_event_time_us = partition.max_event_time_us;
        let mut chosen = Vec::with_capacity(part.identities.len());
        let mut kept = Vec::with_capacity(part.identities.len());
        for (row, identity) in (0_u32..).zip(&part.identities) {
            if partition.index.keep(*identity, now_us) {
                chosen.push(row);
                kept.push(*identity);
            }
        }
        let undo = Undo { partition: part.partition as usize, kept, max_event_time_us };
        let rows =
            if chosen.len() == part.identities.len() { part.rows.clone() } else { parts::gather(&part.rows, chosen)? };
        let (rows, max_after) = parts::stamp(&self.stream, &rows, now_us, max_event_time_us)?;
        partition.max_event_time_us = max_after;
        Ok((rows, undo))
    }

    /// Taken while the state is locked: tickets follow the order of the decisions.
    fn ticket(&self, appends: bool) -> Ticket {
        let mut ticket = Ticket { number: 0, failures: 0 };
        self.progress.send_if_modified(|p| {
            ticket = Ticket { number: p.next, failures: p.failures };
            if appends {
                p.in_flight.insert(p.next);
                p.next += 1;
            }
            // Nobody waits for an append to begin.
            false
        });
        ticket
    }

    async fn settle(&self, queued: Queued) -> Result<Admitted, StorageError> {
        let Queued { pending, mut admitted, ticket } = queued;
        if let Some(pending) = pending {
            let placed = pending.durable().await;
            self.end(ticket, placed.is_ok());
            for (partition, range) in placed? {
                admitted.cut.set(partition, range.end);
            }
        }
        if admitted.duplicates > 0 {
            self.wait_for_appends_before(ticket).await?;
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

impl State {
    fn accept(&mut self, parts: &[Part], cut: &Cut, now_us: i64) {
        self.last_append_us = now_us;
        for part in parts {
            self.partitions[part.partition as usize].next = cut.offset(part.partition);
        }
    }

    fn take_back(&mut self, undo: Vec<Undo>) {
        for Undo { partition, kept, max_event_time_us } in undo {
            let partition = &mut self.partitions[partition];
            partition.max_event_time_us = max_event_time_us;
            for identity in kept {
                partition.index.forget(identity);
            }
        }
    }
}
