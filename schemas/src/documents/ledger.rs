//! The ledger of records: every appended record is in exactly one class (invariant I11).

use serde::{Deserialize, Serialize};

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
