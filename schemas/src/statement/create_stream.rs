//! `CREATE STREAM`: reads it and checks it.

use super::columns::{Columns, Named, columns};
use super::cursor::{Cursor, with_guess};
use super::options::options;
use super::{CreateStream, names};
use crate::column::{SqlType, time_columns};
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};
use crate::stream::{LatePolicy, OnBadData};

/// Partitions of a stream that does not say.
const PARTITIONS_DEFAULT: u32 = 4;
/// How long an id is remembered where the stream does not say: 24 hours.
const DEDUP_HORIZON_DEFAULT_US: i64 = 24 * 3_600_000_000;
const OPTIONS: [&str; 5] = ["partitions", "dedup_horizon", "late", "on_bad_data", "time_correction"];

/// What follows `CREATE STREAM`.
pub(super) fn create_stream(cursor: &mut Cursor<'_, '_>) -> Result<CreateStream, Problem> {
    let if_not_exists = names::if_not_exists(cursor);
    let name = names::object(cursor, "a stream name")?;
    let mut list = columns(cursor)?;
    let primary_key = resolve_key(cursor, &mut list)?;
    let (time_column, watermark_delay_us) = resolve_watermark(cursor, &mut list)?;
    let mut stream = CreateStream {
        name,
        if_not_exists,
        columns: list.declared.into_iter().map(|declared| declared.column).collect(),
        primary_key,
        time_column,
        watermark_delay_us,
        partitions: PARTITIONS_DEFAULT,
        dedup_horizon_us: DEDUP_HORIZON_DEFAULT_US,
        late: LatePolicy::default(),
        on_bad_data: OnBadData::default(),
    };
    if cursor.take(&["WITH"]) {
        set_options(cursor, &mut stream)?;
    } else if !cursor.is_done() {
        return Err(cursor.expected_one_of("WITH (…) or the end of the statement", &["WITH"]));
    }
    cursor.finish()?;
    Ok(stream)
}

fn set_options(cursor: &mut Cursor<'_, '_>, stream: &mut CreateStream) -> Result<(), Problem> {
    for option in options(cursor, &OPTIONS)? {
        match option.name() {
            "partitions" => stream.partitions = option.partitions(cursor)?,
            "dedup_horizon" => stream.dedup_horizon_us = option.interval_us(cursor)?,
            "late" => stream.late = option.late(cursor)?,
            "time_correction" => {
                if option.switch(cursor)? {
                    correct_time(cursor, stream, option.position())?;
                }
            }
            _ => stream.on_bad_data = option.on_bad_data(cursor)?,
        }
        if stream.late == LatePolicy::Drop && stream.time_column.is_none() {
            let detail = "late = 'drop' without a watermark: nothing says which events are late";
            let problem = cursor.problem_at(option.position(), Code::InvalidSql, detail);
            return Err(problem.with_hint("add WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes'"));
        }
    }
    Ok(())
}

/// Adds the columns that say how event times were corrected.
fn correct_time(cursor: &Cursor<'_, '_>, stream: &mut CreateStream, at: SqlPosition) -> Result<(), Problem> {
    let Some(time) = &stream.time_column else {
        let detail = "time_correction without a watermark: nothing says which column is the event time";
        let problem = cursor.problem_at(at, Code::InvalidSql, detail);
        return Err(problem.with_hint("add WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes'"));
    };
    if stream.primary_key.contains(time) {
        let detail = format!("column {time} is in the key: an event that is sent again may get another corrected time");
        let problem = cursor.problem_at(at, Code::InvalidSql, detail);
        return Err(problem.with_hint("leave the event time out of PRIMARY KEY, or leave time_correction out"));
    }
    stream.columns.extend(time_columns());
    Ok(())
}

/// Key columns exist, once each, and are not null.
fn resolve_key(cursor: &Cursor<'_, '_>, list: &mut Columns) -> Result<Vec<String>, Problem> {
    let mut key = vec![];
    for column in list.key.take().unwrap_or_default() {
        if key.contains(&column.name) {
            let detail = format!("column {} is in the key twice", column.name);
            return Err(cursor.problem_at(column.position, Code::InvalidSql, detail));
        }
        require(cursor, list, &column, "the primary key")?;
        key.push(column.name);
    }
    Ok(key)
}

/// The time column exists, is a point in time, and is not null.
fn resolve_watermark(cursor: &Cursor<'_, '_>, list: &mut Columns) -> Result<(Option<String>, i64), Problem> {
    let Some(watermark) = list.watermark.take() else { return Ok((None, 0)) };
    let sql_type = require(cursor, list, &watermark.column, "the event time")?;
    if sql_type != SqlType::TimestampTz {
        let detail = format!("column {} is {}, an event time is TIMESTAMPTZ", watermark.column.name, sql_type.sql());
        let problem = cursor.problem_at(watermark.column.position, Code::InvalidSql, detail);
        return Err(problem.with_hint(format!("declare {} TIMESTAMPTZ", watermark.column.name)));
    }
    Ok((Some(watermark.column.name), watermark.delay_us))
}

/// Finds a column and makes it `NOT NULL`.
fn require(cursor: &Cursor<'_, '_>, list: &mut Columns, named: &Named, role: &str) -> Result<SqlType, Problem> {
    let Some(index) = list.declared.iter().position(|declared| declared.column.name == named.name) else {
        let problem = cursor.problem_at(named.position, Code::NotFound, format!("there is no column {}", named.name));
        let known = list.declared.iter().map(|declared| declared.column.name.as_str());
        return Err(with_guess(problem, did_you_mean(&named.name, known)));
    };
    let declared = &mut list.declared[index];
    if declared.explicit_null {
        let detail = format!("column {} is {role} and cannot be NULL", named.name);
        return Err(cursor.problem_at(declared.position, Code::InvalidSql, detail));
    }
    declared.column.nullable = false;
    Ok(declared.column.sql_type)
}
