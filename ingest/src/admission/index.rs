//! Which identities of a partition were kept lately, and where.
//!
//! ```text
//!  table (newest) ─ full ─► frozen table ─ durable in the log ─► run on disk ─ merged with its like ─► larger run
//!        └───────────────────────────── past the horizon: dropped as a whole ◄──────────────┘
//! ```
//!
//! All of it is a function of the log's prefix and can be read from the log again. The horizon is counted
//! in steps of [`Horizon::step_us`]: an id is remembered for the horizon, and for less than a step longer.

mod bloom;
mod disk;
mod run;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use schemas::Offset;
use storage::StorageError;

pub(crate) use self::disk::Disk;
use self::run::Run;
use crate::identity::Identity;

/// A table past the horizon with fewer ids than this is not worth a run: it stays in memory until it is dropped.
const RUN_IDS_MIN: usize = 4_096;

/// Identities whose filters are asked before any of them is looked up: a bit of a word for each.
const PROBED_AT_ONCE: usize = 64;

/// The identity in two halves: aligned to 8 bytes, an entry takes 24 and not 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    high: u64,
    low: u64,
}

impl From<Identity> for Key {
    fn from(identity: Identity) -> Self {
        Self { high: (identity >> 64) as u64, low: identity as u64 }
    }
}

impl From<Key> for Identity {
    fn from(key: Key) -> Self {
        (Self::from(key.high) << 64) | Self::from(key.low)
    }
}

impl Hash for Key {
    /// An identity is a hash already. The high half chose the partition, so the low one it is.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct AsItIs(u64);

impl BuildHasher for AsItIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, half: u64) {
        self.0 = half;
    }
}

type Table = HashMap<Key, Offset, AsItIs>;

/// How long an id is remembered, in steps of append time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Horizon {
    horizon_us: i64,
    step_us: i64,
}

impl Horizon {
    pub(crate) fn new(horizon_us: i64) -> Self {
        Self { horizon_us, step_us: schemas::stream::dedup_step_us(horizon_us) }
    }

    fn step(self, time_us: i64) -> i64 {
        time_us.div_euclid(self.step_us)
    }

    /// The oldest append time that is remembered at `now_us`.
    pub(crate) fn since_us(self, now_us: i64) -> i64 {
        self.step(now_us.saturating_sub(self.horizon_us)).saturating_mul(self.step_us)
    }
}

/// Identities of an exact range of offsets that no longer changes.
#[derive(Debug)]
enum Level {
    Memory { table: Arc<Table>, offsets: Range<Offset> },
    Disk(Arc<Run>),
}

impl Level {
    /// Of at most [`PROBED_AT_ONCE`] identities, a bit for each that may be in it.
    fn may_contain(&self, identities: &[Identity]) -> u64 {
        let bit = |may_be: bool, row: u32| u64::from(may_be) << row;
        let rows = (0_u32..).zip(identities);
        match self {
            Self::Memory { table, .. } => {
                rows.fold(0, |all, (row, identity)| all | bit(table.contains_key(&Key::from(*identity)), row))
            }
            Self::Disk(run) => rows.fold(0, |all, (row, identity)| all | bit(run.may_contain(*identity), row)),
        }
    }

    fn find(&self, identity: Identity) -> Result<Option<Offset>, StorageError> {
        match self {
            Self::Memory { table, .. } => Ok(table.get(&Key::from(identity)).copied()),
            Self::Disk(run) => run.find(identity),
        }
    }

    fn end(&self) -> Offset {
        match self {
            Self::Memory { offsets, .. } => offsets.end,
            Self::Disk(run) => run.span.offsets.end,
        }
    }
}

/// A frozen table on its way to disk.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    table: Arc<Table>,
    offsets: Range<Offset>,
    steps: Vec<run::Step>,
    oldest: Offset,
}

