//! A log-linear histogram: sign, exponent and the top 7 mantissa bits of a double are its bucket.
//!
//! A bucket stands for its edge towards zero, so the error is at most 2^-7 = 0.78 % of the value,
//! and integers up to 256 are exact. NaN is greater than every number.
//!
//! State: for each bucket in order, the distance to the bucket before (the first: its number) and
//! its count, both LEB128. Empty without values.

use std::collections::BTreeMap;

use datafusion::common::{DataFusionError, Result, exec_datafusion_err};

use crate::aggregates::groups::grown;
use crate::aggregates::types::Canonical;

/// Bits of a double below a bucket's.
const DROPPED_BITS: u32 = 52 - 7;
const SIGN: u32 = 1 << (63 - DROPPED_BITS);
/// Values that are kept as they come before they are counted.
const PENDING_MAX: usize = 512;
/// Room of a new histogram, in values.
const PENDING_MIN: usize = 4;
/// The widest range of buckets that is counted in an array.
const WINDOW_MAX: u32 = 4096;

/// The values of one group.
pub(crate) enum Histogram {
    /// The buckets of few values, in any order.
    Pending(Vec<u32>),
    /// Counts.
    Counted(Box<Counts>),
}

impl Default for Histogram {
    fn default() -> Self {
        Self::Pending(Vec::new())
    }
}

/// Counts per bucket: an array around the first values, a map for what is below its base or
/// [`WINDOW_MAX`] and more above it.
#[derive(Default)]
pub(crate) struct Counts {
    base: u32,
    window: Vec<u64>,
    far: BTreeMap<u32, u64>,
}

impl Histogram {
    /// Adds a value and returns by how many bytes the histogram grew.
    #[inline]
    pub(crate) fn insert(&mut self, value: f64) -> isize {
        let bucket = bucket_of(value);
        match self {
            Self::Pending(buckets) if buckets.len() < buckets.capacity() => {
                buckets.push(bucket);
                0
            }
            Self::Counted(counts) => match counts.window.get_mut(bucket.wrapping_sub(counts.base) as usize) {
                Some(count) => {
                    *count += 1;
                    0
                }
                None => self.insert_slowly(bucket, 1),
            },
            Self::Pending(_) => self.insert_slowly(bucket, 1),
        }
    }

    #[cold]
    #[inline(never)]
    fn insert_slowly(&mut self, bucket: u32, count: u64) -> isize {
        let before = self.heap_bytes();
        self.add(bucket, count);
        grown(before, self.heap_bytes())
    }

    fn add(&mut self, bucket: u32, count: u64) {
        match self {
            Self::Pending(buckets) if count <= (PENDING_MAX - buckets.len()) as u64 => {
                if buckets.len() + count as usize > buckets.capacity() {
                    let room = buckets.capacity().max(PENDING_MIN).max(count as usize);
                    buckets.reserve_exact(room.min(PENDING_MAX - buckets.len()));
                }
                buckets.extend(std::iter::repeat_n(bucket, count as usize));
            }
            Self::Pending(buckets) => {
                let mut counts = Counts::of(buckets);
                counts.add(bucket, count);
                *self = Self::Counted(Box::new(counts));
            }
            Self::Counted(counts) => counts.add(bucket, count),
        }
    }

    /// Adds the values of a written histogram and returns by how many bytes this one grew.
    pub(crate) fn merge(&mut self, mut state: &[u8]) -> Result<isize> {
        let before = self.heap_bytes();
        let mut bucket = 0_u64;
        while !state.is_empty() {
            bucket = bucket.saturating_add(read_varint(&mut state)?);
            let count = read_varint(&mut state)?;
            let number = u32::try_from(bucket).ok().filter(|number| *number < 2 * SIGN).ok_or_else(damaged)?;
            self.add(number, count);
        }
        Ok(grown(before, self.heap_bytes()))
    }

