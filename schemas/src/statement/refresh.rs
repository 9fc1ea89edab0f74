//! `REFRESH CRON | EVERY | MANUAL | NEVER`: when batch recomputes a view.

use super::cursor::Cursor;
use super::interval::interval;
use crate::problem::{Code, Problem};
use crate::view::Refresh;

/// The shortest `REFRESH EVERY`, microseconds.
const EVERY_LEAST_US: i64 = 1_000_000;

/// What follows `REFRESH`.
pub(super) fn refresh(cursor: &mut Cursor<'_, '_>) -> Result<Refresh, Problem> {
    if cursor.take(&["CRON"]) {
        return cron(cursor);
    }
    if cursor.take(&["EVERY"]) {
        return Ok(Refresh::Every { interval_us: interval(cursor, EVERY_LEAST_US)? });
    }
    if cursor.take(&["MANUAL"]) {
        return Ok(Refresh::Manual);
    }
    if cursor.take(&["NEVER"]) {
        return Ok(Refresh::Never);
    }
    let known = ["CRON", "EVERY", "MANUAL", "NEVER"];
    Err(cursor.expected_one_of("CRON '…', EVERY INTERVAL '…', MANUAL or NEVER", &known))
}

fn cron(cursor: &mut Cursor<'_, '_>) -> Result<Refresh, Problem> {
    let position = cursor.position();
    let expression = cursor.string("a cron text like '0 3 * * *'")?;
    if let Some(wrong) = cron_error(&expression) {
        let problem = cursor.problem_at(position, Code::InvalidSql, wrong);
        return Err(problem.with_hint("write minute hour day month weekday: '0 3 * * *' is every day at 03:00"));
    }
    let mut time_zone = "UTC".to_owned();
    if cursor.take(&["TIME", "ZONE"]) {
        let position = cursor.position();
        time_zone = cursor.string("a time zone like 'Europe/Berlin'")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+');
        if time_zone.is_empty() || time_zone.len() > 64 || !time_zone.chars().all(is_name) {
            let problem = cursor.problem_at(position, Code::InvalidSql, "this is not the name of a time zone");
            return Err(problem.with_hint("write an IANA name like 'Europe/Berlin' or 'UTC'"));
        }
    }
    Ok(Refresh::Cron { expression, time_zone })
}

/// What is wrong with the shape of a cron text. What the fields mean is checked by the batch layer.
fn cron_error(expression: &str) -> Option<String> {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    if !(5..=7).contains(&fields.len()) {
        return Some(format!("a cron text has five fields, this one has {}", fields.len()));
    }
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | '/' | ',' | '-' | '?' | '#');
    let wrong = fields.into_iter().find(|field| !field.chars().all(belongs));
    wrong.map(|field| format!("{field:?} is not a field of a cron text"))
}