/// Identity → offset of the record that was kept.
#[derive(Debug)]
pub(crate) struct Index {
    horizon: Horizon,
    /// Step of append time, and the first offset in it.
    steps: VecDeque<(i64, Offset)>,
    /// Records below it are past the horizon.
    oldest: Offset,
    table: Table,
    /// First offset that the table is of.
    table_from: Offset,
    /// The oldest first.
    levels: Vec<Level>,
    disk: Option<Disk>,
    /// A frozen table is on its way to disk; one at a time.
    is_spilling: bool,
}

impl Index {
    /// An empty index for records from `from` on.
    pub(crate) fn new(horizon: Horizon, from: Offset, disk: Option<Disk>) -> Self {
        let (steps, table, levels) = (VecDeque::new(), Table::default(), vec![]);
        Self { horizon, steps, oldest: from, table, table_from: from, levels, disk, is_spilling: false }
    }

    /// How many are in memory.
    pub(crate) fn in_memory(&self) -> usize {
        let frozen = |level: &Level| if let Level::Memory { table, .. } = level { table.len() } else { 0 };
        self.table.len() + self.levels.iter().map(frozen).sum::<usize>()
    }

    /// How many are remembered, on disk too.
    pub(crate) fn len(&self) -> usize {
        let on_disk = |level: &Level| if let Level::Disk(run) = level { run.entries as usize } else { 0 };
        self.in_memory() + self.levels.iter().map(on_disk).sum::<usize>()
    }

    /// First offset that it knows nothing of, after a recovery.
    pub(crate) fn end(&self) -> Offset {
        self.table_from
    }

    /// Forgets what is past the horizon; `next` is the next record's offset.
    pub(crate) fn expire(&mut self, now_us: i64, next: Offset) {
        let since = self.horizon.step(self.horizon.since_us(now_us));
        while self.steps.front().is_some_and(|(step, _)| *step < since) {
            self.steps.pop_front();
        }
        self.oldest = self.steps.front().map_or(next, |(_, first)| *first).max(self.oldest);
        if self.is_old() && (self.disk.is_none() || self.table.len() < RUN_IDS_MIN) {
            self.push_frozen(next);
        }
        let gone = self.levels.iter().take_while(|level| level.end() <= self.oldest).count();
        for level in self.levels.drain(..gone) {
            if let Level::Disk(run) = level {
                run.remove();
            }
        }
    }

    /// Notes that the record at `offset` has this append time; they never decrease.
    pub(crate) fn note_time(&mut self, append_us: i64, offset: Offset) {
        let step = self.horizon.step(append_us);
        if self.steps.back().is_none_or(|(last, _)| *last < step) {
            self.steps.push_back((step, offset));
        }
    }

