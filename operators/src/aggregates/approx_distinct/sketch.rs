//! One HyperLogLog++ sketch (Heule, Nunkesser, Hall 2013): codes while it is small, registers after.
//!
//! A code is 25 bits of the hash and, where the registers will need it, the rank of the rest:
//!
//! ```text
//! hash   ┌── register: 12 ──┬── 13 more ──┬────────── 39 bits ──────────┐
//! code   └────────── index: 25 ───────────┘  rank of these, if the 13 are zero (else 0): 6
//! ```
//!
//! State: empty · `1`, then the sorted codes (u32, little endian) · `2`, then 4,096 registers.
//! Which of them is decided by the set alone: registers from 1,025 different indexes on.

use datafusion::common::{Result, exec_err};

use crate::aggregates::groups::grown;

/// Bits that choose a register.
const PRECISION: u32 = 12;
const REGISTERS: usize = 1 << PRECISION;
/// Bits of the hash in a code.
const INDEX_BITS: u32 = 25;
const RANK_BITS: u32 = 6;
/// The most codes that a small sketch keeps.
const CODES_MAX: usize = 1024;
/// Codes that a new sketch has room for.
const CODES_MIN: usize = 4;

const SPARSE: u8 = 1;
const DENSE: u8 = 2;

/// The different values of one group.
#[derive(Clone)]
pub(crate) enum Sketch {
    /// Codes in any order, with repetitions until the vector is full.
    Codes(Vec<u32>),
    /// The greatest rank seen per register.
    Registers(Box<[u8; REGISTERS]>),
}

impl Default for Sketch {
    fn default() -> Self {
        Self::Codes(Vec::new())
    }
}

impl Sketch {
    /// Adds a hashed value and returns by how many bytes the sketch grew.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64) -> isize {
        match self {
            Self::Codes(codes) => {
                let code = code_of(hash);
                if codes.last() == Some(&code) {
                    return 0;
                }
                if codes.len() < codes.capacity() {
                    codes.push(code);
                    return 0;
                }
                self.insert_full(code)
            }
            Self::Registers(registers) => {
                let register = &mut registers[(hash >> (64 - PRECISION)) as usize];
                // The bit below the rank's range stops the count for a hash of zeros.
                let rank = (hash << PRECISION | 1 << (PRECISION - 1)).leading_zeros() as u8 + 1;
                *register = rank.max(*register);
                0
            }
        }
    }

    /// Makes room for a code, or becomes registers.
    #[cold]
    #[inline(never)]
    fn insert_full(&mut self, code: u32) -> isize {
        let before = self.heap_bytes();
        if let Self::Codes(codes) = self {
            compact(codes);
            if codes.len() * 2 >= codes.capacity() {
                codes.reserve_exact(codes.capacity().max(CODES_MIN));
            }
            codes.push(code);
        }
        self.settle();
        grown(before, self.heap_bytes())
    }

    /// Turns too many different codes into registers.
    fn settle(&mut self) {
        let Self::Codes(codes) = self else { return };
        if codes.len() <= CODES_MAX {
            return;
        }
        compact(codes);
        if codes.len() > CODES_MAX {
            *self = Self::Registers(registers_of(codes));
        }
    }

    /// Adds the values of a written sketch and returns by how many bytes this one grew.
    pub(crate) fn merge(&mut self, state: &[u8]) -> Result<isize> {
        let before = self.heap_bytes();
        match state {
            [] => {}
            [SPARSE, codes @ ..] => {
                let (codes, rest) = codes.as_chunks::<4>();
                let fits = codes.iter().all(|code| u32::from_le_bytes(*code) >> (INDEX_BITS + RANK_BITS) == 0);
                if !rest.is_empty() || !fits {
                    return exec_err!("approx_distinct: state of {} bytes is damaged", state.len());
                }
                self.merge_codes(codes.iter().map(|code| u32::from_le_bytes(*code)));
            }
            [DENSE, registers @ ..] if registers.len() == REGISTERS => self.merge_registers(registers),
            _ => return exec_err!("approx_distinct: state of {} bytes is damaged", state.len()),
        }
        Ok(grown(before, self.heap_bytes()))
    }

    fn merge_codes(&mut self, new: impl ExactSizeIterator<Item = u32>) {
        match self {
            Self::Codes(codes) => {
                if codes.capacity() - codes.len() < new.len() {
                    compact(codes);
                }
                codes.extend(new);
                self.settle();
            }
            Self::Registers(registers) => new.for_each(|code| insert_code(registers, code)),
        }
    }

    fn merge_registers(&mut self, new: &[u8]) {
        if let Self::Codes(codes) = self {
            *self = Self::Registers(registers_of(codes));
        }
        if let Self::Registers(registers) = self {
            registers.iter_mut().zip(new).for_each(|(register, new)| *register = (*register).max(*new));
        }
    }

    /// Appends the canonical state.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) {
        self.settle(); // there may be room for more codes than a small sketch keeps
        match self {
            Self::Codes(codes) if codes.is_empty() => {}
            Self::Codes(codes) => {
                compact(codes);
                out.push(SPARSE);
                out.extend(codes.iter().flat_map(|code| code.to_le_bytes()));
            }
            Self::Registers(registers) => {
                out.push(DENSE);
                out.extend_from_slice(registers.as_slice());
            }
        }
    }

    /// How many different values were added.
    ///
    /// Codes are counted: among 1,024 values two share an index in one case of 64. Registers go
    /// through the improved estimator of O. Ertl, "New cardinality estimation algorithms for
    /// HyperLogLog sketches" (2017), section 4: no bias tables, and no function but the root, which
    /// IEEE 754 rounds the same everywhere.
    pub(crate) fn estimate(&mut self) -> u64 {
        self.settle();
        match self {
            Self::Codes(codes) => {
                compact(codes);
                codes.len() as u64
            }
            Self::Registers(registers) => estimate_registers(registers),
        }
    }

    /// Bytes held outside of the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.capacity() * size_of::<u32>(),
            Self::Registers(_) => REGISTERS,
        }
    }
}

