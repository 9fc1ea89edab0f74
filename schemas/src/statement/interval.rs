//! Intervals in PostgreSQL's texts (`15 minutes`, `1 day 02:00`, `24h`) to microseconds.
//!
//! Grammar: <https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-INTERVAL-INPUT>,
//! without months and years, which have no fixed length, and without `ago` and ISO 8601.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::problem::{Code, Problem};

const SECOND: i128 = 1_000_000;

/// Units, by every name that Postgres gives them.
const UNITS: [(&[&str], i128); 7] = [
    (&["us", "usec", "usecs", "usecond", "useconds", "microsecond", "microseconds"], 1),
    (&["ms", "msec", "msecs", "msecond", "mseconds", "millisecond", "milliseconds"], 1_000),
    (&["s", "sec", "secs", "second", "seconds"], SECOND),
    (&["m", "min", "mins", "minute", "minutes"], 60 * SECOND),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600 * SECOND),
    (&["d", "day", "days"], 86_400 * SECOND),
    (&["w", "week", "weeks"], 7 * 86_400 * SECOND),
];

/// Units whose length is not fixed.
const CALENDAR_UNITS: [&str; 14] = [
    "mon", "mons", "month", "months", "quarter", "quarters", "y", "yr", "yrs", "year", "years", "decade", "decades",
    "century",
];

/// Reads the text of an interval as microseconds. A number without a unit is in seconds.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn parse(text: &str) -> Result<i64, String> {
    parse_with_unit(text, None)
}

/// As [`parse`], with the unit that stands behind the literal: `INTERVAL '1' DAY`.
pub(super) fn parse_with_unit(text: &str, unit: Option<&str>) -> Result<i64, String> {
    let text_lower = text.to_ascii_lowercase();
    let mut rest = text_lower.trim();
    if rest.is_empty() {
        return Err("an interval is empty".into());
    }
    let mut total = 0i128;
    let mut fallback = unit.map(str::to_ascii_lowercase);
    while !rest.is_empty() {
        let part = rest;
        let (number, after) = split(part, |c| c.is_ascii_digit() || matches!(c, '.' | ':' | '+' | '-'));
        let (name, after) = split(after.trim_start(), char::is_alphabetic);
        let amount = if number.contains(':') && name.is_empty() {
            clock(number)
        } else {
            let name = if name.is_empty() { fallback.take().unwrap_or_else(|| "s".into()) } else { name.into() };
            amount(number, length_of(&name)?)
        };
        let bad = || format!("{text:?} is not an interval (at {part:?})");
        total = total.checked_add(amount.ok_or_else(bad)?).ok_or_else(bad)?;
        rest = after.trim_start_matches([' ', ',', '\t']);
        if rest.len() == part.len() {
            return Err(bad());
        }
    }
    i64::try_from(total).map_err(|_| format!("the interval {text:?} is too long"))
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A unit's length in microseconds.
fn length_of(unit: &str) -> Result<i128, String> {
    if CALENDAR_UNITS.contains(&unit) {
        return Err(format!("an interval in {unit} has no fixed length: write days or hours"));
    }
    let found = UNITS.iter().find(|(names, _)| names.contains(&unit));
    found.map(|(_, length)| *length).ok_or_else(|| format!("unknown unit of time: {unit}"))
}

/// `-1.5` times a unit; none if that is no whole number of microseconds.
fn amount(number: &str, unit: i128) -> Option<i128> {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 || fraction.len() > 15 {
        return None;
    }
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    let all = unsigned(whole)?.checked_mul(scale)?.checked_add(unsigned(fraction)?)?.checked_mul(unit)?;
    if all % scale == 0 { Some(sign * all / scale) } else { None }
}

fn unsigned(digits: &str) -> Option<i128> {
    match digits {
        "" => Some(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    }
}

/// `02:00`, `02:00:30`, `02:00:30.5`; a sign holds for all of it.
fn clock(text: &str) -> Option<i128> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes] => (hours, minutes, "0"),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    let minutes = unsigned(minutes).filter(|minutes| *minutes < 60)?;
    let seconds = amount(seconds, SECOND).filter(|us| (0..60 * SECOND).contains(us))?;
    let hours = if hours.is_empty() { None } else { unsigned(hours) }?;
    Some(sign * (hours.checked_mul(3_600 * SECOND)? + minutes * 60 * SECOND + seconds))
}

