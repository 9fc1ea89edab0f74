//! Days, weeks and months by the clock of a time zone: they have 23, 24 or 25 hours where it is put forward
//! or back.
//!
//! A bucket begins at the first instant at which the zone's clock shows its first day or a later one, and ends
//! where the next one begins: buckets are disjoint, have no gaps, and never begin after an event that is in
//! them, also where a clock is put back across midnight.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset as _, TimeZone as _};
use chrono_tz::{IANA_TZDB_VERSION, Tz};

use crate::buckets::{first_day, month_of};

const DAY_US: i64 = 86_400_000_000;
/// No clock was ever further away from UTC.
const FURTHEST_US: i64 = 26 * 3_600_000_000;

/// A version of the time-zone data: part of the meaning of every view that uses a zone.
pub(crate) const TIME_ZONE_DATA: &str = IANA_TZDB_VERSION;

/// How the days of a calendar are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    /// So many days, one of these buckets beginning so many days after 1970-01-01.
    Days {
        /// How many.
        count: i64,
        /// First day of one of the buckets.
        origin: i64,
    },
    /// So many months, from a January on.
    Months(i64),
}

impl Unit {
    /// First day of the bucket that a day lies in.
    fn first(self, day: i64) -> i64 {
        match self {
            Self::Days { count, origin } => day - (day - origin).rem_euclid(count),
            Self::Months(count) => {
                let (year, month) = month_of(day);
                let months = (year * 12 + month - 1).div_euclid(count) * count;
                first_day(months.div_euclid(12), months.rem_euclid(12) + 1)
            }
        }
    }

    /// First day of the bucket after the one that begins with `first`.
    fn next(self, first: i64) -> i64 {
        match self {
            Self::Days { count, .. } => first + count,
            Self::Months(count) => {
                let (year, month) = month_of(first);
                let months = year * 12 + month - 1 + count;
                first_day(months.div_euclid(12), months.rem_euclid(12) + 1)
            }
        }
    }
}

/// Buckets of days or months in a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Calendar {
    unit: Unit,
    zone: Tz,
}

/// The zone of a name such as `Europe/Berlin`.
pub(crate) fn zone(name: &str) -> Option<Tz> {
    name.parse().ok()
}

impl Calendar {
    /// Buckets of a zone.
    pub(crate) fn new(unit: Unit, zone: Tz) -> Self {
        Self { unit, zone }
    }

    /// A name with the version of the time-zone data in it.
    pub(crate) fn name(&self) -> String {
        let unit = match self.unit {
            Unit::Days { count, origin } => format!("days_{count}_{origin}"),
            Unit::Months(count) => format!("months_{count}"),
        };
        format!("calendar_{unit}_{}_{TIME_ZONE_DATA}", self.zone.name())
    }

    /// Start and end of the bucket that an instant lies in.
    pub(crate) fn bucket(&self, time_us: i64) -> (i64, i64) {
        let day = time_us.saturating_add(offset_us(self.zone, time_us)).div_euclid(DAY_US);
        let mut first = self.unit.first(day);
        let mut start_us = first_instant(self.zone, first.saturating_mul(DAY_US));
        loop {
            first = self.unit.next(first);
            let end_us = first_instant(self.zone, first.saturating_mul(DAY_US));
            // behind it although the clock shows an earlier day: it was put back across midnight
            if time_us < end_us || end_us <= start_us {
                return (start_us, end_us);
            }
            start_us = end_us;
        }
    }

    /// [`Calendar::bucket`] for many times: neighbours mostly lie in one bucket.
    pub(crate) fn buckets(&self) -> impl FnMut(i64) -> (i64, i64) {
        let calendar = *self;
        let mut last = (i64::MAX, i64::MIN);
        move |time_us| {
            if time_us < last.0 || last.1 <= time_us {
                last = calendar.bucket(time_us);
            }
            last
        }
    }
}

/// Start of an hour, minute, … by a zone's clock: as PostgreSQL has it, with the clock as it is at that time.
pub(crate) fn of_the_clock(zone: Tz, width_us: i64, time_us: i64) -> i64 {
    let local_us = time_us.saturating_add(offset_us(zone, time_us));
    time_us.saturating_sub(local_us.rem_euclid(width_us))
}

/// By how much the zone's clock is ahead of UTC.
fn offset_us(zone: Tz, time_us: i64) -> i64 {
    let ahead = |utc: NaiveDateTime| i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc());
    naive(time_us).map_or(0, |utc| ahead(utc) * 1_000_000)
}

fn naive(time_us: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(time_us).map(|time| time.naive_utc())
}

