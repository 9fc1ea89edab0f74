//! Non-negative integers of any size: only what averages, variances and regressions need.

use std::cmp::Ordering;

use super::round::{round, round_quotient};

/// `mantissa × 2^exponent` of a quotient, and whether something below the last bit was cut off.
pub(crate) struct Quotient {
    /// At least 126 significant bits.
    pub(crate) mantissa: u128,
    /// The power of two; even.
    pub(crate) exponent: i32,
    /// Whether the quotient is a little more.
    pub(crate) sticky: bool,
}

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

    /// The sum.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let (longer, shorter) = if self.0.len() >= other.0.len() { (self, other) } else { (other, self) };
        let mut limbs = longer.0.clone();
        let mut carry = false;
        for (index, limb) in limbs.iter_mut().enumerate() {
            let (first, over) = limb.overflowing_add(shorter.0.get(index).copied().unwrap_or(0));
            let (second, over_again) = first.overflowing_add(u64::from(carry));
            *limb = second;
            carry = over || over_again;
        }
        limbs.push(u64::from(carry));
        Self::new(limbs)
    }

    /// Which of the two is greater.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let lengths = self.0.len().cmp(&other.0.len());
        lengths.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Bits up to the highest that is set.
    fn bits(&self) -> i32 {
        self.0.last().map_or(0, |top| self.0.len() as i32 * 64 - top.leading_zeros() as i32)
    }

    /// `self ÷ divisor` to 126 bits or more; neither is zero.
    pub(crate) fn quotient(&self, divisor: &Self) -> Quotient {
        let wanted = 127 - (self.bits() - divisor.bits());
        let shift = wanted - wanted.rem_euclid(2);
        let by = shift.unsigned_abs() as usize;
        let (dividend, divisor) =
            if shift >= 0 { (self.shifted(by), divisor.clone()) } else { (self.clone(), divisor.shifted(by)) };
        let (mantissa, sticky) = dividend.long_division(&divisor);
        Quotient { mantissa, exponent: -shift, sticky }
    }

    /// Quotient and whether there is a remainder; the quotient has at most 128 bits.
    ///
    /// D. Knuth, The Art of Computer Programming, volume 2, 4.3.1, algorithm D, in limbs of 64 bits.
    fn long_division(mut self, divisor: &Self) -> (u128, bool) {
        if let [divisor] = divisor.0.as_slice() {
            let sticky = self.divide(*divisor);
            return (self.top().0, sticky);
        }
        let length = divisor.0.len();
        let normal = divisor.0.last().map_or(0, |top| top.leading_zeros());
        let divisor = divisor.shifted(normal as usize);
        let mut rest = self.shifted(normal as usize).0;
        rest.resize(self.0.len().max(length) + 2, 0);
        let (top, next) = (u128::from(divisor.0[length - 1]), u128::from(divisor.0[length - 2]));
        let mut quotient = 0_u128;
        for low in (0..rest.len() - length).rev() {
            let high = u128::from(rest[low + length]) << 64 | u128::from(rest[low + length - 1]);
            let (mut digit, mut remainder) = (high / top, high % top);
            while digit >> 64 != 0 || digit * next > (remainder << 64 | u128::from(rest[low + length - 2])) {
                digit -= 1;
                remainder += top;
                if remainder >> 64 != 0 {
                    break;
                }
            }
            let part = &mut rest[low..=low + length];
            if subtract_multiple(part, &divisor.0, digit as u64) {
                digit -= 1;
                add_back(part, &divisor.0);
            }
            quotient = quotient << 64 | digit;
        }
        (quotient, rest.iter().any(|limb| *limb != 0))
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

/// `part −= limbs × digit`; true if that went below zero (by less than `limbs`).
fn subtract_multiple(part: &mut [u64], limbs: &[u64], digit: u64) -> bool {
    let (mut carry, mut borrow) = (0_u128, false);
    for (index, limb) in part.iter_mut().enumerate() {
        let product = u128::from(limbs.get(index).copied().unwrap_or(0)) * u128::from(digit) + carry;
        carry = product >> 64;
        let (first, under) = limb.overflowing_sub(product as u64);
        let (second, under_again) = first.overflowing_sub(u64::from(borrow));
        *limb = second;
        borrow = under || under_again;
    }
    borrow
}

/// `part += limbs`; the carry out of it undoes the borrow before.
fn add_back(part: &mut [u64], limbs: &[u64]) {
    let mut carry = false;
    for (index, limb) in part.iter_mut().enumerate() {
        let (first, over) = limb.overflowing_add(limbs.get(index).copied().unwrap_or(0));
        let (second, over_again) = first.overflowing_add(u64::from(carry));
        *limb = second;
        carry = over || over_again;
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    fn big(natural: &Natural) -> BigUint {
        let words = natural.0.iter().flat_map(|limb| [*limb as u32, (limb >> 32) as u32]);
        BigUint::new(words.collect())
    }

    fn limb() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(1 << 63), Just((1 << 63) - 1), any::<u64>()]
    }

    proptest! {
        #[test]
        fn quotients_are_those_of_a_library(
            a in prop::collection::vec(limb(), 1..7),
            b in prop::collection::vec(limb(), 1..7),
        ) {
            let (a, b) = (Natural::new(a), Natural::new(b));
            prop_assert_eq!(big(&a.plus(&b)), big(&a) + big(&b));
            prop_assert_eq!(a.compare(&b), big(&a).cmp(&big(&b)));
            prop_assume!(!a.is_zero() && !b.is_zero());
            let Quotient { mantissa, exponent, sticky } = a.quotient(&b);
            let by = exponent.unsigned_abs();
            let (above, below) = if exponent <= 0 { (big(&a) << by, big(&b)) } else { (big(&a), big(&b) << by) };
            prop_assert_eq!(BigUint::from(mantissa), &above / &below);
            prop_assert_eq!(sticky, &above % &below != BigUint::ZERO);
            prop_assert!(mantissa >> 125 != 0 && exponent % 2 == 0);
        }
    }

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
