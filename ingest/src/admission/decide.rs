//! The decision: what of a request is new. Under the lock of the state, in the order of the log.

use std::sync::atomic::Ordering;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use schemas::{Cut, IntakeCounts, Offset};
use storage::StorageError;

use super::parts::{self, Part};
use super::recovery::PartitionState;
use super::series::Series;
use super::{Admission, Admitted, AdmittedPart, Duplicate, Queued, State, Ticket, index};
use crate::identity::Identity;

/// Why nothing was queued.
#[derive(Debug)]
enum Refusal {
    /// The state is as it was.
    Unchanged(StorageError),
    /// An append that the state counts has failed: it has to be read again.
    Outdated,
    /// The state is of no use any more.
    Lost(StorageError),
}

impl From<ArrowError> for Refusal {
    fn from(error: ArrowError) -> Self {
        Self::Lost(StorageError::io("placing rows", error))
    }
}

/// How to take one part's decision back.
struct Undo {
    partition: usize,
    kept: Vec<Identity>,
    max_event_time_us: Option<i64>,
}

/// What is new in a part.
struct Decided {
    rows: RecordBatch,
    duplicates: Vec<Duplicate>,
    undo: Undo,
}

impl Admission {
    /// Decides and queues; none if the state has to be read again first, or is not the one of the series.
    ///
    /// The state is out of its place meanwhile: whatever goes wrong, it is never half changed.
    pub(super) fn decide(&self, parts: &[Part], series: Option<Series>) -> Result<Option<Queued>, StorageError> {
        let mut place = self.state.lock();
        if place.as_ref().is_some_and(|state| series.is_some_and(|series| !series.is_on(state))) {
            return Ok(None);
        }
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
            // nothing more may be queued on it: it is read from the log again
            Err(Refusal::Lost(error)) => Err(error),
        }
    }

    fn decide_with(&self, state: &mut State, parts: &[Part]) -> Result<Queued, Refusal> {
        let now_us = self.clock.now_us().max(state.last_append_us);
        self.check_room(state, parts, now_us).map_err(Refusal::Unchanged)?;
        let older = probe(state, parts).map_err(Refusal::Lost)?;
        let cut = Cut::zero(self.log.partitions());
        let mut admitted = Admitted { parts: Vec::with_capacity(parts.len()), append_us: now_us, cut };
        let (mut appends, mut undo, mut duplicates) = (vec![], vec![], vec![]);
        for (part, older) in parts.iter().zip(older) {
            let partition = &mut state.partitions[part.partition as usize];
            let decided = self.decide_part(partition, part, &older, now_us)?;
            let (start, new) = (partition.next, decided.rows.num_rows() as u64);
            let counts = IntakeCounts {
                received: part.rows.num_rows() as u64,
                accepted: new,
                duplicates: decided.duplicates.len() as u64,
                ..IntakeCounts::default()
            };
            admitted.parts.push(AdmittedPart { partition: part.partition, start, counts });
            admitted.cut.set(part.partition, start + new);
            if new > 0 {
                appends.push((part.partition, decided.rows));
            }
            undo.push(decided.undo);
            duplicates.push(decided.duplicates);
        }
        if appends.is_empty() {
            return Ok(Queued { pending: None, admitted, duplicates, ticket: self.ticket(false) });
        }
        match self.log.append(state.epoch, appends) {
            Ok(pending) => {
                state.accept(parts, &admitted.cut, now_us);
                Ok(Queued { pending: Some(pending), admitted, duplicates, ticket: self.ticket(true) })
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
            let partition = &mut state.partitions[part.partition as usize];
            partition.index.expire(now_us, partition.next);
            ids += part.identities.len();
        }
        let indexes = || state.partitions.iter().map(|partition| &partition.index);
        let in_memory = indexes().map(index::Index::in_memory).sum::<usize>();
        let all = indexes().map(index::Index::len).sum::<usize>() + ids;
        // a request that finds memory empty is always taken: it cannot be made smaller
        let fits = in_memory == 0 || in_memory + ids <= self.memory.ids_in_memory_max;
        self.is_pressed.store(!fits, Ordering::Relaxed);
        if fits && all <= self.memory.ids_max {
            return Ok(());
        }
        let (all_max, memory_max) = (self.memory.ids_max, self.memory.ids_in_memory_max);
        let what = format!(
            "stream {}: index of the ids within dedup_horizon ({all_max} at most, {memory_max} in memory)",
            self.stream.name
        );
        Err(StorageError::Full { what })
    }

    fn decide_part(
        &self,
        partition: &mut PartitionState,
        part: &Part,
        older: &[(u32, Offset)],
        now_us: i64,
    ) -> Result<Decided, ArrowError> {
        let max_event_time_us = partition.max_event_time_us;
        let mut chosen = Vec::with_capacity(part.identities.len());
        let (mut kept, mut duplicates) = (Vec::with_capacity(part.identities.len()), vec![]);
        let mut older = older.iter().peekable();
        for (row, identity) in (0_u32..).zip(&part.identities) {
            let known = older.next_if(|(known, _)| *known == row).map(|(_, offset)| *offset);
            let next = partition.next + chosen.len() as u64;
            if let Some(original) = known.or_else(|| partition.index.keep(*identity, next)) {
                duplicates.push(Duplicate { row, original });
            } else {
                chosen.push(row);
                kept.push(*identity);
            }
        }
        if !kept.is_empty() {
            partition.index.note_time(now_us, partition.next);
        }
        let undo = Undo { partition: part.partition as usize, kept, max_event_time_us };
        let rows = if duplicates.is_empty() { part.rows.clone() } else { parts::gather(&part.rows, chosen)? };
        let (rows, max_after) = parts::stamp(&self.stream, &rows, now_us, max_event_time_us)?;
        partition.max_event_time_us = max_after;
        Ok(Decided { rows, duplicates, undo })
    }

    /// Taken while the state is locked: tickets follow the order of the decisions.
    pub(super) fn ticket(&self, appends: bool) -> Ticket {
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
            partition.index.forget_times(partition.next);
            for identity in kept {
                partition.index.forget(identity);
            }
        }
    }
}

/// Per part, what the older levels of the index know.
fn probe(state: &State, parts: &[Part]) -> Result<Vec<Vec<(u32, Offset)>>, StorageError> {
    let probe_part = |part: &Part| state.partitions[part.partition as usize].index.probe(&part.identities);
    parts.iter().map(probe_part).collect()
}