#[inline]
fn code_of(hash: u64) -> u32 {
    let index = (hash >> (64 - INDEX_BITS)) as u32;
    if index & ((1 << (INDEX_BITS - PRECISION)) - 1) != 0 {
        return index << RANK_BITS;
    }
    let rank = (hash << INDEX_BITS | 1 << (INDEX_BITS - 1)).leading_zeros() + 1;
    index << RANK_BITS | rank
}

fn registers_of(codes: &[u32]) -> Box<[u8; REGISTERS]> {
    let mut registers = Box::new([0; REGISTERS]);
    for code in codes {
        insert_code(&mut registers, *code);
    }
    registers
}

fn insert_code(registers: &mut [u8; REGISTERS], code: u32) {
    let index = code >> RANK_BITS;
    let register = &mut registers[(index >> (INDEX_BITS - PRECISION)) as usize];
    let below = index << (32 - (INDEX_BITS - PRECISION)); // the 13 bits, at the top
    let rank = match below {
        0 => (INDEX_BITS - PRECISION) as u8 + (code & ((1 << RANK_BITS) - 1)) as u8,
        below => below.leading_zeros() as u8 + 1,
    };
    *register = rank.max(*register);
}

/// Sorts, and keeps the greatest rank of each index.
fn compact(codes: &mut Vec<u32>) {
    codes.sort_unstable();
    codes.dedup_by(|next, kept| {
        let same = *next >> RANK_BITS == *kept >> RANK_BITS;
        if same {
            *kept = *next; // the greater one
        }
        same
    });
}

fn estimate_registers(registers: &[u8; REGISTERS]) -> u64 {
    const RANKS: usize = 64 - PRECISION as usize + 2;
    const HALF_OVER_LN_2: f64 = 0.721_347_520_444_481_7; // 1 ÷ (2 ln 2)
    let mut counts = [0_u32; 256];
    for rank in registers {
        counts[usize::from(*rank)] += 1;
    }
    let size = REGISTERS as f64;
    let mut sum = size * tau(1.0 - f64::from(counts[RANKS - 1]) / size);
    for count in counts[1..RANKS - 1].iter().rev() {
        sum = 0.5 * (sum + f64::from(*count));
    }
    sum += size * sigma(f64::from(counts[0]) / size);
    (HALF_OVER_LN_2 * size * size / sum).round() as u64
}

fn sigma(share: f64) -> f64 {
    let (mut power, mut factor, mut sum) = (share, 1.0, share);
    loop {
        power *= power;
        let next = sum + power * factor;
        factor += factor;
        if next.to_bits() == sum.to_bits() || next.is_infinite() {
            return next;
        }
        sum = next;
    }
}

