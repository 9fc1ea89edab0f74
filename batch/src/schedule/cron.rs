//! Cron expressions as `crontab(5)` has them: five fields, Sunday is 0 and 7, and if both the day of the
//! month and the day of the week are given, either one is enough.
//!
//! The `cron` crate has a field of seconds, numbers the days of the week from 1, and wants both days:
//! here the expression is turned into one or two of its kind.

use std::collections::BTreeSet;
use std::str::FromStr;

use chrono::{DateTime, TimeZone, Utc};
use chrono_tz::Tz;
use schemas::{Code, Problem};

/// Names of the days, from Sunday.
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// Candidates that are looked at: a repeated hour yields times that have passed.
const CANDIDATES_MAX: usize = 10_000;

/// A parsed expression in its time zone.
#[derive(Debug)]
pub(super) struct CronSchedule {
    /// Any of them is enough.
    schedules: Vec<cron::Schedule>,
    zone: Tz,
}

impl CronSchedule {
    pub(super) fn parse(expression: &str, time_zone: &str) -> Result<Self, Problem> {
        let invalid = |reason: &str| {
            let hint = "five fields: minute, hour, day of the month, month, day of the week; for example '0 3 * * *'";
            Problem::new(Code::InvalidSql, format!("REFRESH CRON '{expression}': {reason}")).with_hint(hint)
        };
        let zone = Tz::from_str(time_zone).map_err(|_| {
            let problem = Problem::new(Code::InvalidSql, format!("REFRESH CRON: there is no time zone '{time_zone}'"));
            problem.with_hint("an IANA name, such as 'Europe/Berlin' or 'UTC'")
        })?;
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(invalid(&format!("{} fields", fields.len())));
        };
        let weekdays = weekdays(weekday).map_err(|reason| invalid(&reason))?;
        let days: Vec<(&str, &str)> = match (is_any(day), is_any(weekday)) {
            (_, true) => vec![(day, "*")],
            (true, false) => vec![("*", &weekdays)],
            (false, false) => vec![(day, "*"), ("*", &weekdays)],
        };
        let schedules = days.into_iter().map(|(day, weekday)| {
            let text = format!("0 {minute} {hour} {day} {month} {weekday}");
            cron::Schedule::from_str(&text).map_err(|error| invalid(error.to_string().trim_end_matches('.')))
        });
        let schedule = Self { schedules: schedules.collect::<Result<_, _>>()?, zone };
        if schedule.next_us(0).is_none() {
            return Err(invalid("no day is like that"));
        }
        Ok(schedule)
    }

    /// The first time after a given one.
    pub(super) fn next_us(&self, after_us: i64) -> Option<i64> {
        let after = Utc.timestamp_micros(after_us).single()?.with_timezone(&self.zone);
        self.schedules.iter().filter_map(|schedule| next(schedule, &after)).min()
    }
}

fn next(schedule: &cron::Schedule, after: &DateTime<Tz>) -> Option<i64> {
    let candidates = schedule.after(after).take(CANDIDATES_MAX);
    candidates.map(|time| time.timestamp_micros()).find(|time| *time > after.timestamp_micros())
}

fn is_any(field: &str) -> bool {
    field == "*" || field == "?"
}

/// A field of days of the week as a list of names.
fn weekdays(field: &str) -> Result<String, String> {
    let mut days = BTreeSet::new();
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, step.parse::<usize>().ok().filter(|step| *step > 0).ok_or(format!("step {step:?}"))?)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if is_any(range) => (0, 6),
            Some((from, to)) => (day_number(from)?, day_number(to)?),
            // `2/3` is `2-6/3`, as in Vixie's cron
            None if part.contains('/') => (day_number(range)?, 6),
            None => (day_number(range)?, day_number(range)?),
        };
        // Sunday at the end of a range is 7
        let to = if to == 0 && from > 0 { 7 } else { to };
        if from > to {
            return Err(format!("the days {range} run backwards"));
        }
        days.extend((from..=to).step_by(step).map(|day| day % 7));
    }
    Ok(days.into_iter().map(|day| DAYS[day]).collect::<Vec<_>>().join(","))
}

fn day_number(text: &str) -> Result<usize, String> {
    let upper = text.to_uppercase();
    let by_name = DAYS.iter().position(|day| upper.starts_with(day) && upper.len() <= 9);
    let number = by_name.or_else(|| text.parse().ok()).filter(|day| *day <= 7);
    number.ok_or_else(|| format!("there is no day of the week {text:?}"))
}
