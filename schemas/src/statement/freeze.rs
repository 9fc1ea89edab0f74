//! `FREEZE FROM table (column) ON key = column`: a column that is looked up when a record comes in.

use sqlparser::tokenizer::Token;
use uuid::Uuid;

use super::columns::{Columns, Declared};
use super::cursor::{Cursor, with_guess};
use super::names;
use crate::frozen::Frozen;
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};

/// The clause of one column.
pub(super) struct Freeze {
    position: SqlPosition,
    table: String,
    source: String,
    key: String,
    table_key: String,
}

/// What follows `FREEZE`, which stands at `position`.
pub(super) fn freeze(cursor: &mut Cursor<'_, '_>, position: SqlPosition) -> Result<Freeze, Problem> {
    cursor.expect(&["FROM"])?;
    let table = names::object(cursor, "a table name")?;
    cursor.expect_symbol(&Token::LParen)?;
    let source = names::identifier(cursor, "a column of the table")?;
    cursor.expect_symbol(&Token::RParen)?;
    cursor.expect(&["ON"])?;
    let key = names::identifier(cursor, "a column of the stream")?;
    let table_key =
        if cursor.take_symbol(&Token::Eq) { names::identifier(cursor, "a column of the table")? } else { key.clone() };
    Ok(Freeze { position, table, source, key, table_key })
}

/// The clauses of all columns as one: they look the same key up in the same table. `time` is the event time.
pub(super) fn resolve(
    cursor: &Cursor<'_, '_>,
    list: &Columns,
    (primary_key, time): (&[String], Option<&str>),
) -> Result<Option<Frozen>, Problem> {
    let mut frozen: Option<Frozen> = None;
    for declared in &list.declared {
        let Some(clause) = &declared.freeze else { continue };
        let name = &declared.column.name;
        let refuse = |detail: String, hint: &str| {
            Err(cursor.problem_at(clause.position, Code::Unsupported, detail).with_hint(hint))
        };
        if !declared.column.nullable || primary_key.contains(name) || time == Some(name) {
            let hint = "leave NOT NULL out; a key and an event time come from the record itself";
            return refuse(format!("column {name}: what is looked up may not be there"), hint);
        }
        check_key(cursor, list, clause)?;
        let filled = (name.clone(), clause.source.clone());
        match &mut frozen {
            None => {
                let (name, key, table_key) = (clause.table.clone(), clause.key.clone(), clause.table_key.clone());
                frozen = Some(Frozen { table: Uuid::nil(), name, key, table_key, columns: vec![filled] });
            }
            Some(known) if is_same(known, clause) => known.columns.push(filled),
            Some(known) => {
                let detail = format!("column {name}: another column is looked up in {} by {}", known.name, known.key);
                return refuse(detail, "one table can be looked up, by one column: join others in the views");
            }
        }
    }
    Ok(frozen)
}

fn is_same(known: &Frozen, clause: &Freeze) -> bool {
    (&known.name, &known.key, &known.table_key) == (&clause.table, &clause.key, &clause.table_key)
}

/// The column that is looked up is the record's own.
fn check_key(cursor: &Cursor<'_, '_>, list: &Columns, clause: &Freeze) -> Result<(), Problem> {
    let known = |declared: &&Declared| declared.column.name == clause.key;
    match list.declared.iter().find(known) {
        None => {
            let detail = format!("there is no column {}", clause.key);
            let problem = cursor.problem_at(clause.position, Code::NotFound, detail);
            let names = list.declared.iter().map(|declared| declared.column.name.as_str());
            Err(with_guess(problem, did_you_mean(&clause.key, names)))
        }
        Some(declared) if declared.freeze.is_some() => {
            let detail = format!("column {} is looked up itself", clause.key);
            Err(cursor.problem_at(clause.position, Code::Unsupported, detail))
        }
        Some(_) => Ok(()),
    }
}