    /// What the older levels know of identities: row and offset, by row. Reads disk where a filter says
    /// that there may be something. The filters are asked one after the other for all rows, so that the
    /// processor can wait for many cache lines at once.
    pub(crate) fn probe(&self, identities: &[Identity]) -> Result<Vec<(u32, Offset)>, StorageError> {
        let mut found = vec![];
        for level in &self.levels {
            for (chunk, identities) in (0_u32..).step_by(PROBED_AT_ONCE).zip(identities.chunks(PROBED_AT_ONCE)) {
                let mut may_be = level.may_contain(identities);
                while may_be != 0 {
                    let row = may_be.trailing_zeros();
                    may_be &= may_be - 1;
                    let offset = level.find(identities[row as usize])?.filter(|offset| *offset >= self.oldest);
                    found.extend(offset.map(|offset| (chunk + row, offset)));
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Keeps an identity at `offset`, if the table has none; else where it was kept.
    #[inline]
    pub(crate) fn keep(&mut self, identity: Identity, offset: Offset) -> Option<Offset> {
        match self.table.entry(Key::from(identity)) {
            hashbrown::hash_map::Entry::Occupied(entry) if *entry.get() >= self.oldest => Some(*entry.get()),
            entry => {
                entry.insert(offset);
                None
            }
        }
    }

    /// Takes a [`Index::keep`] back.
    pub(crate) fn forget(&mut self, identity: Identity) {
        self.table.remove(&Key::from(identity));
    }

    /// Takes a [`Index::note_time`] of records from `offset` on back.
    pub(crate) fn forget_times(&mut self, offset: Offset) {
        while self.steps.back().is_some_and(|(_, first)| *first >= offset) {
            self.steps.pop_back();
        }
    }

    /// Where a known identity was kept: looks everywhere. Blocks.
    pub(crate) fn find(&self, identity: Identity) -> Result<Option<Offset>, StorageError> {
        let newest = self.table.get(&Key::from(identity)).copied().filter(|offset| *offset >= self.oldest);
        match newest {
            Some(offset) => Ok(Some(offset)),
            None => Ok(self.probe(&[identity])?.last().map(|(_, offset)| *offset)),
        }
    }

    /// True if the table is due for the disk.
    pub(crate) fn is_due(&self, ids_max: usize) -> bool {
        self.disk.is_some() && !self.is_spilling && (self.table.len() >= ids_max.max(1) || self.is_old())
    }

    /// True if a part of the table is past the horizon: what comes now belongs into another one, so that
    /// memory is given back within twice the horizon.
    fn is_old(&self) -> bool {
        self.table_from < self.oldest && !self.table.is_empty()
    }

    /// Freezes the table, which ends at `next`; it is asked like a run until it is one.
    pub(crate) fn freeze(&mut self, next: Offset) -> Option<(Frozen, Disk)> {
        let disk = self.disk.clone()?;
        self.is_spilling = true;
        let (table, offsets) = self.push_frozen(next);
        let steps = self.steps.iter().filter(|(_, first)| offsets.contains(first)).copied().collect();
        Some((Frozen { table, offsets, steps, oldest: self.oldest }, disk))
    }

    fn push_frozen(&mut self, next: Offset) -> (Arc<Table>, Range<Offset>) {
        let table = Arc::new(std::mem::take(&mut self.table));
        let offsets = self.table_from..next;
        self.table_from = next;
        self.levels.push(Level::Memory { table: Arc::clone(&table), offsets: offsets.clone() });
        (table, offsets)
    }

    /// Puts a run in the place of the frozen table that it was made of: another one may be frozen.
    pub(crate) fn spilled(&mut self, run: disk::Written) {
        self.is_spilling = false;
        self.replace(run);
    }

    /// Puts a run in the place of what it was made of.
    pub(crate) fn replace(&mut self, run: disk::Written) {
        let offsets = run.0.span.offsets.clone();
        let is_replaced = |level: &Level| match level {
            Level::Memory { offsets: frozen, .. } => frozen.start >= offsets.start && frozen.end <= offsets.end,
            Level::Disk(old) => old.span.offsets.start >= offsets.start && old.span.offsets.end <= offsets.end,
        };
        let at = self.levels.iter().position(is_replaced).unwrap_or(self.levels.len());
        for level in self.levels.extract_if(.., |level| is_replaced(level)) {
            if let Level::Disk(old) = level {
                old.remove();
            }
        }
        self.levels.insert(at, Level::Disk(Arc::new(run.0)));
    }

    /// The two newest runs, if they are alike in size: merged, there are fewer to ask.
    pub(crate) fn mergeable(&self) -> Option<(Disk, disk::Pair)> {
        let runs: Vec<&Arc<Run>> = self
            .levels
            .iter()
            .filter_map(|level| if let Level::Disk(run) = level { Some(run) } else { None })
            .collect();
        let pair = runs.windows(2).rev().find(|pair| pair[0].entries < 2 * pair[1].entries)?;
        let pair = disk::Pair { older: Arc::clone(pair[0]), newer: Arc::clone(pair[1]), oldest: self.oldest };
        Some((self.disk.clone()?, pair))
    }

    /// Takes in a run that an earlier process wrote.
    pub(crate) fn adopt(&mut self, run: disk::Written) {
        self.table_from = run.0.span.offsets.end;
        self.steps.extend(&run.0.steps);
        self.levels.push(Level::Disk(Arc::new(run.0)));
    }
}
