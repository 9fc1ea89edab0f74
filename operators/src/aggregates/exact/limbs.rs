//! Canonical bytes of an exact sum, and the superaccumulator that holds any sum of doubles.
//!
//! Canonical form of a finite sum: empty for zero, else one byte with the number of the lowest limb
//! that is not zero, then the limbs (32 bits, little endian, two's complement) up to the shortest
//! that still carries the sign. A sum with NaN or infinities is the one byte `0x80 | flags`.

use datafusion::common::{Result, exec_err};

/// A NaN was added.
pub(crate) const NAN: u8 = 1;
/// `+∞` was added.
pub(crate) const PLUS_INFINITY: u8 = 2;
/// `−∞` was added.
pub(crate) const MINUS_INFINITY: u8 = 4;

/// Appends the canonical form of `words`, whose first is limb `start`.
pub(crate) fn write_canonical(words: &[u32], start: usize, out: &mut Vec<u8>) {
    let Some(low) = words.iter().position(|word| *word != 0) else { return };
    let mut high = words.len();
    while high - low > 1 && words[high - 1] == (if words[high - 2] >> 31 == 1 { u32::MAX } else { 0 }) {
        high -= 1;
    }
    out.push((start + low) as u8);
    out.extend(words[low..high].iter().flat_map(|word| word.to_le_bytes()));
}

/// Appends the form of a sum that is not finite.
pub(crate) fn write_special(flags: u8, out: &mut Vec<u8>) {
    out.push(0x80 | flags);
}

/// What canonical bytes say.
pub(crate) enum Canonical<'a> {
    /// The number of the lowest limb, and the limbs; none for zero.
    Finite(usize, &'a [[u8; 4]]),
    /// Flags of what made it infinite or not a number.
    Special(u8),
}

impl<'a> Canonical<'a> {
    /// Reads canonical bytes of an accumulator with `limbs_max` limbs.
    pub(crate) fn read(bytes: &'a [u8], limbs_max: usize) -> Result<Self> {
        match bytes {
            [] => Ok(Self::Finite(0, &[])),
            [flags] if flags & 0x78 == 0 && flags & 0x80 != 0 => Ok(Self::Special(flags & 7)),
            [start, limbs @ ..] => match limbs.as_chunks::<4>() {
                (limbs, []) if !limbs.is_empty() && *start as usize + limbs.len() <= limbs_max => {
                    Ok(Self::Finite(*start as usize, limbs))
                }
                _ => exec_err!("exact sum: state of {} bytes is damaged", bytes.len()),
            },
        }
    }
}

/// The double that flags stand for.
pub(crate) fn special_value(flags: u8) -> f64 {
    match flags {
        PLUS_INFINITY => f64::INFINITY,
        MINUS_INFINITY => f64::NEG_INFINITY,
        _ => f64::NAN,
    }
}

/// A sum of any doubles: 32-bit limbs in 64-bit integers, so that carries wait.
pub(crate) struct Superaccumulator {
    limbs: Vec<i64>,
    pending: u32,
}

impl Superaccumulator {
    /// Additions after which carries have to be spread.
    const PENDING_MAX: u32 = 1 << 29;

    /// Zero, in `limbs` limbs.
    pub(crate) fn new(limbs: usize) -> Self {
        Self { limbs: vec![0; limbs], pending: 0 }
    }

    /// Adds `mantissa × 2^position` (in units of the lowest bit).
    pub(crate) fn add(&mut self, mantissa: i128, position: u32) {
        self.add_part(i128::from(mantissa as u64), position);
        if mantissa >> 64 != 0 {
            self.add_part(mantissa >> 64, position + 64);
        }
        self.added();
    }

    fn add_part(&mut self, part: i128, position: u32) {
        let limb = (position / 32) as usize;
        let value = part << (position % 32); // below 2^96
        self.limbs[limb] += (value & 0xffff_ffff) as i64;
        self.limbs[limb + 1] += ((value >> 32) & 0xffff_ffff) as i64;
        self.limbs[limb + 2] += (value >> 64) as i64;
    }

    /// Adds limbs whose last one carries the sign.
    pub(crate) fn add_limbs(&mut self, start: usize, words: impl ExactSizeIterator<Item = u32>) {
        let last = words.len().saturating_sub(1);
        for (index, word) in words.enumerate() {
            self.limbs[start + index] += if index == last { i64::from(word.cast_signed()) } else { i64::from(word) };
        }
        self.added();
    }

    /// The sum as two's complement words.
    pub(crate) fn words(&mut self) -> Vec<u32> {
        self.spread_carries();
        self.limbs.iter().map(|limb| *limb as u32).collect()
    }

    /// Bytes of the allocation.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.limbs.capacity() * size_of::<i64>()
    }

    fn added(&mut self) {
        self.pending += 1;
        if self.pending >= Self::PENDING_MAX {
            self.spread_carries();
        }
    }

    fn spread_carries(&mut self) {
        let mut carry = 0;
        let top = self.limbs.len().saturating_sub(1);
        for limb in &mut self.limbs[..top] {
            let sum = *limb + carry;
            *limb = sum & 0xffff_ffff;
            carry = sum >> 32;
        }
        if let Some(limb) = self.limbs.last_mut() {
            *limb += carry;
        }
        self.pending = 0;
    }
}
