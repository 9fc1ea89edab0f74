//! Exact sums of doubles (or of their squares or products), one per group.
//!
//! The idea of a window with a superaccumulator behind it: R. Neal, "Fast exact summation using
//! small and large superaccumulators" (2015), arXiv:1505.05571; the window is ours.

use arrow::datatypes::i256;
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;

use super::limbs::{
    Canonical, MINUS_INFINITY, NAN, PLUS_INFINITY, Superaccumulator, special_value, write_canonical, write_special,
};
use super::natural::Natural;
use super::round::round_quotient;
use super::window::Window;
use crate::aggregates::groups::{bytes_of, grow};

/// Exact sums of doubles.
pub(crate) type Sums = ExactCells<i128>;
/// Exact sums of squares of doubles, or of products of two.
pub(crate) type Squares = ExactCells<i256>;

/// The most words a window touches when it does not start at a limb.
const WORDS_MAX: usize = 9;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Empty,
    Window,
    Super,
    Special,
}

/// One group: 24 bytes for sums.
#[derive(Clone, Copy, Default)]
struct Cell<P> {
    packed: P,
    /// Index of the superaccumulator.
    index: u32,
    /// Position of the window's lowest bit.
    base: u16,
    kind: Kind,
    flags: u8,
}

impl<P> Cell<P> {
    fn set<W: Window<Packed = P>>(&mut self, window: W, base: u32) {
        self.packed = window.pack();
        self.base = base as u16;
        self.kind = Kind::Window;
    }
}

/// An exact sum, read back.
pub(crate) enum Exact {
    /// `±magnitude × 2^exponent`.
    Finite {
        /// Whether it is below zero.
        negative: bool,
        /// Its magnitude.
        magnitude: Natural,
        /// The power of two.
        exponent: i32,
    },
    /// NaN or an infinity.
    Special(f64),
}

/// One exact sum per group; a group that nothing was added to is empty, not zero.
pub(crate) struct ExactCells<W: Window> {
    cells: Vec<Cell<W::Packed>>,
    supers: Vec<Superaccumulator>,
}

impl<W: Window> Default for ExactCells<W> {
    fn default() -> Self {
        Self { cells: Vec::new(), supers: Vec::new() }
    }
}

/// Mantissa and position of a finite double; None for NaN and infinities.
#[inline]
fn decompose(value: f64) -> Option<(i64, u32)> {
    let bits = value.to_bits();
    let field = (bits >> 52) as u32 & 0x7ff;
    if field == 0x7ff {
        return None;
    }
    let normal = u64::from(field != 0);
    let magnitude = (bits & ((1 << 52) - 1) | normal << 52) as i64;
    let sign = bits.cast_signed() >> 63;
    Some(((magnitude ^ sign) - sign, field - normal as u32))
}

impl ExactCells<i128> {
    /// Adds a value to a group.
    #[inline]
    pub(crate) fn add(&mut self, group: usize, value: f64) {
        match decompose(value) {
            Some((mantissa, position)) => self.add_scaled(group, i128::from(mantissa), position),
            None => self.add_special(group, value),
        }
    }
}

impl ExactCells<i256> {
    /// Adds the square of a value to a group.
    #[inline]
    pub(crate) fn add_square(&mut self, group: usize, value: f64) {
        match decompose(value) {
            Some((mantissa, position)) => {
                self.add_scaled(group, i128::from(mantissa) * i128::from(mantissa), 2 * position);
            }
            None => self.add_special(group, value.abs()),
        }
    }

    /// Adds the product of two values to a group.
    #[inline]
    pub(crate) fn add_product(&mut self, group: usize, a: f64, b: f64) {
        match (decompose(a), decompose(b)) {
            (Some((a, low)), Some((b, high))) => self.add_scaled(group, i128::from(a) * i128::from(b), low + high),
            _ => self.add_special(group, a * b),
        }
    }
}

impl<W: Window> ExactCells<W> {
    /// Makes room for `groups` groups.
    pub(crate) fn resize(&mut self, groups: usize) {
        grow(&mut self.cells, groups);
    }

    /// Number of groups.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether nothing was added to the group.
    pub(crate) fn is_empty(&self, group: usize) -> bool {
        self.cells[group].kind == Kind::Empty
    }

    #[inline]
    fn add_scaled(&mut self, group: usize, mantissa: i128, position: u32) {
        let cell = &mut self.cells[group];
        let by = position.wrapping_sub(u32::from(cell.base));
        if cell.kind == Kind::Window
            && by <= W::SHIFT_MAX
            && let Some(sum) = W::unpack(cell.packed).checked_add(W::shifted(mantissa, by))
        {
            cell.packed = sum.pack();
            return;
        }
        self.add_slowly(group, mantissa, position);
    }

    #[cold]
    #[inline(never)]
    fn add_special(&mut self, group: usize, value: f64) {
        let flag = match value {
            f64::INFINITY => PLUS_INFINITY,
            f64::NEG_INFINITY => MINUS_INFINITY,
            _ => NAN,
        };
        self.mark_special(group, flag);
    }

    fn mark_special(&mut self, group: usize, flags: u8) {
        let cell = &mut self.cells[group];
        cell.kind = Kind::Special;
        cell.flags |= flags;
    }

    #[cold]
    #[inline(never)]
    fn add_slowly(&mut self, group: usize, mantissa: i128, position: u32) {
        let cell = &mut self.cells[group];
        match cell.kind {
            Kind::Special => {}
            Kind::Super => self.supers[cell.index as usize].add(mantissa, position),
            Kind::Empty | Kind::Window => {
                let (mantissa, zeros) = Window::strip(mantissa);
                if !Self::fit(cell, W::shifted(mantissa, 0), position + zeros) {
                    self.promote(group).add(mantissa, position + zeros);
                }
            }
        }
    }

