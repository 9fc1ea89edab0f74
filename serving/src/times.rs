//! Points in time and durations as text.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use schemas::{Code, Problem};

/// RFC 3339, UTC, microseconds.
pub(crate) fn rfc3339(time_us: i64) -> String {
    DateTime::from_timestamp_micros(time_us)
        .map_or_else(|| format!("{time_us}us"), |time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// A duration as a client writes it: `30s`, `500ms`, `2 minutes`, `1 hour 30 minutes`, or a number of milliseconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Problem> {
    let bad = || {
        let what = format!("{text:?} is not a duration");
        Problem::new(Code::BadRequest, what).with_hint("write 500ms, 30s, 5 minutes, or a number of milliseconds")
    };
    let mut rest = text.trim();
    if let Ok(milliseconds) = rest.parse::<u64>() {
        return Ok(Duration::from_millis(milliseconds));
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        seconds += number * unit_seconds(&rest[..letters].to_lowercase()).ok_or_else(bad)?;
        rest = rest[letters..].trim_start();
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("250", 250)]
    #[case("30s", 30_000)]
    #[case("1.5 s", 1_500)]
    #[case("2 minutes", 120_000)]
    #[case("1 hour 30 minutes", 5_400_000)]
    fn durations_are_read(#[case] text: &str, #[case] milliseconds: u128) {
        assert_eq!(parse_duration(text).unwrap().as_millis(), milliseconds);
    }

    #[rstest]
    #[case("")]
    #[case("soon")]
    #[case("5 parsecs")]
    #[case("-3s")]
    #[case("s")]
    fn noise_is_refused(#[case] text: &str) {
        assert_eq!(parse_duration(text).unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn times_have_microseconds_and_a_zone() {
        assert_eq!(rfc3339(1_700_000_000_000_001), "2023-11-14T22:13:20.000001Z");
    }
}
