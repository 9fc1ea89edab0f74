//! Points in time: buckets and texts, on the proleptic Gregorian calendar, UTC.

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// Year, month and day of a number of days since 1970-01-01, by counting.
fn civil(days: i64) -> (i64, i64, i64) {
    // 400 years have 146,097 days; inside of them years are counted one by one
    let mut year = 1970 + 400 * days.div_euclid(146_097);
    let mut rest = days.rem_euclid(146_097);
    while rest >= year_days(year) {
        rest -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn year_days(year: i64) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of the first day of a month, by counting.
fn days_until(year: i64, month: i64) -> i64 {
    let eras = (year - 1970).div_euclid(400);
    let years: i64 = (1970 + 400 * eras..year).map(year_days).sum();
    let months: i64 = (1..month).map(|month| month_days(year, month)).sum();
    eras * 146_097 + years + months
}

/// `date_trunc(unit, time)`
pub(super) fn truncate(unit: &str, time_us: i64) -> i64 {
    let days = time_us.div_euclid(DAY);
    let (year, month, day) = civil(days);
    match unit {
        "second" => bin(SECOND, 0, time_us),
        "minute" => bin(MINUTE, 0, time_us),
        "hour" => bin(HOUR, 0, time_us),
        "day" => days * DAY,
        // 1970-01-01 was a Thursday; weeks begin on Monday
        "week" => (days - (days + 3).rem_euclid(7)) * DAY,
        "month" => (days - day + 1) * DAY,
        "quarter" => days_until(year, (month - 1) / 3 * 3 + 1) * DAY,
        "year" => days_until(year, 1) * DAY,
        other => panic!("no unit {other}"),
    }
}

/// `date_bin(width, time, origin)`
pub(super) fn bin(width_us: i64, origin_us: i64, time_us: i64) -> i64 {
    time_us - (time_us - origin_us).rem_euclid(width_us)
}

/// `2024-01-31T12:00:00.000000Z`
pub(super) fn text(time_us: i64) -> String {
    let (year, month, day) = civil(time_us.div_euclid(DAY));
    let of_day = time_us.rem_euclid(DAY);
    let (hour, minute, second) = (of_day / HOUR, of_day / MINUTE % 60, of_day / SECOND % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", of_day % SECOND)
}

/// Reads back what [`text`] writes, whatever number of digits the fraction has.
pub(super) fn parse(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let days = days_until(number(0..4)?, number(5..7)?) + number(8..10)? - 1;
    let seconds = number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    let fraction: String = text.get(19..)?.trim_start_matches('.').trim_end_matches('Z').to_owned();
    let micros = format!("{fraction:0<6}").parse::<i64>().ok()?;
    Some(days * DAY + seconds * SECOND + micros)
}
