//! The small fixed-point accumulator of one group: 128 bits for sums, 256 bits for sums of squares.

use arrow::datatypes::i256;

/// A signed integer of fixed width that counts units of a power of two.
pub(crate) trait Window: Copy + Send + 'static {
    /// How a window is stored in a cell, without the alignment of wide integers.
    type Packed: Copy + Default + Send;
    /// A value is `mantissa × 2^(position − BIAS)`.
    const BIAS: i32;
    /// 32-bit limbs of the superaccumulator: every position, and 64 bits for carries.
    const LIMBS: usize;
    /// 32-bit words of the window.
    const WORDS: usize;
    /// The greatest shift of a mantissa that leaves room for its sign.
    const SHIFT_MAX: u32;
    /// Bits left free below the first value of a group, for smaller ones.
    const ROOM_BELOW: u32;

    /// `mantissa × 2^by`; `by` is at most [`Window::SHIFT_MAX`].
    fn shifted(mantissa: i128, by: u32) -> Self;
    /// The sum, None when it does not fit.
    fn checked_add(self, other: Self) -> Option<Self>;
    /// `self × 2^by`, None when it does not fit.
    fn checked_shift(self, by: u32) -> Option<Self>;
    /// Divides by the greatest power of two that divides it and returns that power.
    fn strip(self) -> (Self, u32);
    /// From sign-extended words, lowest first; at most [`Window::WORDS`].
    fn from_words(words: impl DoubleEndedIterator<Item = u32>) -> Self;
    /// Word `index` of the two's complement.
    fn word(self, index: usize) -> u32;
    /// For a cell.
    fn pack(self) -> Self::Packed;
    /// From a cell.
    fn unpack(packed: Self::Packed) -> Self;
    /// Whether it is zero.
    fn is_zero(self) -> bool;
    /// The value, if it fits into 128 bits.
    fn narrow(self) -> Option<i128>;
}

impl Window for i128 {
    type Packed = [u64; 2];
    const BIAS: i32 = 1074;
    const LIMBS: usize = 70;
    const WORDS: usize = 4;
    const SHIFT_MAX: u32 = 127 - 54;
    const ROOM_BELOW: u32 = 32;

    #[inline]
    fn shifted(mantissa: i128, by: u32) -> Self {
        mantissa << by
    }

    #[inline]
    fn checked_add(self, other: Self) -> Option<Self> {
        i128::checked_add(self, other)
    }

    fn checked_shift(self, by: u32) -> Option<Self> {
        let shifted = self.checked_shl(by)?;
        (shifted >> by == self).then_some(shifted)
    }

    fn strip(self) -> (Self, u32) {
        if self == 0 {
            return (0, 0);
        }
        (self >> self.trailing_zeros(), self.trailing_zeros())
    }

    fn from_words(words: impl DoubleEndedIterator<Item = u32>) -> Self {
        let mut words = words.rev();
        let top = words.next().map_or(0, |top| i128::from(top.cast_signed()));
        words.fold(top, |value, word| value << 32 | i128::from(word))
    }

    fn word(self, index: usize) -> u32 {
        (self >> (32 * index).min(127)) as u32
    }

    #[inline]
    fn pack(self) -> [u64; 2] {
        [self as u64, (self >> 64) as u64]
    }

    #[inline]
    fn unpack([low, high]: [u64; 2]) -> Self {
        (u128::from(high) << 64 | u128::from(low)).cast_signed()
    }

    fn is_zero(self) -> bool {
        self == 0
    }

    fn narrow(self) -> Option<i128> {
        Some(self)
    }
}

impl Window for i256 {
    type Packed = [u64; 4];
    const BIAS: i32 = 2148;
    const LIMBS: usize = 136;
    const WORDS: usize = 8;
    const SHIFT_MAX: u32 = 255 - 107;
    const ROOM_BELOW: u32 = 64;

    #[inline]
    fn shifted(mantissa: i128, by: u32) -> Self {
        let low = mantissa.cast_unsigned();
        match by {
            0 => Self::from_parts(low, mantissa >> 127),
            1..128 => Self::from_parts(low << by, mantissa >> (128 - by)),
            _ => Self::from_parts(0, mantissa << (by - 128)),
        }
    }

    #[inline]
    fn checked_add(self, other: Self) -> Option<Self> {
        i256::checked_add(self, other)
    }

    fn checked_shift(self, by: u32) -> Option<Self> {
        let by = u8::try_from(by).ok()?;
        let shifted = self << by;
        (shifted >> by == self).then_some(shifted)
    }

    fn strip(self) -> (Self, u32) {
        if self == Self::ZERO {
            return (Self::ZERO, 0);
        }
        (self >> self.trailing_zeros() as u8, self.trailing_zeros())
    }

    fn from_words(words: impl DoubleEndedIterator<Item = u32>) -> Self {
        let mut words = words.rev();
        let top = words.next().map_or(0, |top| i128::from(top.cast_signed()));
        words.fold(Self::from_i128(top), |value, word| value << 32 | Self::from_i128(i128::from(word)))
    }

    fn word(self, index: usize) -> u32 {
        let (low, high) = self.to_parts();
        match index {
            0..4 => (low >> (32 * index)) as u32,
            _ => (high >> (32 * (index - 4)).min(127)) as u32,
        }
    }

    #[inline]
    fn pack(self) -> [u64; 4] {
        let (low, high) = self.to_parts();
        [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]
    }

    #[inline]
    fn unpack([a, b, c, d]: [u64; 4]) -> Self {
        Self::from_parts(u128::from(b) << 64 | u128::from(a), (u128::from(d) << 64 | u128::from(c)).cast_signed())
    }

    fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    fn narrow(self) -> Option<i128> {
        self.to_i128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survives_words<W: Window + PartialEq + std::fmt::Debug>(values: &[W]) {
        for value in values {
            let words: Vec<u32> = (0..W::WORDS).map(|index| value.word(index)).collect();
            assert_eq!(W::from_words(words.into_iter()), *value);
            assert_eq!(W::unpack(value.pack()), *value);
            let (odd, zeros) = value.strip();
            assert_eq!(odd.checked_shift(zeros), Some(*value));
        }
    }

    #[test]
    fn words_packing_and_shifts_are_faithful() {
        survives_words(&[0_i128, 1, -1, i128::MAX, i128::MIN, -(3 << 70)]);
        let wide = i256::shifted(-5, 200);
        survives_words(&[i256::ZERO, i256::ONE, i256::MINUS_ONE, i256::MAX, i256::MIN, wide]);
        assert_eq!(i256::shifted(-3, 0), i256::from_i128(-3));
        assert_eq!(i256::shifted(-3, 7), i256::from_i128(-3 << 7));
        assert_eq!(i256::shifted(-3, 128), i256::from_parts(0, -3));
        assert_eq!(i128::MAX.checked_shift(1), None);
        assert_eq!(1_i128.checked_shift(200), None);
        assert_eq!(i256::MIN.checked_shift(1), None);
        assert_eq!(i256::ONE.checked_shift(300), None);
    }
}
