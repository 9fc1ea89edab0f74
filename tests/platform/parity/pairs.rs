//! Covariance, correlation, regression: definitions with big integers, rounded once.

use num_bigint::BigInt;
use num_traits::{Signed, Zero};

use super::exact::nearest;
use super::value::Value;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Statistic {
    CovarPop,
    CovarSamp,
    Corr,
    Slope,
    Intercept,
    Count,
    R2,
    AvgX,
    AvgY,
    Sxx,
    Syy,
    Sxy,
}

impl Statistic {
    pub(super) const ALL: [Self; 12] = [
        Self::CovarPop,
        Self::CovarSamp,
        Self::Corr,
        Self::Slope,
        Self::Intercept,
        Self::Count,
        Self::R2,
        Self::AvgX,
        Self::AvgY,
        Self::Sxx,
        Self::Syy,
        Self::Sxy,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CovarPop => "covar_pop",
            Self::CovarSamp => "covar_samp",
            Self::Corr => "corr",
            Self::Slope => "regr_slope",
            Self::Intercept => "regr_intercept",
            Self::Count => "regr_count",
            Self::R2 => "regr_r2",
            Self::AvgX => "regr_avgx",
            Self::AvgY => "regr_avgy",
            Self::Sxx => "regr_sxx",
            Self::Syy => "regr_syy",
            Self::Sxy => "regr_sxy",
        }
    }
}

/// Doubles as integers of one power of two; None if one of them is not finite.
fn integers(values: &[f64]) -> Option<(Vec<BigInt>, i64)> {
    let parts = |value: &f64| {
        let bits = value.to_bits();
        let field = (bits >> 52 & 0x7ff) as i64;
        let fraction = BigInt::from(bits & ((1 << 52) - 1));
        let mantissa = if field == 0 { fraction } else { fraction + (BigInt::from(1) << 52) };
        (if *value < 0.0 { -mantissa } else { mantissa }, field.max(1) - 1_075)
    };
    if !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let parts: Vec<(BigInt, i64)> = values.iter().map(parts).collect();
    let least = parts.iter().map(|(_, exponent)| *exponent).min().unwrap_or(0);
    Some((parts.into_iter().map(|(mantissa, exponent)| mantissa << (exponent - least)).collect(), least))
}

/// Infinite or not a number, as a sum of doubles would be.
fn special_mean(values: &[f64]) -> f64 {
    values.iter().filter(|value| !value.is_finite()).sum()
}

/// `n·Σab − Σa·Σb`
fn spread(a: &[BigInt], b: &[BigInt]) -> BigInt {
    let products: BigInt = a.iter().zip(b).map(|(a, b)| a * b).sum();
    products * a.len() - a.iter().sum::<BigInt>() * b.iter().sum::<BigInt>()
}

/// `numerator ÷ denominator × 2^exponent`; the denominator is above zero.
fn float(numerator: &BigInt, denominator: &BigInt, exponent: i64) -> Value {
    Value::Float(nearest(numerator, denominator, exponent))
}

/// The statistic of `(y, x)` as PostgreSQL defines it: a pair with a null does not count.
pub(super) fn over(statistic: Statistic, pairs: impl Iterator<Item = (Value, Value)>) -> Value {
    let whole = pairs.filter(|(y, x)| !y.is_null() && !x.is_null());
    let (ys, xs): (Vec<f64>, Vec<f64>) = whole.map(|(y, x)| (y.float(), x.float())).unzip();
    let count = ys.len();
    let least = match statistic {
        Statistic::Count => return Value::Int(count as i128),
        Statistic::CovarSamp => 2,
        _ => 1,
    };
    if count < least {
        return Value::Null;
    }
    let n = BigInt::from(count);
    let nan = Value::Float(f64::NAN);
    let (x, y) = (integers(&xs), integers(&ys));
    let mean = |exact: &Option<(Vec<BigInt>, i64)>, values: &[f64]| match exact {
        Some((values, exponent)) => float(&values.iter().sum(), &n, *exponent),
        None => Value::Float(special_mean(values)),
    };
    let alone = |exact: &Option<(Vec<BigInt>, i64)>| match exact {
        Some((values, exponent)) => float(&spread(values, values), &n, 2 * exponent),
        None => nan.clone(),
    };
    let both = |divisor: BigInt| match (&x, &y) {
        (Some((x, ex)), Some((y, ey))) => float(&spread(x, y), &divisor, ex + ey),
        _ => nan.clone(),
    };
    let is_flat = |exact: &Option<(Vec<BigInt>, i64)>| exact.as_ref().is_some_and(|(v, _)| spread(v, v).is_zero());
    match statistic {
        Statistic::Count => Value::Int(count as i128),
        Statistic::AvgX => mean(&x, &xs),
        Statistic::AvgY => mean(&y, &ys),
        Statistic::Sxx => alone(&x),
        Statistic::Syy => alone(&y),
        Statistic::Sxy => both(n.clone()),
        Statistic::CovarPop => both(&n * &n),
        Statistic::CovarSamp => both(&n * (&n - 1)),
        Statistic::Slope | Statistic::Intercept | Statistic::Corr | Statistic::R2 if is_flat(&x) => Value::Null,
        Statistic::Corr if is_flat(&y) => Value::Null,
        Statistic::R2 if is_flat(&y) => Value::Float(1.0),
        Statistic::Slope | Statistic::Intercept | Statistic::Corr | Statistic::R2 => match (&x, &y) {
            (Some(x), Some(y)) => line(statistic, &n, x, y),
            _ => nan,
        },
    }
}

fn line(statistic: Statistic, n: &BigInt, (x, ex): &(Vec<BigInt>, i64), (y, ey): &(Vec<BigInt>, i64)) -> Value {
    let (xx, yy, xy) = (spread(x, x), spread(y, y), spread(x, y));
    match statistic {
        Statistic::Slope => float(&xy, &xx, ey - ex),
        Statistic::Intercept => {
            let (x, y) = (x.iter().sum::<BigInt>(), y.iter().sum::<BigInt>());
            float(&(y * &xx - x * xy), &(n * xx), *ey)
        }
        Statistic::R2 => float(&(&xy * &xy), &(xx * yy), 0),
        _ => {
            // the root to 200 bits, and half a bit more if there is a rest
            let product = xx * yy;
            let (above, bits) = (&xy * &xy, (product.bits() + 400) & !1);
            let square: BigInt = (above << bits) / product;
            let root = square.sqrt();
            let rest = i32::from(&root * &root != square) | 1;
            let signed = (root * 2 + rest) * xy.signum();
            if xy.is_zero() { Value::Float(0.0) } else { float(&signed, &1.into(), -(bits as i64) / 2 - 1) }
        }
    }
}
