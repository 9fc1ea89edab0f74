//! Where a record is: partitions, offsets, cuts and the token that a client gets for them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A partition of a stream's log, numbered from 0.
pub type Partition = u32;
/// A record's place in its partition, numbered from 0.
pub type Offset = u64;

/// Per partition, the first offset that does *not* belong: everything below it does.
///
/// Index = partition. Partitions beyond the end have offset 0, so `Cut::default()` is the
/// beginning of every log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cut(pub Vec<Offset>);

impl Cut {
    /// The beginning of a log with so many partitions.
    pub fn zero(partitions: u32) -> Self {
        Self(vec![0; partitions as usize])
    }

    /// The offset of one partition; 0 beyond the end.
    pub fn offset(&self, partition: Partition) -> Offset {
        self.0.get(partition as usize).copied().unwrap_or(0)
    }

    /// Moves one partition; grows the vector if the partition is new.
    pub fn set(&mut self, partition: Partition, offset: Offset) {
        let index = partition as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0[index] = offset;
    }

    /// How many partitions either cut names.
    fn partitions_of(&self, other: &Self) -> u32 {
        u32::try_from(self.0.len().max(other.0.len())).unwrap_or(u32::MAX)
    }

    /// True if in no partition this cut lies beyond the other.
    pub fn is_at_most(&self, other: &Self) -> bool {
        (0..self.partitions_of(other)).all(|p| self.offset(p) <= other.offset(p))
    }

    /// True if both name the same position, whatever the length of their vectors.
    pub fn same_position(&self, other: &Self) -> bool {
        self.is_at_most(other) && other.is_at_most(self)
    }

    /// How many records lie in `[self, to)`; partitions where `to` is behind count 0.
    pub fn records_until(&self, to: &Self) -> u64 {
        let between = |p| to.offset(p).saturating_sub(self.offset(p));
        (0..self.partitions_of(to)).map(between).fold(0, u64::saturating_add)
    }

    /// Per partition the larger offset.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        Self((0..self.partitions_of(other)).map(|p| self.offset(p).max(other.offset(p))).collect())
    }

    /// Per partition the smaller offset.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self((0..self.partitions_of(other)).map(|p| self.offset(p).min(other.offset(p))).collect())
    }

    /// `(partition, offset)` in order of the partition.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        (0u32..).zip(self.0.iter().copied())
    }

    /// Records below the cut, over all partitions.
    pub fn total(&self) -> u64 {
        self.0.iter().copied().fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (partition, offset) in self.iter() {
            let comma = if partition == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{offset}")?;
        }
        f.write_str("}")
    }
}

/// What ingest hands out and `at_least` takes: "everything of this stream below this cut".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionToken {
    /// The log's incarnation: a token of a log that was made anew is refused, not misread.
    pub incarnation: uuid::Uuid,
    /// Everything below it is included.
    pub cut: Cut,
}

impl fmt::Display for PositionToken {
    /// `v1.<incarnation>.<offset>-<offset>-…`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offsets: Vec<String> = self.cut.0.iter().map(u64::to_string).collect();
        write!(f, "v1.{}.{}", self.incarnation.simple(), offsets.join("-"))
    }
}

/// A string that is not a position token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a position token: {0:?} (take the \"position\" of an ingest answer as it is)")]
pub struct BadToken(pub String);

impl std::str::FromStr for PositionToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let bad = || BadToken(text.chars().take(80).collect());
        let mut parts = text.split('.');
        let (Some("v1"), Some(incarnation), Some(offsets), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let incarnation = incarnation.parse().map_err(|_| bad())?;
        let offsets: Result<Vec<Offset>, _> = offsets.split('-').map(str::parse).collect();
        Ok(Self { incarnation, cut: Cut(offsets.map_err(|_| bad())?) })
    }
}

/// Precondition H1 / invariant I1: ranges that start at the cut, are disjoint, and leave no gap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("coverage broken: {}", .expected.difference(.found))]
pub struct CoverageBroken {
    /// Where the next range had to start.
    pub expected: Cut,
    /// Where it starts.
    pub found: Cut,
}

impl Cut {
    /// What lies between the end of one range and the start of the next, in words, by partition.
    fn difference(&self, next: &Self) -> String {
        let of = |p: Partition| match (self.offset(p), next.offset(p)) {
            (end, start) if end < start => Some(format!("partition {p}: offsets {end} to {} are missing", start - 1)),
            (end, start) if start < end => {
                Some(format!("partition {p}: offsets {start} to {} are there twice", end - 1))
            }
            _ => None,
        };
        let parts: Vec<String> = (0..self.partitions_of(next)).filter_map(of).collect();
        if parts.is_empty() { format!("a range that starts at {next} ends before that") } else { parts.join(", ") }
    }
}

/// Checks that `ranges` are a chain from `cut` and returns where the chain ends.
///
/// # Errors
/// The first range that does not start where the one before it ended.
pub fn assert_chain<'a>(
    cut: &Cut,
    ranges: impl IntoIterator<Item = (&'a Cut, &'a Cut)>,
) -> Result<Cut, CoverageBroken> {
    let mut end = cut.clone();
    for (from, to) in ranges {
        if !from.same_position(&end) || !from.is_at_most(to) {
            return Err(CoverageBroken { expected: end, found: from.clone() });
        }
        end = to.clone();
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_round_trips_and_rejects_noise() {
        let token = PositionToken { incarnation: uuid::Uuid::from_u128(7), cut: Cut(vec![3, 0, 12]) };
        assert_eq!(token.to_string().parse(), Ok(token));
        for noise in ["", "v1", "v2.0.1", "v1.zz.1", "v1.00000000000000000000000000000007.1-x", "v1.7.1.2"] {
            assert!(noise.parse::<PositionToken>().is_err(), "{noise}");
        }
    }

    #[test]
    fn chain_finds_gap_and_overlap() {
        let c = |n: u64| Cut(vec![n]);
        let (c0, c2, c3, c5) = (c(0), c(2), c(3), c(5));
        assert_eq!(assert_chain(&c0, [(&c0, &c2), (&c2, &c5)]), Ok(c5.clone()));
        let broken = |ranges: &[(&Cut, &Cut)]| assert_chain(&c0, ranges.iter().copied()).unwrap_err().to_string();
        assert_eq!(broken(&[(&c0, &c2), (&c3, &c5)]), "coverage broken: partition 0: offsets 2 to 2 are missing");
        assert_eq!(broken(&[(&c0, &c3), (&c2, &c5)]), "coverage broken: partition 0: offsets 2 to 2 are there twice");
        assert_eq!(broken(&[(&c2, &c5)]), "coverage broken: partition 0: offsets 0 to 1 are missing");
        assert_eq!(broken(&[(&c0, &c5), (&c5, &c3)]), "coverage broken: a range that starts at {0:5} ends before that");
        let (wide, other) = (Cut(vec![1, 7, 3]), Cut(vec![1, 5, 9]));
        let both = assert_chain(&wide, [(&other, &other)]).unwrap_err().to_string();
        let words = "partition 1: offsets 5 to 6 are there twice, partition 2: offsets 3 to 8 are missing";
        assert_eq!(both, format!("coverage broken: {words}"));
    }

    #[test]
    fn cuts_of_different_length_compare_by_position() {
        assert!(Cut(vec![1]).same_position(&Cut(vec![1, 0])));
        assert_eq!(Cut(vec![1]).records_until(&Cut(vec![4, 2])), 5);
    }
}
