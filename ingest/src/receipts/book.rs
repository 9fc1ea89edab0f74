//! All receipts, added up.

use std::collections::BTreeMap;

use schemas::{Cut, IntakeBucket, IntakeCounts, Offset, Partition};

use super::{Entry, Kind};

/// One bucket of a partition; bad records have no partition and come last.
type Place = (Partition, i64);
/// Stands for "no partition" in a [`Place`].
const NONE: Partition = Partition::MAX;

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

fn day_of(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US) * DAY_US
}

#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    /// Of requests that left a receipt.
    counts: BTreeMap<Place, IntakeCounts>,
    /// Where the buckets of a partition begin.
    boundaries: BTreeMap<Place, Offset>,
    /// Dead letters that were replayed, with the time.
    pub(super) replayed: BTreeMap<Offset, i64>,
    pub(super) rows_since_summary: u64,
    /// Boundaries that were found in the log of records and are not written yet.
    pub(super) unsaved: Vec<Entry>,
}

impl Book {
    pub(super) fn apply(&mut self, entry: &Entry) {
        self.rows_since_summary += 1;
        let place = (entry.partition.unwrap_or(NONE), entry.at_us);
        match (entry.kind, entry.offset) {
            (Kind::Summary, _) => *self = Self::default(),
            (Kind::Counts, _) => self.counts.entry(place).or_default().add(&entry.counts),
            (Kind::Boundary, Some(offset)) => {
                let known = self.boundaries.entry(place).or_insert(offset);
                *known = offset.min(*known);
            }
            (Kind::Replayed, Some(letter)) => {
                self.replayed.entry(letter).or_insert(entry.at_us);
            }
            (Kind::Boundary | Kind::Replayed, None) => {}
        }
    }

    /// True if nothing says yet that a bucket begins at or below `offset`. Of several requests that are
    /// durable at once, the one with the lowest offset may be seen last.
    pub(super) fn is_new(&self, partition: Partition, bucket_us: i64, offset: Offset) -> bool {
        self.boundaries.get(&(partition, bucket_us)).is_none_or(|known| offset < *known)
    }

    /// Bad records, over all time.
    pub(super) fn quarantined(&self) -> u64 {
        self.counts.values().map(|counts| counts.quarantined).sum()
    }

    /// A boundary that was found in the log of records.
    pub(super) fn fill(&mut self, boundary: &Entry) {
        let place = (boundary.partition.unwrap_or(NONE), boundary.at_us);
        let before = self.boundaries.get(&place).copied();
        self.apply(boundary);
        if self.boundaries.get(&place).copied() != before {
            self.unsaved.push(*boundary);
        }
    }

    /// The newest boundary but one, if there are two: nothing is under way any more that lies before it.
    pub(super) fn settled_boundary(&self, partition: Partition) -> Option<(i64, Offset)> {
        let mut newest = self.boundaries.range((partition, i64::MIN)..=(partition, i64::MAX)).rev();
        let (place, offset) = newest.next().map(|last| newest.next().unwrap_or(last))?;
        Some((place.1, *offset))
    }

    /// True if of every partition with records it is known where its first bucket begins.
    pub(super) fn knows_beginnings(&self, head: &Cut) -> bool {
        head.iter().all(|(partition, end)| end == 0 || self.settled_boundary(partition).is_some())
    }

    /// Adds the buckets of old days up to one a day and partition, so that about `buckets_max` of ten minutes are left: the
    /// sums stay what they are.
    pub(super) fn add_up_old_days(&mut self, buckets_max: usize) {
        let mut times: Vec<i64> = self.counts.keys().chain(self.boundaries.keys()).map(|place| place.1).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let Some(oldest_us) = times.get(buckets_max) else { return };
        // whole days: none is added up in part
        let before_us = day_of(*oldest_us);
        let of_day = |(partition, at_us): Place| (partition, if at_us < before_us { day_of(at_us) } else { at_us });
        for (place, counts) in std::mem::take(&mut self.counts) {
            self.counts.entry(of_day(place)).or_default().add(&counts);
        }
        for (place, offset) in std::mem::take(&mut self.boundaries) {
            let known = self.boundaries.entry(of_day(place)).or_insert(offset);
            *known = offset.min(*known);
        }
    }

    /// What one append may replace all rows by.
    pub(super) fn summary(&self) -> Vec<Entry> {
        let partition = |partition: Partition| Some(partition).filter(|partition| *partition != NONE);
        let counts = self.counts.iter().map(|((p, at_us), counts)| Entry::counts(partition(*p), *at_us, *counts));
        let boundaries = self.boundaries.iter().map(|((p, at_us), offset)| Entry::boundary(*p, *at_us, *offset));
        let replayed = self.replayed.iter().map(|(letter, at_us)| Entry::replayed(*letter, *at_us));
        [Entry::summary()].into_iter().chain(counts).chain(boundaries).chain(replayed).collect()
    }

    /// The ledger. What is in the log counts as received and accepted, unless a receipt says more.
    pub(super) fn intake(&self, head: &Cut, landed: &Cut) -> Vec<IntakeBucket> {
        let mut buckets: BTreeMap<Place, IntakeBucket> = BTreeMap::new();
        for (partition, end) in head.iter() {
            let mut end = end;
            let of_partition = self.boundaries.range((partition, i64::MIN)..=(partition, i64::MAX));
            let first = of_partition.clone().next().map(|(place, _)| *place);
            for (place, begin) in of_partition.rev() {
                // nothing is before the first one
                let begin = if first == Some(*place) { 0 } else { *begin };
                let landed = landed.offset(partition).clamp(begin, end.max(begin)) - begin;
                let accepted = end.saturating_sub(begin);
                bucket(&mut buckets, *place).counts.accepted = accepted;
                bucket(&mut buckets, *place).counts.received = accepted;
                bucket(&mut buckets, *place).landed = landed;
                end = end.min(begin);
            }
        }
        for (place, counts) in &self.counts {
            let of_log = &mut bucket(&mut buckets, *place).counts;
            let accepted = of_log.accepted;
            of_log.add(counts);
            of_log.accepted = accepted;
            // the log's part of these requests is counted above
            of_log.received = of_log.received.wrapping_sub(counts.accepted);
        }
        buckets.into_values().collect()
    }
}

fn bucket(buckets: &mut BTreeMap<Place, IntakeBucket>, place: Place) -> &mut IntakeBucket {
    buckets.entry(place).or_insert_with(|| IntakeBucket {
        partition: Some(place.0).filter(|partition| *partition != NONE),
        bucket_us: place.1,
        counts: IntakeCounts::default(),
        landed: 0,
    })
}
