//! Exact decimal numbers from their characters: no detour through floating point.

/// A number times a power of ten, as an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scaled {
    /// The integer, rounded half away from zero as in PostgreSQL.
    pub(crate) value: i128,
    /// True if nothing was rounded.
    pub(crate) exact: bool,
}

/// `text` × 10^`scale` for a text in JSON's grammar of numbers; none when it does not fit.
pub(crate) fn scaled(text: &str, scale: i8) -> Option<Scaled> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], exponent_of(&unsigned[at + 1..])),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // How many digits of `whole ++ fraction` stand before the wanted point.
    let keep = i64::try_from(whole.len()).ok()? + exponent + i64::from(scale);
    let digits = whole.bytes().chain(fraction.bytes()).map(|byte| i128::from(byte - b'0'));
    let kept = keep_digits(digits, keep)?;
    Some(if negative { Scaled { value: -kept.value, ..kept } } else { kept })
}

fn exponent_of(text: &str) -> i64 {
    const FAR: i64 = 1 << 40;
    let bound = if text.starts_with('-') { -FAR } else { FAR };
    text.parse::<i64>().unwrap_or(bound).clamp(-FAR, FAR)
}

/// The first `keep` digits as an integer, filled up with zeros.
fn keep_digits(digits: impl Iterator<Item = i128>, keep: i64) -> Option<Scaled> {
    let mut value = 0_i128;
    let mut exact = true;
    let mut round_up = false;
    let mut seen = 0_i64;
    for digit in digits {
        if seen < keep {
            value = value.checked_mul(10)?.checked_add(digit)?;
        } else {
            round_up |= seen == keep && digit >= 5;
            exact &= digit == 0;
        }
        seen += 1;
    }
    while seen < keep && value != 0 {
        value = value.checked_mul(10)?;
        seen += 1;
    }
    Some(Scaled { value: value.checked_add(i128::from(round_up))?, exact })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("12", 0, Some((12, true)))]
    #[case("-12.50", 1, Some((-125, true)))]
    #[case("1.5", 0, Some((2, false)))]
    #[case("-1.5", 0, Some((-2, false)))]
    #[case("1.49", 0, Some((1, false)))]
    #[case("1e3", 0, Some((1000, true)))]
    #[case("1.25e2", 0, Some((125, true)))]
    #[case("5e-1", 0, Some((1, false)))]
    #[case("4e-9", 0, Some((0, false)))]
    #[case("0e999999999999", 2, Some((0, true)))]
    #[case("1e999999999999", 2, None)]
    #[case("1e-99999999999999999999", 2, Some((0, false)))]
    #[case("99999999999999999999999999999999999999", 0, Some((99_999_999_999_999_999_999_999_999_999_999_999_999, true)))]
    #[case("9999999999999999999999999999999999999999", 0, None)]
    #[case("1250", -2, Some((13, false)))]
    fn a_number_is_scaled_exactly(#[case] text: &str, #[case] scale: i8, #[case] expected: Option<(i128, bool)>) {
        assert_eq!(scaled(text, scale).map(|s| (s.value, s.exact)), expected);
    }
}
