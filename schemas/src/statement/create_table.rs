//! `CREATE TABLE … FROM …`: rows that are loaded as a whole.

use super::columns::{Columns, columns};
use super::cursor::{Cursor, with_guess};
use super::options::{SqlOption, options};
use super::refresh::refresh;
use super::table_source::table_source;
use super::{CreateTable, names};
use crate::column::SqlType;
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};
use crate::table::{TableSource, Validity};
use crate::view::{Refresh, TableJoin};

/// What follows `CREATE [OR REPLACE] TABLE`.
pub(super) fn create_table(cursor: &mut Cursor<'_, '_>, or_replace: bool) -> Result<CreateTable, Problem> {
    let position = cursor.position();
    let if_not_exists = names::if_not_exists(cursor);
    if or_replace && if_not_exists {
        let detail = "OR REPLACE and IF NOT EXISTS exclude each other";
        return Err(cursor.problem_at(position, Code::SyntaxError, detail));
    }
    let name = names::object(cursor, "a table name")?;
    if cursor.is_at(&["AS"]) {
        let problem = cursor.problem(Code::Unsupported, "CREATE TABLE … AS is not supported");
        return Err(problem.with_hint("a query that is kept up to date is a CREATE MATERIALIZED VIEW … AS"));
    }
    let mut list = columns(cursor)?;
    if let Some(frozen) = list.declared.iter().find(|declared| declared.freeze.is_some()) {
        let problem = cursor.problem_at(frozen.position, Code::Unsupported, "a static table looks nothing up");
        return Err(problem.with_hint("FREEZE FROM … is a clause of the columns of a CREATE STREAM"));
    }
    if let Some(watermark) = &list.watermark {
        let detail = "a static table has no WATERMARK";
        let problem = cursor.problem_at(watermark.column.position, Code::Unsupported, detail);
        return Err(problem.with_hint("what has an event time is a CREATE STREAM"));
    }
    if let Some(array) = list.declared.iter().find(|declared| matches!(declared.column.sql_type, SqlType::Array(_))) {
        let detail = format!("column {}: a static table has no arrays", array.column.name);
        let problem = cursor.problem_at(array.position, Code::Unsupported, detail);
        return Err(problem.with_hint("give each item a row of its own"));
    }
    if cursor.is_done() {
        let problem = cursor.expected("FROM FILE '…', FROM URL '…' or FROM POSTGRES '…'");
        return Err(problem.with_hint("a table is loaded from somewhere; what grows is a CREATE STREAM"));
    }
    if cursor.is_at(&["WITH"]) {
        let problem =
            cursor.problem(Code::Unsupported, "CREATE TABLE … WITH: a table is loaded as a whole, and does not grow");
        return Err(problem.with_hint("write CREATE STREAM … WITH (…) for what grows, FROM FILE '…' for a table"));
    }
    let source = table_source(cursor)?;
    let Clauses { refresh_us, join, valid_from, valid_to } = clauses(cursor, &source)?;
    let validity = validity(cursor, &mut list, valid_from, valid_to)?;
    let columns = list.declared.into_iter().map(|declared| declared.column).collect();
    Ok(CreateTable { name, if_not_exists, or_replace, join, validity, columns, source, refresh_us })
}

/// What may stand behind the source.
#[derive(Default)]
struct Clauses {
    refresh_us: Option<i64>,
    join: TableJoin,
    valid_from: Option<SqlOption>,
    valid_to: Option<SqlOption>,
}

/// `REFRESH …` and `WITH (…)` in any order, up to the end.
fn clauses(cursor: &mut Cursor<'_, '_>, source: &TableSource) -> Result<Clauses, Problem> {
    let mut clauses = Clauses { join: TableJoin::Late, ..Clauses::default() };
    let (mut refreshed, mut with_seen) = (None, false);
    while !cursor.is_done() {
        let position = cursor.position();
        let twice = if cursor.take(&["REFRESH"]) {
            clauses.refresh_us = every(cursor, position, source)?;
            refreshed.replace(position).is_some()
        } else if cursor.take(&["WITH"]) {
            for option in options(cursor, &["join", "valid_from", "valid_to"])? {
                match option.name() {
                    "valid_from" => clauses.valid_from = Some(option),
                    "valid_to" => clauses.valid_to = Some(option),
                    _ => clauses.join = option.one_of(cursor, &TableJoin::ALL, TableJoin::as_str)?,
                }
            }
            std::mem::replace(&mut with_seen, true)
        } else {
            return Err(cursor.expected_one_of("REFRESH, WITH or the end of the statement", &["REFRESH", "WITH"]));
        };
        if twice {
            return Err(cursor.problem_at(position, Code::SyntaxError, "REFRESH or WITH stands here twice"));
        }
    }
    if let Some(position) = refreshed.filter(|_| clauses.refresh_us.is_some() && clauses.join == TableJoin::Pinned) {
        let detail = "REFRESH of a table that is pinned: it has one version for as long as a view joins it";
        let problem = cursor.problem_at(position, Code::InvalidSql, detail);
        return Err(problem.with_hint("leave REFRESH out, or create the table WITH (join = 'late')"));
    }
    Ok(clauses)
}

