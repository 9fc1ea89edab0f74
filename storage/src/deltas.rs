//! Deltas: the durable states of the speed layer, as a chain of objects per stream.
//!
//! ```text
//!  0–3.delta ──► 4–4.delta ──► 5–5.delta ──►        named by their checkpoints, created only if absent:
//!  (merged)                                         of two owners of a stream one loses, at once
//! ```
//!
//! An owner that takes a store over claims the next checkpoint with an empty delta. An older one may still merge what
//! lies before that: a merge says what its parts say, so it does no harm beside them, as long as it removes none of them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use schemas::documents::delta::DeltaHeader;
use uuid::Uuid;

use crate::error::StorageError;
use crate::paths;
use crate::store::Store;

mod bytes_of;
mod file;

pub use bytes_of::{decode, encode};
pub(crate) use bytes_of::{read_stream, write_stream};

/// Deltas of a chain that are read at once: while one is decoded, the next one is on its way.
const READ_AT_ONCE: usize = 2;

/// A delta in memory.
#[derive(Debug, Clone)]
pub struct Delta {
    /// What it says about itself.
    pub header: DeltaHeader,
    /// Per view of the header, in its order, the states; no batch for a view without cells.
    pub states: Vec<Vec<RecordBatch>>,
}

/// The deltas of every stream.
#[derive(Debug, Clone)]
pub struct DeltaStore {
    store: Store,
}

impl DeltaStore {
    /// The deltas in a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// True if another process could take the store over: then a new owner claims a checkpoint.
    pub fn is_claimed(&self) -> bool {
        self.store.epoch() > 0
    }

    /// Looks whether the store is still this process's.
    ///
    /// # Errors
    /// `Fenced`; `Io`
    pub async fn assert_owned(&self) -> Result<(), StorageError> {
        self.store.assert_owned().await
    }

    /// Writes a delta, durably, and returns its header with the lengths filled in.
    ///
    /// # Errors
    /// `Conflict`: somebody else wrote these checkpoints, so this writer is fenced and has to stop.
    pub async fn commit(&self, header: &DeltaHeader, states: &[Vec<RecordBatch>]) -> Result<DeltaHeader, StorageError> {
        let (header, bytes) = encode(header, states)?;
        self.store.put_new(&path_of(&header), bytes).await?;
        Ok(header)
    }