    /// Appends the canonical state.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) {
        let mut last = 0;
        self.each(|bucket, count| {
            write_varint(u64::from(bucket - last), out);
            write_varint(count, out);
            last = bucket;
        });
    }

    /// The interpolated percentile, None without values; `share` is between 0 and 1.
    pub(crate) fn percentile(&mut self, share: f64) -> Option<f64> {
        let mut total = 0;
        self.each(|_, count| total += count);
        let rank = share * (total.checked_sub(1)? as f64);
        let (low, high) = (self.ranked(rank.floor() as u64), self.ranked(rank.ceil() as u64));
        let part = rank - rank.floor();
        // Equal buckets and exact ranks first: they must not go through arithmetic on infinities.
        if low == high || part == 0.0 {
            return Some(value_of(low));
        }
        // between two infinities lies a NaN, whose sign depends on the processor
        Some((value_of(low) * (1.0 - part) + value_of(high) * part).canonical())
    }

    /// The bucket of the value with a rank.
    fn ranked(&mut self, rank: u64) -> u32 {
        let (mut below, mut found) = (0, 0);
        self.each(|bucket, count| {
            if below <= rank {
                found = bucket;
            }
            below += count;
        });
        found
    }

    /// Visits the buckets in order.
    fn each(&mut self, mut visit: impl FnMut(u32, u64)) {
        match self {
            Self::Pending(buckets) => {
                buckets.sort_unstable();
                buckets.chunk_by(|a, b| a == b).for_each(|equal| visit(equal[0], equal.len() as u64));
            }
            Self::Counted(counts) => counts.each(visit),
        }
    }

    /// Bytes held outside of the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Pending(buckets) => buckets.capacity() * size_of::<u32>(),
            Self::Counted(counts) => {
                size_of::<Counts>() + counts.window.capacity() * size_of::<u64>() + counts.far.len() * 24
            }
        }
    }
}

impl Counts {
    /// Counts buckets, with a window around them.
    fn of(buckets: &mut [u32]) -> Self {
        buckets.sort_unstable();
        let middle = buckets.get(buckets.len() / 2).copied().unwrap_or(0);
        let low = middle.saturating_sub(WINDOW_MAX / 2);
        let mut near = buckets.iter().copied().filter(|bucket| (low..low + WINDOW_MAX).contains(bucket));
        let base = near.next().unwrap_or(low);
        let top = near.next_back().unwrap_or(base);
        let mut counts = Self { base, window: vec![0; (top - base) as usize + 1], far: BTreeMap::new() };
        for bucket in buckets {
            counts.add(*bucket, 1);
        }
        counts
    }

    fn add(&mut self, bucket: u32, count: u64) {
        if bucket >= self.base && bucket - self.base >= self.window.len() as u32 && bucket - self.base < WINDOW_MAX {
            let length = ((bucket - self.base) as usize + 1).next_power_of_two();
            self.window.resize(length.min(WINDOW_MAX as usize), 0);
        }
        let slot = match self.window.get_mut(bucket.wrapping_sub(self.base) as usize) {
            Some(near) => near,
            None => self.far.entry(bucket).or_default(),
        };
        *slot = slot.saturating_add(count);
    }

    fn each(&self, mut visit: impl FnMut(u32, u64)) {
        let end = self.base + self.window.len() as u32;
        self.far.range(..self.base).for_each(|(bucket, count)| visit(*bucket, *count));
        for (bucket, count) in (self.base..).zip(&self.window).filter(|(_, count)| **count > 0) {
            visit(bucket, *count);
        }
        self.far.range(end..).for_each(|(bucket, count)| visit(*bucket, *count));
    }
}

/// The bucket of a value; buckets are ordered like their values.
#[inline]
fn bucket_of(value: f64) -> u32 {
    let bits = (value.canonical().to_bits() >> DROPPED_BITS) as u32;
    if bits & SIGN == 0 { bits | SIGN } else { !bits & (SIGN - 1) }
}

