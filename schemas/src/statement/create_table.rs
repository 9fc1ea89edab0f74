//! `CREATE TABLE … FROM FILE`: a static table.

use super::columns::columns;
use super::cursor::Cursor;
use super::options::options;
use super::{CreateTable, names};
use crate::column::SqlType;
use crate::problem::{Code, Problem};
use crate::view::TableJoin;

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
    let list = columns(cursor)?;
    if let Some(column) = list.key.iter().flatten().next() {
        let problem = cursor.problem_at(column.position, Code::Unsupported, "a static table has no PRIMARY KEY");
        return Err(problem.with_hint("write NOT NULL"));
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
        let problem = cursor.expected("FROM FILE '…'");
        return Err(problem.with_hint("a table is loaded from a file; what grows is a CREATE STREAM"));
    }
    if cursor.is_at(&["WITH"]) {
        let problem =
            cursor.problem(Code::Unsupported, "CREATE TABLE … WITH: a table is loaded once, and does not grow");
        return Err(problem.with_hint("write CREATE STREAM … WITH (…) for what grows, FROM FILE '…' for a table"));
    }
    cursor.expect(&["FROM", "FILE"])?;
    let position = cursor.position();
    let file = cursor.string("a file name like 'ads.csv'")?;
    if file.is_empty() || file.contains('\0') {
        return Err(cursor.problem_at(position, Code::InvalidSql, "the file name is empty or has a null character"));
    }
    let mut join = TableJoin::Late;
    if cursor.take(&["WITH"]) {
        for option in options(cursor, &["join"])? {
            join = option.one_of(cursor, &TableJoin::ALL, TableJoin::as_str)?;
        }
    }
    cursor.finish()?;
    let columns = list.declared.into_iter().map(|declared| declared.column).collect();
    Ok(CreateTable { name, if_not_exists, or_replace, join, columns, file })
}