    /// First and last checkpoint of every stored delta, sorted; merged and unmerged ones may overlap.
    ///
    /// # Errors
    /// `Io`
    pub async fn names(&self, stream: Uuid) -> Result<Vec<(u64, u64)>, StorageError> {
        let listed = self.store.list(&paths::deltas(stream)).await?;
        let mut names: Vec<(u64, u64)> = listed.iter().filter_map(|(path, _)| paths::parse_delta(path)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// One delta.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`
    pub async fn read(&self, stream: Uuid, first: u64, last: u64) -> Result<Delta, StorageError> {
        let path = paths::delta(stream, first, last);
        let reading = format!("reading {path}");
        let file = self.store.local_path(&path);
        let bytes = if file.is_some() { Bytes::new() } else { self.store.get(&path).await? };
        let work = tokio::task::spawn_blocking(move || {
            let delta = match file {
                Some(file) => file::read(&path, &file),
                None => decode(&path, &bytes),
            }?;
            let header = &delta.header;
            if (header.stream, header.first_checkpoint, header.last_checkpoint) != (stream, first, last) {
                return Err(StorageError::Damaged { path, reason: "its header names another delta".into() });
            }
            Ok(delta)
        });
        work.await.unwrap_or_else(|stopped| Err(StorageError::io(reading, stopped)))
    }

    /// The chain of deltas from the one that holds checkpoint `first_needed` (when none is named, the oldest one that
    /// a chain leads on from) to the newest, made of as few objects as there are. What an older owner left behind before
    /// a gap is no part of it: whoever needs a position has to look whether the chain begins there.
    ///
    /// # Errors
    /// `Damaged` on a gap after `first_needed`, or when cuts do not meet; `Io`
    pub async fn chain(&self, stream: Uuid, first_needed: Option<u64>) -> Result<Vec<Delta>, StorageError> {
        let damaged = |reason: String| StorageError::Damaged { path: paths::deltas(stream), reason };
        let mut chain: Vec<Delta> = vec![];
        let names = self.chain_names(stream, first_needed).await?;
        let mut read = futures::stream::iter(names)
            .map(|(first, last)| {
                let deltas = self.clone();
                async move { (first, deltas.read(stream, first, last).await) }
            })
            .buffered(READ_AT_ONCE);
        while let Some((first, delta)) = read.next().await {
            let delta = delta?;
            if let Some(before) = chain.last().filter(|before| !before.header.to.same_position(&delta.header.from)) {
                let (end, start) = (&before.header.to, &delta.header.from);
                return Err(damaged(format!("checkpoint {first} starts at {start}, the one before ends at {end}")));
            }
            chain.push(delta);
        }
        Ok(chain)
    }

    /// First and last checkpoints of the deltas of [`DeltaStore::chain`].
    ///
    /// # Errors
    /// `Damaged` on a gap; `Io`
    pub async fn chain_names(&self, stream: Uuid, first_needed: Option<u64>) -> Result<Vec<(u64, u64)>, StorageError> {
        let names = self.names(stream).await?;
        select(&names, first_needed).map_err(|reason| StorageError::Damaged { path: paths::deltas(stream), reason })
    }

    /// Removes the deltas that end before `checkpoint`. The `claim` of this process stays: its name is what an older
    /// owner's last checkpoint has, which may still be on its way.
    ///
    /// # Errors
    /// `Io`: some are gone, the oldest first.
    pub async fn remove_below(&self, stream: Uuid, checkpoint: u64, claim: Option<u64>) -> Result<(), StorageError> {
        for (first, last) in self.names(stream).await? {
            if last < checkpoint && !is_claim(claim, (first, last)) {
                self.store.delete(&paths::delta(stream, first, last)).await?;
            }
        }
        Ok(())
    }

    /// Removes the deltas that a longer one of `chain` (first and last checkpoints) stands for. The chain is durable:
    /// a newer owner that has not taken over by now finds it. The `claim` of this process stays.
    ///
    /// # Errors
    /// `Fenced` when another process has taken the store over, and may need them; `Io`: some are gone.
    pub async fn remove_merged(
        &self,
        stream: Uuid,
        chain: &[(u64, u64)],
        claim: Option<u64>,
    ) -> Result<(), StorageError> {
        self.store.assert_owned().await?;
        for (first, last) in &self.names(stream).await? {
            let is_inside = |other: &&(u64, u64)| other.0 <= *first && *last <= other.1 && *other != &(*first, *last);
            if chain.iter().any(|other| is_inside(&other)) && !is_claim(claim, (*first, *last)) {
                self.store.delete(&paths::delta(stream, *first, *last)).await?;
            }
        }
        Ok(())
    }

    /// Removes all deltas of a stream.
    ///
    /// # Errors
    /// `Io`
    pub async fn remove_all(&self, stream: Uuid) -> Result<(), StorageError> {
        self.store.delete_below(&paths::deltas(stream)).await
    }
}

fn is_claim(claim: Option<u64>, (first, last): (u64, u64)) -> bool {
    first == last && claim == Some(first)
}

fn path_of(header: &DeltaHeader) -> String {
    paths::delta(header.stream, header.first_checkpoint, header.last_checkpoint)
}

/// The oldest checkpoint from which links lead to `end`.
fn oldest_start(names: &[(u64, u64)], end: u64) -> u64 {
    let mut by_last: Vec<&(u64, u64)> = names.iter().collect();
    by_last.sort_unstable_by_key(|(_, last)| std::cmp::Reverse(*last));
    let mut leads_on = BTreeSet::from([end]);
    for (first, last) in by_last {
        if leads_on.contains(&last.saturating_add(1)) {
            leads_on.insert(*first);
        }
    }
    leads_on.first().copied().unwrap_or(end)
}

/// The fewest of `names` (sorted) that are a chain from `first_needed` to the last checkpoint there is.
fn select(names: &[(u64, u64)], first_needed: Option<u64>) -> Result<Vec<(u64, u64)>, String> {
    let Some(end) = names.iter().map(|(_, last)| last.saturating_add(1)).max() else { return Ok(vec![]) };
    let start = first_needed.unwrap_or_else(|| oldest_start(names, end));
    if start >= end {
        return Ok(vec![]);
    }
    // Reached checkpoint → (links so far, the link that leads to it). Links come sorted by where
    // they start, so all ways to a start are known before a link leaves from it.
    let mut reached: BTreeMap<u64, (usize, Option<(u64, u64)>)> = BTreeMap::from([(start, (0, None))]);
    for &(first, last) in names {
        let from = if first < start && start <= last { start } else { first };
        let Some(&(links, _)) = reached.get(&from) else { continue };
        let way = (links + 1, Some((first, last)));
        let best = reached.entry(last.saturating_add(1)).or_insert(way);
        if way.0 < best.0 {
            *best = way;
        }
    }
    let mut chain = vec![];
    let mut at = end;
    while at > start {
        let Some((_, Some(link))) = reached.get(&at) else {
            return Err(format!("no delta leads from checkpoint {start} to {}", end - 1));
        };
        chain.push(*link);
        at = link.0.max(start);
    }
    chain.reverse();
    Ok(chain)
}

#[cfg(test)]
mod tests;