fn tau(share: f64) -> f64 {
    if share <= 0.0 || share >= 1.0 {
        return 0.0;
    }
    let (mut root, mut factor, mut sum) = (share, 1.0, 1.0 - share);
    loop {
        root = root.sqrt();
        factor *= 0.5;
        let next = sum - (1.0 - root) * (1.0 - root) * factor;
        if next.to_bits() == sum.to_bits() {
            return next / 3.0;
        }
        sum = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregates::approx_distinct::hash::Hashed;

    fn sketch(values: impl Iterator<Item = i64>) -> Sketch {
        let mut sketch = Sketch::default();
        values.for_each(|value| {
            sketch.insert(value.hash(1));
        });
        sketch
    }

    fn state(mut sketch: Sketch) -> Vec<u8> {
        let mut out = Vec::new();
        sketch.write(&mut out);
        out
    }

    /// Merged codes leave room for more of them than a small sketch keeps; nobody counts those that are added then.
    #[test]
    fn a_state_has_registers_also_where_there_was_room_for_codes() {
        let mut merged = Sketch::default();
        merged.merge(&state(sketch(0..600))).unwrap();
        merged.merge(&state(sketch(300..900))).unwrap();
        (900..1_100_i64).for_each(|value| {
            merged.insert(value.hash(1));
        });
        let written = state(merged);
        assert_eq!(written[0], DENSE);
        assert!(written == state(sketch(0..1_100)));
    }

    /// A vector may have room for more codes than a small sketch keeps: its state must not show that.
    #[test]
    fn a_state_is_that_of_its_merge_around_the_change_to_registers() {
        for count in [1_000, 1_023, 1_024, 1_025, 1_100, 1_500, 2_047, 2_048, 2_049, 3_000] {
            let written = state(sketch(0..count));
            let mut merged = Sketch::default();
            merged.merge(&written).unwrap();
            assert!(state(merged) == written, "{count} values");
            assert_eq!(written[0] == DENSE, count > CODES_MAX as i64, "{count} values");
        }
    }

    #[test]
    fn small_sets_are_counted_exactly() {
        for count in [0, 1, 2, 50, 500, 1024] {
            let estimate = sketch((0..count).chain(0..count)).estimate();
            assert!(estimate.abs_diff(count.unsigned_abs()) <= 1, "{count}: {estimate}");
        }
    }

    #[test]
    fn error_stays_within_five_standard_errors() {
        for count in [1_100, 3_000, 10_000, 20_000, 100_000, 1_000_000] {
            for start in [0, 1 << 40, -(1 << 50)] {
                let estimate = sketch(start..start + count).estimate() as f64;
                let error = (estimate / count as f64 - 1.0).abs();
                assert!(error < 5.0 * 0.01625, "{count}: {estimate}");
            }
        }
    }

    #[test]
    fn mean_error_over_many_sets_shows_no_bias() {
        for count in [1_500_i64, 6_000, 12_000, 25_000] {
            let sum: u64 = (0..200).map(|set| sketch(set << 32..(set << 32) + count).estimate()).sum();
            let error = sum as f64 / 200.0 / count as f64 - 1.0;
            assert!(error.abs() < 0.006, "{count}: {error}");
        }
    }

    #[test]
    fn switch_to_registers_depends_on_the_set_alone() {
        let indexes = |values: std::ops::Range<i64>| {
            let mut indexes: Vec<u32> = values.map(|value| code_of(value.hash(1)) >> RANK_BITS).collect();
            indexes.sort_unstable();
            indexes.dedup();
            indexes.len()
        };
        let last = (1024..1100).find(|last| indexes(0..*last) == 1025).unwrap();
        assert_eq!(state(sketch(0..last - 1))[0], SPARSE);
        let dense = state(sketch(0..last));
        assert_eq!(dense[0], DENSE);
        assert_eq!(dense, state(sketch((0..last).rev().chain(0..last))));
        let mut merged = sketch(0..10);
        for part in [10..600, 300..last] {
            merged.merge(&state(sketch(part))).unwrap();
        }
        assert_eq!(state(merged), dense);
    }

    #[test]
    fn codes_and_hashes_fill_registers_alike() {
        let hashes =
            [0, 1, u64::MAX, 1 << 63, 1 << 52, 1 << 51, 1 << 39, 1 << 38, (1 << 39) - 1, 0x1234_5678_9abc_def0];
        for hash in hashes {
            let mut by_code = [0; REGISTERS];
            insert_code(&mut by_code, code_of(hash));
            let mut by_hash = Sketch::Registers(Box::new([0; REGISTERS]));
            by_hash.insert(hash);
            assert_eq!(state(by_hash)[1..], by_code, "{hash:x}");
        }
    }

    #[test]
    fn greatest_rank_of_an_index_is_kept() {
        let (low, high) = (1 << 38 | 7 << 52, 1 | 7 << 52); // one index, ranks 1 and 39
        for hashes in [[low, high, low], [high, low, high]] {
            let mut sketch = Sketch::default();
            for hash in hashes {
                sketch.insert(hash);
            }
            assert_eq!(state(sketch)[1..], code_of(high).to_le_bytes());
        }
    }

    #[test]
    fn damaged_states_are_refused() {
        for bytes in [&[SPARSE, 1, 2][..], &[DENSE, 0], &[9], &[SPARSE, 0, 0, 0, 0x80]] {
            assert!(Sketch::default().merge(bytes).is_err());
        }
    }

    #[test]
    fn known_size_is_honest() {
        let mut sketch = Sketch::default();
        let mut grown = 0;
        for value in 0..5_000_i64 {
            grown += sketch.insert(value.hash(1));
            assert_eq!(grown.cast_unsigned(), sketch.heap_bytes());
        }
    }
}