/// `EVERY INTERVAL '…'` or `MANUAL`, behind `REFRESH`.
fn every(cursor: &mut Cursor<'_, '_>, at: SqlPosition, source: &TableSource) -> Result<Option<i64>, Problem> {
    match refresh(cursor)? {
        Refresh::Manual => Ok(None),
        Refresh::Every { interval_us } if source.is_read_by_the_server() => Ok(Some(interval_us)),
        Refresh::Every { .. } => {
            let detail = "REFRESH of a table FROM FILE: the file was sent, the server cannot read it again";
            let problem = cursor.problem_at(at, Code::InvalidSql, detail);
            Err(problem
                .with_hint("send it again with CREATE OR REPLACE TABLE, or load the table FROM URL or FROM POSTGRES"))
        }
        Refresh::Cron { .. } | Refresh::Never => {
            let problem =
                cursor.problem_at(at, Code::Unsupported, "a table is refreshed at intervals, or when it is said");
            Err(problem.with_hint("write REFRESH EVERY INTERVAL '10 minutes', or leave it out and say REFRESH TABLE"))
        }
    }
}

/// When each row is valid, by the options and the key of the list.
fn validity(
    cursor: &Cursor<'_, '_>,
    list: &mut Columns,
    from: Option<SqlOption>,
    to: Option<SqlOption>,
) -> Result<Option<Validity>, Problem> {
    let keyed = list.key.take().unwrap_or_default();
    let Some(from) = from else {
        if let Some(to) = to {
            let problem = cursor.problem_at(to.position(), Code::InvalidSql, "option valid_to without valid_from");
            return Err(problem.with_hint("add valid_from = '…': the column that says from when on a row is valid"));
        }
        let Some(column) = keyed.first() else { return Ok(None) };
        let problem = cursor.problem_at(column.position, Code::Unsupported, "a static table has no PRIMARY KEY");
        return Err(
            problem.with_hint("write NOT NULL; rows that are valid from a time on have one: WITH (valid_from = '…')")
        );
    };
    time_column(cursor, list, &from, false)?;
    if let Some(to) = &to {
        time_column(cursor, list, to, true)?;
    }
    let mut key = vec![];
    for column in &keyed {
        let declared = list.declared.iter_mut().find(|declared| declared.column.name == column.name);
        let Some(declared) = declared else {
            let detail = format!("there is no column {}", column.name);
            return Err(cursor.problem_at(column.position, Code::NotFound, detail));
        };
        declared.column.nullable = false;
        key.push(column.name.clone());
    }
    let has_time = key.iter().any(|name| name == from.text());
    if has_time || (key.is_empty() && to.is_some()) {
        key.retain(|name| name != from.text());
        return Ok(Some(Validity { from: from.text().to_owned(), to: to.map(|to| to.text().to_owned()), key }));
    }
    let detail = format!("option valid_from: nothing says which rows follow each other in {}", from.text());
    let problem = cursor.problem_at(from.position(), Code::InvalidSql, detail);
    Err(problem.with_hint(format!("add PRIMARY KEY (…, {}): of rows of one key, one is valid at a time", from.text())))
}

/// The option names a declared point in time; the one that rows begin with is not null.
fn time_column(cursor: &Cursor<'_, '_>, list: &mut Columns, option: &SqlOption, nullable: bool) -> Result<(), Problem> {
    let refuse = |detail: String| cursor.problem_at(option.position(), Code::InvalidSql, detail);
    let (name, column) = (option.name(), option.text());
    let Some(declared) = list.declared.iter_mut().find(|declared| declared.column.name == column) else {
        let problem = refuse(format!("option {name}: there is no column {column}"));
        let known = list.declared.iter().map(|declared| declared.column.name.as_str());
        return Err(with_guess(problem, did_you_mean(column, known)));
    };
    if declared.column.sql_type != SqlType::TimestampTz {
        let problem = refuse(format!("option {name}: column {column} is {}", declared.column.sql_type.sql()));
        return Err(problem.with_hint(format!("declare {column} TIMESTAMPTZ")));
    }
    declared.column.nullable &= nullable;
    Ok(())
}
