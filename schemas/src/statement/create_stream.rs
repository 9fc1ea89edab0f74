//! `CREATE STREAM`: reads it and checks it.

use super::columns::{Columns, Named, columns};
use super::cursor::{Cursor, with_guess};
use super::options::{SqlOption, options};
use super::{CreateStream, freeze, names};
use crate::column::{RECEIVED_TIME, SqlType, time_columns};
use crate::frozen::version_column;
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};
use crate::stream::{LatePolicy, OnBadData};
use crate::transport::{LogKind, RecordFormat, TopicSource, Transport};

/// Partitions of a stream that does not say.
const PARTITIONS_DEFAULT: u32 = 4;
/// How long an id is remembered where the stream does not say: 24 hours.
const DEDUP_HORIZON_DEFAULT_US: i64 = 24 * 3_600_000_000;
const OPTIONS: [&str; 10] = [
    "partitions",
    "dedup_horizon",
    "late",
    "on_bad_data",
    "time_correction",
    "connector",
    "topic",
    "brokers",
    "format",
    "log",
];

/// What a stream's views do with late events unless they say it themselves.
const POLICIES: [LatePolicy; 3] = [LatePolicy::Include, LatePolicy::Side, LatePolicy::Drop];

/// What follows `CREATE STREAM`.
pub(super) fn create_stream(cursor: &mut Cursor<'_, '_>) -> Result<CreateStream, Problem> {
    let if_not_exists = names::if_not_exists(cursor);
    let name = names::object(cursor, "a stream name")?;
    if cursor.is_at(&["AS"]) {
        let problem =
            cursor.problem(Code::Unsupported, "CREATE STREAM … AS is not supported: events come in from outside");
        return Err(problem.with_hint("a query that is kept up to date is a CREATE MATERIALIZED VIEW … AS"));
    }
    let mut list = columns(cursor)?;
    let primary_key = resolve_key(cursor, &mut list)?;
    let (time_column, watermark_delay_us) = resolve_watermark(cursor, &mut list)?;
    let frozen = freeze::resolve(cursor, &list, (&primary_key, time_column.as_deref()))?;
    let mut stream = CreateStream {
        name,
        if_not_exists,
        columns: list.declared.into_iter().map(|declared| declared.column).collect(),
        primary_key,
        time_column,
        watermark_delay_us,
        partitions: PARTITIONS_DEFAULT,
        partitions_given: false,
        dedup_horizon_us: DEDUP_HORIZON_DEFAULT_US,
        late: LatePolicy::default(),
        on_bad_data: OnBadData::default(),
        transport: Transport { frozen, ..Transport::default() },
    };
    if cursor.take(&["WITH"]) {
        set_options(cursor, &mut stream)?;
    } else if !cursor.is_done() {
        return Err(cursor.expected_one_of("WITH (…) or the end of the statement", &["WITH"]));
    }
    cursor.finish()?;
    if stream.transport.frozen.is_some() {
        stream.columns.push(version_column());
    }
    Ok(stream)
}

fn set_options(cursor: &mut Cursor<'_, '_>, stream: &mut CreateStream) -> Result<(), Problem> {
    let options = options(cursor, &OPTIONS)?;
    for option in &options {
        match option.name() {
            "partitions" => {
                stream.partitions = option.partitions(cursor)?;
                stream.partitions_given = true;
            }
            "dedup_horizon" => stream.dedup_horizon_us = option.interval_us(cursor)?,
            "late" => stream.late = option.late(cursor, &POLICIES)?,
            "on_bad_data" => stream.on_bad_data = option.on_bad_data(cursor)?,
            "time_correction" if option.switch(cursor)? => correct_time(cursor, stream, option.position())?,
            _ => {}
        }
        if stream.late.leaves_out() && stream.time_column.is_none() {
            let policy = stream.late.as_str();
            let detail = format!("late = '{policy}' without a watermark: nothing says which events are late");
            let problem = cursor.problem_at(option.position(), Code::InvalidSql, detail);
            return Err(problem.with_hint("add WATERMARK FOR event_time AS event_time - INTERVAL '15 minutes'"));
        }
    }
    stream.transport = Transport { frozen: stream.transport.frozen.take(), ..transport(cursor, &options)? };
    check_transport(cursor, &options, stream)
}

/// Where records come from, and where the log is.
fn transport(cursor: &Cursor<'_, '_>, options: &[SqlOption]) -> Result<Transport, Problem> {
    let mut transport = Transport::default();
    let mut topic = None;
    for option in options {
        match option.name() {
            "connector" => option.word(cursor, &["kafka"])?,
            "format" => option.word(cursor, &[RecordFormat::Json.as_str()])?,
            "topic" => topic = Some(option.topic(cursor)?),
            "brokers" => transport.brokers = Some(option.brokers(cursor)?),
            "log" => {
                option.word(cursor, &[LogKind::Embedded.as_str(), LogKind::Kafka.as_str()])?;
                transport.log = if option.is(LogKind::Kafka.as_str()) { LogKind::Kafka } else { LogKind::Embedded };
            }
            _ => {}
        }
    }
    transport.source = topic.map(|topic| TopicSource { topic, format: RecordFormat::Json });
    Ok(transport)
}

/// Options that mean nothing without another one, or against it.
fn check_transport(cursor: &Cursor<'_, '_>, options: &[SqlOption], stream: &CreateStream) -> Result<(), Problem> {
    let given = |name: &str| options.iter().find(|option| option.name() == name);
    let refuse = |option: &SqlOption, detail: &str, hint: &str| {
        Err(cursor.problem_at(option.position(), Code::InvalidSql, detail).with_hint(hint))
    };
    let corrects = stream.columns.iter().any(|column| column.name == RECEIVED_TIME);
    let corrected = given("time_correction").filter(|_| corrects);
    let uses_kafka = given("connector").is_some() || stream.transport.log == LogKind::Kafka;
    match (given("connector"), given("topic"), given("format"), given("brokers"), given("log")) {
        (Some(connector), None, ..) => {
            refuse(connector, "connector = 'kafka' without a topic", "add topic = '…': the topic to read")
        }
        (None, Some(option), ..) | (None, None, Some(option), ..) => {
            let detail = format!("option {} without a connector", option.name());
            refuse(option, &detail, "add connector = 'kafka'")
        }
        (Some(_), _, _, _, Some(log)) if stream.transport.log == LogKind::Kafka => {
            let hint = "leave log out: what was read is kept in the data folder, and the topic keeps its own copy";
            refuse(log, "log = 'kafka' of a stream that is read from a topic", hint)
        }
        (_, _, _, Some(brokers), _) if !uses_kafka => {
            refuse(brokers, "option brokers, and nothing that uses them", "add connector = 'kafka' or log = 'kafka'")
        }
        (Some(_), ..) if corrected.is_some() => {
            let hint = "leave it out: a record of a topic does not say when it was sent";
            corrected
                .map_or(Ok(()), |option| refuse(option, "time_correction of a stream that is read from a topic", hint))
        }
        (Some(_), ..) => match given("on_bad_data") {
            Some(option) if stream.on_bad_data == OnBadData::Reject => {
                let hint = "leave it out: bad records go to the dead letters with their topic, partition and offset";
                refuse(option, "on_bad_data = 'reject' of a topic: there is nobody to refuse a record to", hint)
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
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
        if matches!(require(cursor, list, &column, "the primary key")?, SqlType::Array(_)) {
            let detail = format!("column {} is an array, which cannot be a part of the primary key", column.name);
            let problem = cursor.problem_at(column.position, Code::Unsupported, detail);
            return Err(problem.with_hint("use a column of one value, or leave the key out"));
        }
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