    /// Adds `value × 2^position` to an empty cell or a window if the window can hold the sum.
    fn fit(cell: &mut Cell<W::Packed>, value: W, position: u32) -> bool {
        let window = W::unpack(cell.packed);
        if window.is_zero() {
            let below = W::ROOM_BELOW.min(position);
            let placed = value.checked_shift(below).map(|shifted| (shifted, position - below));
            let (shifted, base) = placed.unwrap_or((value, position));
            cell.set(shifted, base);
            return true;
        }
        let base = u32::from(cell.base);
        let low = base.min(position);
        let sum = window.checked_shift(base - low).and_then(|window| {
            let value = value.checked_shift(position - low)?;
            window.checked_add(value)
        });
        if !value.is_zero() {
            let Some(sum) = sum else { return false };
            cell.set(sum, low);
        }
        true
    }

    /// Moves a group's sum into a superaccumulator.
    fn promote(&mut self, group: usize) -> &mut Superaccumulator {
        let mut wide = Superaccumulator::new(W::LIMBS);
        let (start, words) = Self::window_words(&self.cells[group]);
        let used = words.len().min(W::LIMBS - start);
        wide.add_limbs(start, words[..used].iter().copied());
        let cell = &mut self.cells[group];
        cell.kind = Kind::Super;
        cell.index = self.supers.len() as u32;
        self.supers.push(wide);
        let last = self.supers.len() - 1;
        &mut self.supers[last]
    }

    /// The window as sign-extended words that start at a limb.
    fn window_words(cell: &Cell<W::Packed>) -> (usize, [u32; WORDS_MAX]) {
        let window = W::unpack(cell.packed);
        let part = u32::from(cell.base) % 32;
        let mut words = [0; WORDS_MAX];
        let mut below = 0_u64;
        for (index, word) in words.iter_mut().enumerate() {
            let value = u64::from(window.word(index)) << part;
            *word = (value | below) as u32;
            below = value >> 32;
        }
        (usize::from(cell.base) / 32, words)
    }

    /// Appends the canonical bytes of a group that is not empty.
    pub(crate) fn write_state(&mut self, group: usize, out: &mut Vec<u8>) {
        let cell = &self.cells[group];
        match cell.kind {
            Kind::Empty => {}
            Kind::Special => write_special(cell.flags, out),
            Kind::Super => write_canonical(&self.supers[cell.index as usize].words(), 0, out),
            Kind::Window => {
                let (start, words) = Self::window_words(cell);
                write_canonical(&words, start, out);
            }
        }
    }

    /// Adds a canonical state to a group.
    pub(crate) fn merge(&mut self, group: usize, bytes: &[u8]) -> Result<()> {
        let (start, limbs) = match Canonical::read(bytes, W::LIMBS)? {
            Canonical::Special(flags) => {
                self.mark_special(group, flags);
                return Ok(());
            }
            Canonical::Finite(start, limbs) => (start, limbs),
        };
        let words = limbs.iter().map(|limb| u32::from_le_bytes(*limb));
        let cell = &mut self.cells[group];
        match cell.kind {
            Kind::Special => {}
            Kind::Super => self.supers[cell.index as usize].add_limbs(start, words),
            Kind::Empty | Kind::Window => {
                if words.len() <= W::WORDS {
                    let (value, zeros) = W::from_words(words.clone()).strip();
                    if Self::fit(cell, value, start as u32 * 32 + zeros) {
                        return Ok(());
                    }
                }
                self.promote(group).add_limbs(start, words);
            }
        }
        Ok(())
    }

    /// The exact sum of a group; zero for an empty one.
    pub(crate) fn exact(&mut self, group: usize) -> Exact {
        let cell = &self.cells[group];
        let (start, (negative, magnitude)) = match cell.kind {
            Kind::Special => return Exact::Special(special_value(cell.flags)),
            Kind::Super => (0, Natural::from_words(&self.supers[cell.index as usize].words())),
            Kind::Empty | Kind::Window => {
                let (start, words) = Self::window_words(cell);
                (start, Natural::from_words(&words))
            }
        };
        Exact::Finite { negative, magnitude, exponent: start as i32 * 32 - W::BIAS }
    }

    /// The sum of a group divided by `divisor`, rounded once.
    pub(crate) fn quotient(&mut self, group: usize, divisor: u64) -> f64 {
        let cell = &self.cells[group];
        if cell.kind == Kind::Window
            && let Some(sum) = W::unpack(cell.packed).narrow()
        {
            return round_quotient(sum < 0, sum.unsigned_abs(), i32::from(cell.base) - W::BIAS, divisor);
        }
        match self.exact(group) {
            Exact::Special(value) => value,
            Exact::Finite { negative, magnitude, exponent } => magnitude.round_quotient(negative, exponent, divisor),
        }
    }

    /// Removes the first groups (or all).
    pub(crate) fn take(&mut self, emit: EmitTo) -> Self {
        let mut taken = Self { cells: emit.take_needed(&mut self.cells), supers: Vec::new() };
        if matches!(emit, EmitTo::All) {
            taken.supers = std::mem::take(&mut self.supers);
            return taken;
        }
        for cell in taken.cells.iter_mut().filter(|cell| cell.kind == Kind::Super) {
            let hole = Superaccumulator::new(0); // the others keep their indexes
            taken.supers.push(std::mem::replace(&mut self.supers[cell.index as usize], hole));
            cell.index = taken.supers.len() as u32 - 1;
        }
        taken
    }

    /// Bytes held outside of the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let wide: usize = self.supers.iter().map(Superaccumulator::heap_bytes).sum();
        bytes_of(&self.cells) + bytes_of(&self.supers) + wide
    }
}