/// An interval as text that [`parse`] reads back: the largest unit, up to hours, that divides it.
pub fn show(us: i64) -> String {
    let units = [("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000), ("millisecond", 1_000)];
    let (unit, length) = units.into_iter().find(|(_, length)| us % length == 0).unwrap_or(("microsecond", 1));
    let (unit, length) = if us == 0 { ("second", 1) } else { (unit, length) };
    let plural = if us / length == 1 { "" } else { "s" };
    format!("{} {unit}{plural}", us / length)
}

/// `[INTERVAL] '15 minutes'`, `INTERVAL '1' DAY`, `1 HOUR`: microseconds, not below `least_us`.
pub(super) fn interval(cursor: &mut Cursor<'_, '_>, least_us: i64) -> Result<i64, Problem> {
    let named = cursor.take(&["INTERVAL"]);
    let position = cursor.position();
    let text = match cursor.peek() {
        Some(Token::Number(number, _)) if !named => {
            let number = number.clone();
            cursor.advance();
            number
        }
        _ => cursor.string("an interval like '15 minutes'")?,
    };
    let unit = cursor.word_at(0).filter(|word| length_of(&word.to_ascii_lowercase()).is_ok() || is_calendar(word));
    if unit.is_some() {
        cursor.advance();
    }
    let invalid = |detail: String| {
        let problem = cursor.problem_at(position, Code::InvalidSql, detail);
        problem.with_hint("write it like '15 minutes', '1 day 02:00' or '24h'")
    };
    let us = parse_with_unit(&text, unit).map_err(invalid)?;
    if us < least_us {
        return Err(invalid(format!("the interval {text:?} is too short: at least {}", show(least_us))));
    }
    Ok(us)
}

fn is_calendar(word: &str) -> bool {
    CALENDAR_UNITS.iter().any(|unit| word.eq_ignore_ascii_case(unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[rstest]
    #[case::minutes("15 minutes", HOUR / 4)]
    #[case::day_and_clock("1 day 02:00", 26 * HOUR)]
    #[case::two_units("1 hour 30 minutes", HOUR * 3 / 2)]
    #[case::no_blank("24h", 24 * HOUR)]
    #[case::compact("1h30m", HOUR * 3 / 2)]
    #[case::clock_with_fraction("00:00:01.5", 1_500_000)]
    #[case::fraction("1.5 hours", HOUR * 3 / 2)]
    #[case::bare_number_is_seconds("90", 90_000_000)]
    #[case::upper_case("2 WEEKS", 14 * 24 * HOUR)]
    #[case::micro("7 us", 7)]
    #[case::signs("1 day -2 hours", 22 * HOUR)]
    #[case::negative_clock("-00:30", -HOUR / 2)]
    #[case::zero("0", 0)]
    fn reads(#[case] text: &str, #[case] us: i64) {
        assert_eq!(parse(text), Ok(us));
    }

    #[rstest]
    #[case::empty("  ", "an interval is empty")]
    #[case::months("3 months", "an interval in months has no fixed length: write days or hours")]
    #[case::years("1 year", "an interval in year has no fixed length: write days or hours")]
    #[case::unit("3 fortnights", "unknown unit of time: fortnights")]
    #[case::word("soon", "unknown unit of time: soon")]
    #[case::minutes_past_59("01:60", "\"01:60\" is not an interval (at \"01:60\")")]
    #[case::part_of_a_microsecond("0.0000001 s", "\"0.0000001 s\" is not an interval (at \"0.0000001 s\")")]
    #[case::two_points("1.2.3 s", "\"1.2.3 s\" is not an interval (at \"1.2.3 s\")")]
    #[case::too_long("999999999999 weeks", "the interval \"999999999999 weeks\" is too long")]
    #[case::symbol("1 day;", "\"1 day;\" is not an interval (at \";\")")]
    fn refuses(#[case] text: &str, #[case] why: &str) {
        assert_eq!(parse(text), Err(why.to_owned()));
    }

    #[test]
    fn unit_behind_the_literal() {
        assert_eq!(parse_with_unit("1", Some("DAY")), Ok(24 * HOUR));
        assert_eq!(parse_with_unit("1 hour", Some("DAY")), Ok(HOUR));
        assert!(parse_with_unit("1", Some("MONTH")).is_err());
    }

    proptest! {
        #[test]
        fn shown_interval_reads_back(us in any::<i64>()) {
            prop_assert_eq!(parse(&show(us)), Ok(us));
        }

        #[test]
        fn never_panics(text in "[-+0-9.: a-z,]{0,40}|\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
