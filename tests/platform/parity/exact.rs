//! Sums of doubles as rational numbers, rounded once at the end.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};

/// The double nearest to `numerator / denominator × 2^exponent`, ties to even; infinite beyond the largest.
pub(super) fn nearest(numerator: &BigInt, denominator: &BigInt, exponent: i64) -> f64 {
    if numerator.is_zero() {
        return 0.0;
    }
    let magnitude = numerator.abs();
    let shift = 66 - (magnitude.bits() as i64 - denominator.bits() as i64);
    let (above, below) =
        if shift >= 0 { (magnitude << shift, denominator.clone()) } else { (magnitude, denominator << -shift) };
    let quotient = (&above / &below).to_u128().unwrap();
    let is_more = !(&above % &below).is_zero();
    let rounded = round_bits(quotient, is_more, exponent - shift);
    if numerator.is_negative() { -rounded } else { rounded }
}

/// `bits × 2^exponent`, and a little more if `is_more`.
fn round_bits(bits: u128, is_more: bool, exponent: i64) -> f64 {
    let length = i64::from(128 - bits.leading_zeros());
    let top = exponent + length - 1;
    if top > 1_023 {
        return f64::INFINITY;
    }
    let precision = if top >= -1_022 { 53 } else { 53 + (top + 1_022) };
    if precision < 0 {
        return 0.0;
    }
    let dropped = length - precision;
    let (kept, rest) = (bits >> dropped, bits & ((1 << dropped) - 1));
    let half = 1_u128 << (dropped - 1);
    let up = rest > half || (rest == half && (is_more || kept % 2 == 1));
    let scale = exponent + dropped;
    // in two steps, each of them exact
    (kept + u128::from(up)) as f64 * two_to(scale / 2) * two_to(scale - scale / 2)
}

fn two_to(exponent: i64) -> f64 {
    f64::from_bits(((exponent + 1_023) as u64) << 52)
}

/// An exact sum: by power of two, how often.
#[derive(Debug, Default)]
pub(super) struct Sum {
    terms: BTreeMap<i64, BigInt>,
    not_finite: Option<f64>,
}

impl Sum {
    pub(super) fn of(values: &[f64]) -> Self {
        values.iter().fold(Self::default(), |sum, value| sum.plus(*value, false))
    }

    pub(super) fn of_squares(values: &[f64]) -> Self {
        values.iter().fold(Self::default(), |sum, value| sum.plus(*value, true))
    }

    fn plus(mut self, value: f64, squared: bool) -> Self {
        if !value.is_finite() {
            self.not_finite = Some(self.not_finite.unwrap_or(0.0) + value);
            return self;
        }
        let bits = value.to_bits();
        let field = (bits >> 52 & 0x7ff) as i64;
        let fraction = (bits & ((1 << 52) - 1)) as i64;
        let mantissa = BigInt::from(if field == 0 { fraction } else { fraction | 1 << 52 });
        let exponent = field.max(1) - 1_075;
        let (term, at) = match (squared, value < 0.0) {
            (true, _) => (&mantissa * &mantissa, 2 * exponent),
            (false, true) => (-mantissa, exponent),
            (false, false) => (mantissa, exponent),
        };
        *self.terms.entry(at).or_default() += term;
        self
    }

    /// `(n, e)` of the sum `n × 2^e`, or the infinity or NaN that it is.
    pub(super) fn exact(&self) -> Result<(BigInt, i64), f64> {
        if let Some(value) = self.not_finite {
            return Err(value);
        }
        let least = self.terms.keys().next().copied().unwrap_or(0);
        let total = self.terms.iter().map(|(exponent, count)| count << (exponent - least)).sum();
        Ok((total, least))
    }

    /// The sum divided by `count`, rounded once.
    pub(super) fn divided(&self, count: usize) -> f64 {
        match self.exact() {
            Ok((total, exponent)) => nearest(&total, &count.into(), exponent),
            Err(value) => value,
        }
    }
}

/// `(n·Σx² − (Σx)²) / (n·freedom)`, rounded once; NaN if a value is not finite.
pub(super) fn variance(values: &[f64], freedom: usize) -> f64 {
    let (Ok((sum, sum_exponent)), Ok((squares, squares_exponent))) =
        (Sum::of(values).exact(), Sum::of_squares(values).exact())
    else {
        return f64::NAN;
    };
    let count = BigInt::from(values.len());
    let least = squares_exponent.min(2 * sum_exponent);
    let numerator = ((squares * &count) << (squares_exponent - least)) - ((&sum * &sum) << (2 * sum_exponent - least));
    nearest(&numerator, &(count * freedom), least)
}
