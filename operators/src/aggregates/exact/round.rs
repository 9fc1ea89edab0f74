//! The one place where exact numbers become doubles.

/// The double nearest to `±magnitude × 2^exponent`, ties to even; zero is always `+0.0`.
///
/// `sticky` says that a part greater than zero and less than one unit of `magnitude` was cut off;
/// `magnitude` then has at least 55 significant bits.
pub(crate) fn round(negative: bool, magnitude: u128, exponent: i32, sticky: bool) -> f64 {
    if magnitude == 0 {
        return 0.0;
    }
    let top = 127 - magnitude.leading_zeros() as i32;
    let unit = (top + exponent - 52).max(-1074); // weight of the result's last mantissa bit
    let mantissa = to_unit(magnitude, unit - exponent, sticky);
    // Mantissa and exponent field add up: a carry out of the mantissa moves into the exponent.
    let bits = match u64::try_from(unit + 1074) {
        Ok(field) if field < 2047 => mantissa + (field << 52),
        _ => INFINITY,
    };
    let rounded = f64::from_bits(bits.min(INFINITY));
    if negative && bits != 0 { -rounded } else { rounded }
}

const INFINITY: u64 = 0x7ff << 52;

/// `magnitude / 2^drop`, rounded to the nearest integer, ties to even.
fn to_unit(magnitude: u128, drop: i32, sticky: bool) -> u64 {
    if drop <= 0 {
        return (magnitude << -drop) as u64;
    }
    if drop > 128 {
        return 0;
    }
    let kept = magnitude.checked_shr(drop as u32).unwrap_or(0);
    let half = 1_u128 << (drop - 1);
    let above = sticky || magnitude & (half - 1) != 0;
    let up = magnitude & half != 0 && (above || kept & 1 == 1);
    kept as u64 + u64::from(up)
}

/// `±magnitude × 2^exponent ÷ divisor`, rounded once.
pub(crate) fn round_quotient(negative: bool, magnitude: u128, exponent: i32, divisor: u64) -> f64 {
    if magnitude == 0 {
        return 0.0;
    }
    let shift = magnitude.leading_zeros();
    if divisor == 1 {
        return round(negative, magnitude, exponent, false);
    }
    let dividend = magnitude << shift;
    let divisor = u128::from(divisor);
    round(negative, dividend / divisor, exponent - shift as i32, !dividend.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even() {
        assert_eq!(round(false, (1 << 53) + 1, 0, false).to_bits(), 9_007_199_254_740_992_f64.to_bits());
        assert_eq!(round(false, (1 << 53) + 3, 0, false).to_bits(), 9_007_199_254_740_996_f64.to_bits());
        assert_eq!(round(true, (1 << 54) + 2, 0, true).to_bits(), (-18_014_398_509_481_988_f64).to_bits());
    }

    #[test]
    fn edges_of_the_range() {
        assert_eq!(round(false, 1, -1074, false).to_bits(), 1);
        assert_eq!(round(true, 1, -1076, false).to_bits(), 0, "underflow is +0");
        assert_eq!(round(false, 3, -1075, false).to_bits(), 2, "1.5 units tie to even");
        assert_eq!(round(false, (1 << 53) - 1, 971, false).to_bits(), f64::MAX.to_bits());
        assert_eq!(round(false, (1 << 54) - 1, 970, false).to_bits(), f64::INFINITY.to_bits());
        assert_eq!(round(true, 1, 5000, false).to_bits(), f64::NEG_INFINITY.to_bits());
        assert_eq!(round(false, (1 << 53) - 1, -1075, false).to_bits(), f64::MIN_POSITIVE.to_bits(), "carries up");
    }

    #[test]
    fn quotients_round_once() {
        assert_eq!(round_quotient(false, 1, 0, 3).to_bits(), (1.0_f64 / 3.0).to_bits());
        assert_eq!(round_quotient(true, 10, 0, 4).to_bits(), (-2.5_f64).to_bits());
        assert_eq!(round_quotient(false, u128::MAX, 0, u64::MAX).to_bits(), 18_446_744_073_709_551_617_f64.to_bits());
    }
}
