//! The list in parentheses of `CREATE STREAM` and `CREATE TABLE`: columns, key, watermark.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::freeze::{Freeze, freeze};
use super::interval::interval;
use super::names;
use super::types::sql_type;
use crate::column::ColumnDef;
use crate::limits::COLUMNS_MAX;
use crate::problem::{Code, Problem, SqlPosition};

/// A name, and where it stands.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) position: SqlPosition,
}

/// A declared column, and where.
pub(super) struct Declared {
    pub(super) column: ColumnDef,
    pub(super) position: SqlPosition,
    /// `NULL` was written out.
    pub(super) explicit_null: bool,
    /// `FREEZE FROM …`
    pub(super) freeze: Option<Freeze>,
}

/// `WATERMARK FOR column AS column - INTERVAL '…'`
pub(super) struct Watermark {
    pub(super) column: Named,
    pub(super) delay_us: i64,
}

/// The list as written; names are not resolved yet.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) declared: Vec<Declared>,
    pub(super) key: Option<Vec<Named>>,
    pub(super) watermark: Option<Watermark>,
}

/// Reads the list with its parentheses.
pub(super) fn columns(cursor: &mut Cursor<'_, '_>) -> Result<Columns, Problem> {
    let mut list = Columns::default();
    let position = cursor.position();
    cursor.expect_symbol(&Token::LParen)?;
    loop {
        element(cursor, &mut list)?;
        if cursor.take_symbol(&Token::RParen) {
            break;
        }
        if !cursor.take_symbol(&Token::Comma) {
            return Err(cursor.expected_one_of("\",\" or \")\"", &["NOT", "NULL", "PRIMARY"]));
        }
    }
    if list.declared.is_empty() {
        return Err(cursor.problem_at(position, Code::InvalidSql, "there are no columns"));
    }
    Ok(list)
}

fn element(cursor: &mut Cursor<'_, '_>, list: &mut Columns) -> Result<(), Problem> {
    let position = cursor.position();
    let next_is_parenthesis = cursor.peek_at(1) == Some(&Token::LParen);
    if cursor.take(&["PRIMARY", "KEY"]) {
        return key(cursor, list, position);
    }
    if cursor.take(&["WATERMARK", "FOR"]) {
        return watermark(cursor, list, position);
    }
    let is_constraint = cursor.is_at(&["CONSTRAINT"]) || cursor.is_at(&["FOREIGN", "KEY"]);
    if is_constraint || (next_is_parenthesis && (cursor.is_at(&["UNIQUE"]) || cursor.is_at(&["CHECK"]))) {
        return Err(unsupported_constraint(cursor));
    }
    column(cursor, list)
}

fn column(cursor: &mut Cursor<'_, '_>, list: &mut Columns) -> Result<(), Problem> {
    let position = cursor.position();
    let name = names::new_column(cursor)?;
    // a Delta Lake table tells columns apart without regard to case
    let same = |other: &str| other.to_lowercase() == name.to_lowercase();
    if list.declared.iter().any(|declared| same(&declared.column.name)) {
        return Err(cursor.problem_at(position, Code::InvalidSql, format!("column {name} is declared twice")));
    }
    if list.declared.len() >= COLUMNS_MAX {
        return Err(cursor.problem_at(position, Code::InvalidSql, format!("more than {COLUMNS_MAX} columns")));
    }
    let sql_type = sql_type(cursor)?;
    let mut declared =
        Declared { column: ColumnDef { name, sql_type, nullable: true }, position, explicit_null: false, freeze: None };
    while !matches!(cursor.peek(), None | Some(Token::Comma | Token::RParen)) {
        constraint(cursor, list, &mut declared)?;
    }
    list.declared.push(declared);
    Ok(())
}

/// What may stand behind a column's type.
fn constraint(cursor: &mut Cursor<'_, '_>, list: &mut Columns, declared: &mut Declared) -> Result<(), Problem> {
    let position = cursor.position();
    if cursor.take(&["NOT"]) {
        cursor.expect(&["NULL"])?;
        declared.column.nullable = false;
        return Ok(());
    }
    if cursor.take(&["NULL"]) {
        declared.explicit_null = true;
        return Ok(());
    }
    if cursor.take(&["FREEZE"]) {
        declared.freeze = Some(freeze(cursor, position)?);
        return Ok(());
    }
    if cursor.take(&["PRIMARY", "KEY"]) {
        let name = declared.column.name.clone();
        return set_key(cursor, list, vec![Named { name, position }], position);
    }
    let known = ["DEFAULT", "UNIQUE", "CHECK", "REFERENCES", "GENERATED", "COLLATE", "CONSTRAINT"];
    if known.iter().any(|word| cursor.is_at(&[word])) {
        return Err(unsupported_constraint(cursor));
    }
    Err(cursor.expected_one_of("\",\", \")\", NOT NULL or PRIMARY KEY", &["NOT", "NULL", "PRIMARY"]))
}

fn unsupported_constraint(cursor: &Cursor<'_, '_>) -> Problem {
    let word = cursor.word_at(0).unwrap_or_default().to_uppercase();
    let problem = cursor.problem(Code::Unsupported, format!("{word} is not supported here"));
    problem.with_hint("columns take NOT NULL and PRIMARY KEY; a view's WHERE and expressions do the rest")
}

/// `PRIMARY KEY (a, b)` behind the first two words.
fn key(cursor: &mut Cursor<'_, '_>, list: &mut Columns, position: SqlPosition) -> Result<(), Problem> {
    let mut names = vec![];
    cursor.expect_symbol(&Token::LParen)?;
    loop {
        let position = cursor.position();
        names.push(Named { name: names::identifier(cursor, "a column name")?, position });
        if !cursor.take_symbol(&Token::Comma) {
            break;
        }
    }
    cursor.expect_symbol(&Token::RParen)?;
    set_key(cursor, list, names, position)
}

fn set_key(
    cursor: &Cursor<'_, '_>,
    list: &mut Columns,
    names: Vec<Named>,
    position: SqlPosition,
) -> Result<(), Problem> {
    if list.key.is_some() {
        let problem = cursor.problem_at(position, Code::InvalidSql, "there is more than one PRIMARY KEY");
        return Err(problem.with_hint("a key of several columns is written PRIMARY KEY (a, b)"));
    }
    list.key = Some(names);
    Ok(())
}

/// `column AS column [- INTERVAL '…']` behind `WATERMARK FOR`.
fn watermark(cursor: &mut Cursor<'_, '_>, list: &mut Columns, position: SqlPosition) -> Result<(), Problem> {
    if list.watermark.is_some() {
        return Err(cursor.problem_at(position, Code::InvalidSql, "there is more than one WATERMARK"));
    }
    let position = cursor.position();
    let name = names::identifier(cursor, "a column name")?;
    cursor.expect(&["AS"])?;
    let again = cursor.position();
    if names::identifier(cursor, "a column name")? != name {
        let detail = format!("the watermark of {name} must be {name}, or {name} minus an interval");
        let problem = cursor.problem_at(again, Code::InvalidSql, detail);
        return Err(problem.with_hint(format!("write WATERMARK FOR {name} AS {name} - INTERVAL '15 minutes'")));
    }
    let delay_us = if cursor.take_symbol(&Token::Minus) { interval(cursor, 0)? } else { 0 };
    list.watermark = Some(Watermark { column: Named { name, position }, delay_us });
    Ok(())
}
