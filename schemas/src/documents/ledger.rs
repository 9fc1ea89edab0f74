//! The ledger of records: every appended record is in exactly one class (invariant I11).

use serde::{Deserialize, Serialize};

use crate::position::Partition;

/// Width of a bucket of [`IntakeBucket`]: ten minutes of append time, microseconds.
pub const BUCKET_US: i64 = 600_000_000;

/// The start of the bucket that a time is in.
pub fn bucket_of(time_us: i64) -> i64 {
    time_us.div_euclid(BUCKET_US) * BUCKET_US
}

/// Counts of the records of one partition (or of all) in a range of offsets, seen by one view.
///
/// `records = counted + filtered + late` always holds; [`LedgerCounts::balance`] is the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerCounts {
    /// Records in the range.
    pub records: u64,
    /// Records that reached at least one cell.
    pub counted: u64,
    /// Records that the view's `WHERE` or join left out.
    pub filtered: u64,
    /// Records that `late = 'drop'` left out.
    pub late: u64,
    /// Additive 128-bit hash of all positions in the range, high half (see `operators::evidence`).
    pub positions_hi: u64,
    /// Low half.
    pub positions_lo: u64,
}

impl LedgerCounts {
    /// Adds the counts of a disjoint range.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.counted += other.counted;
        self.filtered += other.filtered;
        self.late += other.late;
        self.positions_hi = self.positions_hi.wrapping_add(other.positions_hi);
        self.positions_lo = self.positions_lo.wrapping_add(other.positions_lo);
    }

    /// Records minus all classes: 0, or records were lost or counted in two classes.
    pub fn balance(&self) -> i128 {
        i128::from(self.records) - i128::from(self.counted) - i128::from(self.filtered) - i128::from(self.late)
    }

    /// The sum of several disjoint ranges.
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut total = Self::default();
        for part in parts {
            total.add(part);
        }
        total
    }
}

/// What became of the records that clients sent and that were replayed.
///
/// `received + replayed = accepted + duplicates + quarantined`; [`IntakeCounts::balance`] is the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IntakeCounts {
    /// Records in requests that were acknowledged.
    pub received: u64,
    /// Dead letters that were sent through the door again, and fitted.
    pub replayed: u64,
    /// Records that are in the log.
    pub accepted: u64,
    /// Records that an earlier one of the same id stands for.
    pub duplicates: u64,
    /// Of those, records whose values are not the earlier one's. Not a class of its own.
    pub conflicts: u64,
    /// Bad records, in the dead letters. One that is replayed later stays counted here.
    pub quarantined: u64,
}

impl IntakeCounts {
    /// Adds the counts of other records.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.replayed += other.replayed;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.quarantined += other.quarantined;
    }

    /// What came minus all classes: 0, or records were lost or counted in two classes (invariant I11).
    pub fn balance(&self) -> i128 {
        i128::from(self.received) + i128::from(self.replayed)
            - i128::from(self.accepted)
            - i128::from(self.duplicates)
            - i128::from(self.quarantined)
    }

    /// The sum over several sets of records.
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut total = Self::default();
        for part in parts {
            total.add(part);
        }
        total
    }
}

/// The intake of one partition in ten minutes of append time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeBucket {
    /// None for bad records: without an identity they have no partition.
    pub partition: Option<Partition>,
    /// Where the ten minutes begin, microseconds since the epoch.
    pub bucket_us: i64,
    /// The counts.
    pub counts: IntakeCounts,
    /// Of the accepted ones, those that have landed in the master; the others are the log's tail.
    pub landed: u64,
}