/// The edge of a bucket towards zero.
fn value_of(bucket: u32) -> f64 {
    let bits = if bucket & SIGN == 0 { !bucket & (2 * SIGN - 1) } else { bucket & (SIGN - 1) };
    f64::from_bits(u64::from(bits) << DROPPED_BITS).canonical()
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or_else(damaged)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged())
}

fn damaged() -> DataFusionError {
    exec_datafusion_err!("approx_percentile_cont: state is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.insert(*value);
        }
        histogram
    }

    fn state(histogram: &mut Histogram) -> Vec<u8> {
        let mut out = Vec::new();
        histogram.write(&mut out);
        out
    }

    #[test]
    fn buckets_are_ordered_and_close_to_their_values() {
        let values = [
            f64::NEG_INFINITY,
            -f64::MAX,
            -1e10,
            -256.0,
            -3.7,
            -1.0,
            -1e-300,
            0.0,
            1e-300,
            0.1,
            1.0,
            3.7,
            255.0,
            1e10,
            f64::MAX,
            f64::INFINITY,
            f64::NAN,
        ];
        for pair in values.windows(2) {
            assert!(bucket_of(pair[0]) < bucket_of(pair[1]), "{pair:?}");
        }
        for value in values.into_iter().filter(|value| value.is_finite()) {
            assert!((value_of(bucket_of(value)) - value).abs() <= value.abs() / 128.0, "{value}");
        }
        assert!(value_of(bucket_of(f64::NAN)).is_nan());
        assert_eq!(value_of(bucket_of(f64::NEG_INFINITY)).to_bits(), f64::NEG_INFINITY.to_bits());
        assert_eq!(value_of(bucket_of(-0.0)).to_bits(), 0);
    }

    #[test]
    fn small_integers_are_exact_and_interpolated() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(histogram(&values).percentile(0.5), Some(5.5));
        assert_eq!(histogram(&values).percentile(0.0), Some(1.0));
        assert_eq!(histogram(&values).percentile(1.0), Some(10.0));
        assert_eq!(histogram(&[]).percentile(0.5), None);
        assert_eq!(histogram(&[f64::NEG_INFINITY, f64::INFINITY]).percentile(0.0), Some(f64::NEG_INFINITY));
    }

    #[test]
    fn error_is_at_most_a_hundred_and_twenty_eighth() {
        let mut values: Vec<f64> = (0..20_001).map(|i| ((i * 7_919 % 20_011) as f64 / 1_500.0).exp2() - 40.0).collect();
        let mut histogram = histogram(&values);
        values.sort_unstable_by(f64::total_cmp);
        for share in [0.01_f64, 0.25, 0.5, 0.9, 0.99, 0.999] {
            let rank = share * 20_000.0;
            let (low, high) = (values[rank.floor() as usize], values[rank.ceil() as usize]);
            let exact = low + (high - low) * (rank - rank.floor());
            let error = (histogram.percentile(share).unwrap() - exact).abs();
            assert!(error <= low.abs().max(high.abs()) / 128.0, "{share}: {error}");
        }
    }

    #[test]
    fn pending_and_counted_write_the_same_bytes() {
        let wild: Vec<f64> = (-700..700).map(|i| 1.5 * 2_f64.powi(i) * if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let mut whole = histogram(&wild);
        assert!(matches!(whole, Histogram::Counted(_)));
        for size in [1, 13, 500, 900] {
            let mut merged = Histogram::default();
            for part in wild.chunks(size).rev() {
                merged.merge(&state(&mut histogram(part))).unwrap();
            }
            assert_eq!(state(&mut merged), state(&mut whole), "parts of {size}");
        }
    }

    #[test]
    fn damaged_states_are_refused() {
        for bytes in [
            &[0x80][..],
            &[1],
            &[0xff; 11],
            &[0xff, 0xff, 0x7f, 1],
            &[1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
        ] {
            assert!(Histogram::default().merge(bytes).is_err(), "{bytes:?}");
        }
    }
}
