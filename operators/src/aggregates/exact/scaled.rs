//! Signed numbers `±magnitude × 2^exponent` of any size: exact sums on their way to one rounding.

use super::cells::Exact;
use super::natural::{Natural, Quotient};
use super::round::round;

/// An exact number.
#[derive(Clone, Debug)]
pub(crate) struct Scaled {
    negative: bool,
    magnitude: Natural,
    exponent: i32,
}

impl Scaled {
    /// An exact sum; None if it is infinite or not a number.
    pub(crate) fn of(sum: Exact) -> Option<Self> {
        match sum {
            Exact::Finite { negative, magnitude, exponent } => Some(Self { negative, magnitude, exponent }),
            Exact::Special(_) => None,
        }
    }

    /// A count.
    pub(crate) fn count(count: u64) -> Self {
        Self { negative: false, magnitude: Natural::new(vec![count]), exponent: 0 }
    }

    /// Whether it is zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.magnitude.is_zero()
    }

    /// The product.
    pub(crate) fn times(&self, other: &Self) -> Self {
        Self {
            negative: self.negative != other.negative,
            magnitude: self.magnitude.product(&other.magnitude),
            exponent: self.exponent + other.exponent,
        }
    }

    /// The difference.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let exponent = self.exponent.min(other.exponent);
        let (a, b) = (self.units(exponent), other.units(exponent));
        if self.negative != other.negative {
            return Self { negative: self.negative, magnitude: a.plus(&b), exponent };
        }
        if a.compare(&b).is_ge() {
            Self { negative: self.negative, magnitude: a.minus(&b), exponent }
        } else {
            Self { negative: !self.negative, magnitude: b.minus(&a), exponent }
        }
    }

    /// The magnitude in units of `2^exponent`, which is not above its own.
    fn units(&self, exponent: i32) -> Natural {
        self.magnitude.shifted(usize::try_from(self.exponent - exponent).unwrap_or(0))
    }

    /// `self ÷ divisor`, rounded once. The divisor is not zero.
    pub(crate) fn over(&self, divisor: &Self) -> f64 {
        if self.is_zero() {
            return 0.0;
        }
        let Quotient { mantissa, exponent, sticky } = self.magnitude.quotient(&divisor.magnitude);
        round(self.negative != divisor.negative, mantissa, exponent + self.exponent - divisor.exponent, sticky)
    }

    /// `±√(self² ÷ divisor)` with the sign of `self`, rounded once. The divisor is above zero.
    pub(crate) fn over_root(&self, divisor: &Self) -> f64 {
        if self.is_zero() {
            return 0.0;
        }
        // An even power of two in all: it leaves the root as half of it.
        let odd = divisor.exponent.rem_euclid(2);
        let below = divisor.units(divisor.exponent - odd);
        let Quotient { mantissa, exponent, sticky } = self.magnitude.product(&self.magnitude).quotient(&below);
        let root = mantissa.isqrt();
        let exponent = exponent + 2 * self.exponent - (divisor.exponent - odd);
        round(self.negative, root, exponent / 2, sticky || root * root != mantissa)
    }
}