/// The first instant at which a zone's clock shows this time or a later one.
fn first_instant(zone: Tz, local_us: i64) -> i64 {
    let Some(local) = naive(local_us) else { return local_us };
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(time) => time.timestamp_micros(),
        MappedLocalTime::Ambiguous(a, b) => a.timestamp_micros().min(b.timestamp_micros()),
        MappedLocalTime::None => {
            // the clock jumps over it: where it jumps
            let (mut below, mut at) = (local_us.saturating_sub(FURTHEST_US), local_us.saturating_add(FURTHEST_US));
            while at - below > 1 {
                let middle = below + (at - below) / 2;
                if middle.saturating_add(offset_us(zone, middle)) >= local_us { at = middle } else { below = middle }
            }
            at
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn us(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    const DAY: Unit = Unit::Days { count: 1, origin: 0 };
    const WEEK: Unit = Unit::Days { count: 7, origin: -3 };

    #[rstest]
    #[case::winter("Europe/Berlin", DAY, "2024-01-15T12:00:00Z", "2024-01-14T23:00:00Z", "2024-01-15T23:00:00Z")]
    #[case::put_forward("Europe/Berlin", DAY, "2024-03-31T12:00:00Z", "2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z")]
    #[case::put_back("Europe/Berlin", DAY, "2024-10-27T12:00:00Z", "2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z")]
    #[case::week("Europe/Berlin", WEEK, "2024-03-31T12:00:00Z", "2024-03-24T23:00:00Z", "2024-03-31T22:00:00Z")]
    #[case::month(
        "Europe/Berlin",
        Unit::Months(1),
        "2024-03-05T00:00:00Z",
        "2024-02-29T23:00:00Z",
        "2024-03-31T22:00:00Z"
    )]
    #[case::quarter("UTC", Unit::Months(3), "2024-05-05T00:00:00Z", "2024-04-01T00:00:00Z", "2024-07-01T00:00:00Z")]
    #[case::year("UTC", Unit::Months(12), "1969-05-05T00:00:00Z", "1969-01-01T00:00:00Z", "1970-01-01T00:00:00Z")]
    // at midnight the clock shows 01:00: the day begins there
    #[case::no_midnight(
        "America/Sao_Paulo",
        DAY,
        "2018-11-04T12:00:00Z",
        "2018-11-04T03:00:00Z",
        "2018-11-05T02:00:00Z"
    )]
    // 30 December 2011 was left out
    #[case::no_day("Pacific/Apia", DAY, "2011-12-30T12:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z")]
    // at 00:01 the clock was put back to 23:01 of the day before
    #[case::across_midnight(
        "America/St_Johns",
        DAY,
        "2006-10-29T03:00:00Z",
        "2006-10-29T02:30:00Z",
        "2006-10-30T03:30:00Z"
    )]
    fn days_follow_the_clock(
        #[case] name: &str,
        #[case] unit: Unit,
        #[case] time: &str,
        #[case] start: &str,
        #[case] end: &str,
    ) {
        let calendar = Calendar::new(unit, zone(name).unwrap());
        assert_eq!(calendar.bucket(us(time)), (us(start), us(end)));
        assert_eq!(calendar.bucket(us(start)), (us(start), us(end)), "the start is in it");
        assert_eq!(calendar.bucket(us(end) - 1), (us(start), us(end)), "the end is not");
        assert_eq!(calendar.bucket(us(end)).0, us(end));
    }

    /// Whatever a zone's clock did: disjoint, no gaps, in order.
    #[rstest]
    fn buckets_have_no_gaps(
        #[values(
            "Europe/Berlin",
            "America/St_Johns",
            "America/Havana",
            "Pacific/Apia",
            "Africa/Casablanca",
            "Asia/Kolkata"
        )]
        name: &str,
        #[values(DAY, WEEK, Unit::Months(1))] unit: Unit,
    ) {
        let calendar = Calendar::new(unit, zone(name).unwrap());
        let mut bucket = calendar.bucket(us("1980-01-01T00:00:00Z"));
        while bucket.1 < us("2030-01-01T00:00:00Z") {
            let next = calendar.bucket(bucket.1);
            assert_eq!(next.0, bucket.1, "{name}");
            assert!(next.1 > next.0);
            bucket = next;
        }
    }

    #[test]
    fn hours_follow_the_clock() {
        let kolkata = zone("Asia/Kolkata").unwrap();
        let hour = of_the_clock(kolkata, 3_600_000_000, us("2024-01-01T00:40:00Z"));
        assert_eq!(hour, us("2024-01-01T00:30:00Z"));
    }

    #[test]
    fn times_beyond_any_calendar_have_a_bucket() {
        let calendar = Calendar::new(DAY, zone("Europe/Berlin").unwrap());
        for time_us in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
            let _ = calendar.bucket(time_us);
        }
    }
}
