//! Dates and points in time from their characters: RFC 3339 and what PostgreSQL reads beside it.

/// The first and the last point in time that a TIMESTAMPTZ takes: years 1 to 9999.
const RANGE_US: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(crate) fn date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() == 10 { date_prefix(bytes) } else { None }
}

/// Microseconds since the epoch of `YYYY-MM-DDTHH:MM[:SS[.f…]][Z|±HH[[:]MM]]`.
///
/// The separator may be a blank, a date alone is its midnight, and without a zone the time is UTC.
/// Digits past the microsecond are cut off.
pub(crate) fn timestamp(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let days = i64::from(date_prefix(bytes)?);
    let time = bytes.get(10..)?;
    if time.is_empty() {
        return in_range(days * 86_400_000_000);
    }
    if !matches!(time[0], b'T' | b't' | b' ') || *time.get(3)? != b':' {
        return None;
    }
    let (hour, minute) = (two_digits(time.get(1..3)?)?, two_digits(time.get(4..6)?)?);
    let (second, fraction_us, zone) = seconds(time.get(6..)?)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds_of_day = hour * 3_600 + minute * 60 + second - zone_offset_s(zone)?;
    in_range((days * 86_400 + seconds_of_day) * 1_000_000 + fraction_us)
}

/// A point in time, if TIMESTAMPTZ has it.
pub(crate) fn in_range(time_us: i64) -> Option<i64> {
    RANGE_US.contains(&time_us).then_some(time_us)
}

/// `[:SS[.f…]]`: seconds, microseconds, what is left.
fn seconds(bytes: &[u8]) -> Option<(i64, i64, &[u8])> {
    if bytes.first() != Some(&b':') {
        return Some((0, 0, bytes));
    }
    let second = two_digits(bytes.get(1..3)?)?;
    let rest = bytes.get(3..)?;
    if rest.first() != Some(&b'.') {
        return Some((second, 0, rest));
    }
    let digits = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let fraction_us =
        (0..6).fold(0, |value, index| value * 10 + if index < digits { i64::from(rest[1 + index] - b'0') } else { 0 });
    Some((second, fraction_us, &rest[1 + digits..]))
}

fn zone_offset_s(zone: &[u8]) -> Option<i64> {
    let (sign, digits) = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [_, _] => (two_digits(digits)?, 0),
        [_, _, b':', minutes @ ..] | [_, _, minutes @ ..] if minutes.len() == 2 => {
            (two_digits(&digits[..2])?, two_digits(minutes)?)
        }
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn two_digits(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => None,
    }
}

fn date_prefix(bytes: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, ..] = bytes else { return None };
    let year = two_digits(&[*y1, *y2])? * 100 + two_digits(&[*y3, *y4])?;
    let (month, day) = (two_digits(&[*m1, *m2])?, two_digits(&[*d1, *d2])?);
    let valid = year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_of_month(year, month);
    valid.then(|| days_from_civil(year, month, day)).and_then(|days| i32::try_from(days).ok())
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`, for years > 0.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use arrow::compute::kernels::cast_utils::{Parser, string_to_timestamp_nanos};
    use arrow::datatypes::Date32Type;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2024-02-29T12:00:00Z", Some(1_709_208_000_000_000))]
    #[case("2024-02-29 12:00:00.123456789+02:00", Some(1_709_200_800_123_456))]
    #[case("2024-02-29T12:00:00.5-0530", Some(1_709_227_800_500_000))]
    #[case("2024-02-29t12:00z", Some(1_709_208_000_000_000))]
    #[case("2024-02-29", Some(1_709_164_800_000_000))]
    #[case("1969-12-31T23:59:59.999999Z", Some(-1))]
    #[case("2016-12-31T23:59:60Z", Some(1_483_228_800_000_000))]
    #[case("0001-01-01T00:00:00Z", Some(-62_135_596_800_000_000))]
    #[case("0001-01-01T00:00:00+01:00", None)]
    #[case("2023-02-29T12:00:00Z", None)]
    #[case("2024-02-30", None)]
    #[case("2024-13-01", None)]
    #[case("2024-02-29T24:00:00Z", None)]
    #[case("2024-02-29T12:00:00.Z", None)]
    #[case("2024-02-29T12:00:00 Europe/Berlin", None)]
    #[case("2024-02-29T12:00:00.12345678901é", None)]
    #[case("yesterday", None)]
    #[case("", None)]
    fn a_timestamp_is_read(#[case] text: &str, #[case] expected: Option<i64>) {
        assert_eq!(timestamp(text), expected);
    }

    proptest! {
        #[test]
        fn timestamps_agree_with_arrow(
            y in 1700i32..2250, mo in 1u32..13, d in 1u32..32, h in 0u32..24, mi in 0u32..60, s in 0u32..60,
            f in proptest::option::of(0u32..1_000_000_000), zone in proptest::sample::select(vec!["", "Z", "+01:00", "-11:30"]),
        ) {
            let fraction = f.map(|f| format!(".{f:09}")).unwrap_or_default();
            let text = format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}{fraction}{zone}");
            let theirs = string_to_timestamp_nanos(&text).ok().map(|ns| ns.div_euclid(1_000));
            prop_assert_eq!(timestamp(&text), theirs, "{}", text);
            prop_assert_eq!(date(&text[..10]), Date32Type::parse(&text[..10]));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", cut in "[0-9T:.Z+ -]{0,35}") {
            let _ = (timestamp(&text), date(&text), timestamp(&cut), date(&cut));
            let _ = timestamp(&format!("2024-02-29T12:00:00{text}"));
        }
    }
}
