//! Non-negative integers of any size: only what averages and variances need.

use super::round::{round, round_quotient};

/// A non-negative integer in 64-bit limbs, lowest first, without zero limbs on top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Natural(Vec<u64>);

impl Natural {
    /// From limbs, lowest first.
    pub(crate) fn new(limbs: Vec<u64>) -> Self {
        let mut natural = Self(limbs);
        natural.trim();
        natural
    }

    /// Sign and magnitude of a two's complement integer in 32-bit words, lowest first.
    pub(crate) fn from_words(words: &[u32]) -> (bool, Self) {
        let negative = words.last().is_some_and(|top| top >> 31 == 1);
        let flip = if negative { u32::MAX } else { 0 };
        let mut carry = u64::from(negative);
        let mut limbs = vec![0_u64; words.len().div_ceil(2) + 1];
        for (index, word) in words.iter().enumerate() {
            let sum = u64::from(word ^ flip) + carry;
            limbs[index / 2] |= (sum & 0xffff_ffff) << (32 * (index % 2));
            carry = sum >> 32;
        }
        (negative, Self::new(limbs))
    }

    /// Whether it is zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// The product with a small number.
    pub(crate) fn times(&self, factor: u64) -> Self {
        self.product(&Self::new(vec![factor]))
    }

    /// The product.
    pub(crate) fn product(&self, other: &Self) -> Self {
        let mut limbs = vec![0_u64; self.0.len() + other.0.len()];
        for (low, a) in self.0.iter().enumerate() {
            let mut carry = 0_u128;
            for (index, b) in other.0.iter().enumerate() {
                let sum = u128::from(*a) * u128::from(*b) + u128::from(limbs[low + index]) + carry;
                limbs[low + index] = sum as u64;
                carry = sum >> 64;
            }
            limbs[low + other.0.len()] = carry as u64;
        }
        Self::new(limbs)
    }

    /// `self × 2^bits`.
    pub(crate) fn shifted(&self, bits: usize) -> Self {
        let (whole, part) = (bits / 64, bits % 64);
        let mut limbs = vec![0_u64; whole];
        let mut carry = 0_u64;
        for limb in &self.0 {
            limbs.push(limb << part | carry);
            carry = limb.checked_shr(64 - part as u32).unwrap_or(0);
        }
        limbs.push(carry);
        Self::new(limbs)
    }

    /// `self − other`; `other` is not greater.
    pub(crate) fn minus(mut self, other: &Self) -> Self {
        let mut borrow = false;
        for (index, limb) in self.0.iter_mut().enumerate() {
            let (first, under) = limb.overflowing_sub(other.0.get(index).copied().unwrap_or(0));
            let (second, under_again) = first.overflowing_sub(u64::from(borrow));
            *limb = second;
            borrow = under || under_again;
        }
        assert!(!borrow && other.0.len() <= self.0.len(), "a natural number would become negative");
        self.trim();
        self
    }

    /// Divides in place (rounding down) and says whether there was a remainder.
    pub(crate) fn divide(&mut self, divisor: u64) -> bool {
        let mut remainder = 0_u64;
        for limb in self.0.iter_mut().rev() {
            let part = u128::from(remainder) << 64 | u128::from(*limb);
            *limb = (part / u128::from(divisor)) as u64; // remainder < divisor, so it fits
            remainder = (part % u128::from(divisor)) as u64;
        }
        self.trim();
        remainder != 0
    }

    /// The double nearest to `±self × 2^exponent ÷ divisor`.
    pub(crate) fn round_quotient(mut self, negative: bool, exponent: i32, divisor: u64) -> f64 {
        if self.0.len() <= 2 {
            return round_quotient(negative, self.top().0, exponent, divisor);
        }
        let sticky = self.divide(divisor);
        self.round(negative, exponent, sticky)
    }

    /// The double nearest to `±self × 2^exponent`; `sticky` as in [`round`].
    pub(crate) fn round(&self, negative: bool, exponent: i32, sticky: bool) -> f64 {
        let (top, dropped, cut) = self.top();
        round(negative, top, exponent + dropped, sticky || cut)
    }

    /// The highest 128 bits, how many bits are below them, and whether any of those is set.
    fn top(&self) -> (u128, i32, bool) {
        let limb = |index: usize| u128::from(self.0.get(index).copied().unwrap_or(0));
        let count = self.0.len();
        if count <= 2 {
            return (limb(1) << 64 | limb(0), 0, false);
        }
        let high = limb(count - 1) << 64 | limb(count - 2);
        let shift = high.leading_zeros();
        let next = limb(count - 3);
        let top = if shift == 0 { high } else { high << shift | next >> (64 - shift) };
        let cut = (next as u64) << shift != 0 || self.0[..count - 3].iter().any(|limb| *limb != 0);
        (top, (count as i32 - 2) * 64 - shift as i32, cut)
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_complement_words_become_sign_and_magnitude() {
        assert_eq!(Natural::from_words(&[]), (false, Natural::new(vec![])));
        assert_eq!(Natural::from_words(&[5]), (false, Natural::new(vec![5])));
        assert_eq!(Natural::from_words(&[u32::MAX]), (true, Natural::new(vec![1])));
        assert_eq!(Natural::from_words(&[0, 0, 1 << 31]), (true, Natural::new(vec![0, 1 << 31])));
    }

    #[test]
    fn arithmetic_on_several_limbs() {
        let a = Natural::new(vec![u64::MAX, u64::MAX, 7]);
        let a_rounded = 8.0 * 2.0_f64.powi(128);
        let square = a.product(&a).minus(&a.times(3)).round(false, 0, false);
        assert_eq!(square.to_bits(), (a_rounded * a_rounded).to_bits());
        assert_eq!(a.shifted(65), Natural::new(vec![0, u64::MAX << 1, u64::MAX, 15]));
        let mut b = a.shifted(64);
        assert!(b.divide(3));
        assert_eq!(a.shifted(64).minus(&b.times(3)), Natural::new(vec![1]));
    }
}
