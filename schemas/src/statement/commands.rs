//! Which statement stands here, and the short ones: `DROP`, `SHOW`, `REFRESH`, `ROLLBACK`, `EXPLAIN LAYERS`.

use super::copy::copy_from;
use super::create_sink::create_sink;
use super::create_stream::create_stream;
use super::create_table::create_table;
use super::create_view::create_view;
use super::cursor::{Cursor, with_guess};
use super::{ObjectKind, Statement, names, query, refused};
use crate::problem::{Problem, did_you_mean};

/// What `SHOW` shows.
pub(super) const SHOW_HINT: &str = "there are SHOW STREAMS, SHOW TABLES, SHOW MATERIALIZED VIEWS, SHOW SINKS, SHOW CREATE … \
                                    name, SHOW COLUMNS FROM name, SHOW ALL";
const FIRST_WORDS: [&str; 11] =
    ["SELECT", "WITH", "VALUES", "TABLE", "CREATE", "DROP", "SHOW", "REFRESH", "ROLLBACK", "EXPLAIN", "DESCRIBE"];
const KINDS: [&str; 5] = ["STREAM", "SOURCE", "TABLE", "MATERIALIZED", "SINK"];
const KINDS_SHOWN: &str = "STREAM, TABLE, MATERIALIZED VIEW or SINK";

/// Reads one statement.
pub(super) fn statement(cursor: &mut Cursor<'_, '_>) -> Result<Statement, Problem> {
    if query::begins(cursor) {
        query::check(cursor.script, cursor.rest(), cursor.position())?;
        return Ok(Statement::Query { sql: whole_text(cursor) });
    }
    if cursor.is_at(&["ROLLBACK", "MATERIALIZED"]) {
        return rollback(cursor);
    }
    let third = cursor.word_at(2).is_some_and(|word| word.eq_ignore_ascii_case("from"));
    if third && cursor.take(&["COPY"]) {
        return Ok(Statement::Copy(copy_from(cursor)?));
    }
    if let Some(problem) = refused::statement(cursor) {
        return Err(problem);
    }
    match cursor.word_at(0).map(str::to_ascii_uppercase).as_deref() {
        Some("CREATE") => create(cursor),
        Some("DROP") => drop_object(cursor),
        Some("SHOW") => show(cursor),
        Some("REFRESH") => refresh(cursor),
        Some("ROLLBACK") => rollback(cursor),
        Some("EXPLAIN") => explain(cursor),
        Some("DESCRIBE" | "DESC") => {
            cursor.advance();
            query::describe(cursor)?;
            Ok(Statement::Query { sql: whole_text(cursor) })
        }
        _ => Err(cursor.expected_one_of("a statement", &FIRST_WORDS)),
    }
}

fn whole_text(cursor: &Cursor<'_, '_>) -> String {
    text_of(cursor, cursor.all())
}

fn text_of(cursor: &Cursor<'_, '_>, tokens: &[usize]) -> String {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => cursor.script.text_between(*first, *last).to_owned(),
        _ => String::new(),
    }
}

fn create(cursor: &mut Cursor<'_, '_>) -> Result<Statement, Problem> {
    cursor.advance();
    let or_replace = cursor.take(&["OR", "REPLACE"]);
    if cursor.take(&["MATERIALIZED", "VIEW"]) {
        return Ok(Statement::CreateView(create_view(cursor, or_replace)?));
    }
    if cursor.take(&["TABLE"]) {
        return Ok(Statement::CreateTable(create_table(cursor, or_replace)?));
    }
    if or_replace {
        let words = &["MATERIALIZED", "TABLE"];
        return Err(cursor.expected_one_of("MATERIALIZED VIEW or TABLE behind OR REPLACE", words));
    }
    if cursor.take(&["STREAM"]) || cursor.take(&["SOURCE"]) {
        return Ok(Statement::CreateStream(create_stream(cursor)?));
    }
    if cursor.take(&["SINK"]) {
        return Ok(Statement::CreateSink(create_sink(cursor)?));
    }
    Err(cursor.expected_one_of(KINDS_SHOWN, &KINDS))
}

/// `STREAM`, `SOURCE`, `TABLE`, `MATERIALIZED VIEW` or `SINK`.
fn kind(cursor: &mut Cursor<'_, '_>) -> Result<ObjectKind, Problem> {
    if cursor.take(&["STREAM"]) || cursor.take(&["SOURCE"]) {
        return Ok(ObjectKind::Stream);
    }
    if cursor.take(&["TABLE"]) {
        return Ok(ObjectKind::Table);
    }
    if cursor.take(&["MATERIALIZED", "VIEW"]) {
        return Ok(ObjectKind::View);
    }
    if cursor.take(&["SINK"]) {
        return Ok(ObjectKind::Sink);
    }
    if cursor.is_at(&["VIEW"]) {
        return Err(cursor.expected(KINDS_SHOWN).with_hint("write MATERIALIZED VIEW"));
    }
    Err(cursor.expected_one_of(KINDS_SHOWN, &KINDS))
}

fn drop_object(cursor: &mut Cursor<'_, '_>) -> Result<Statement, Problem> {
    cursor.advance();
    let kind = kind(cursor)?;
    let if_exists = cursor.take(&["IF", "EXISTS"]);
    let name = names::object(cursor, "a name")?;
    cursor.finish()?;
    Ok(Statement::Drop { kind, name, if_exists })
}

fn show(cursor: &mut Cursor<'_, '_>) -> Result<Statement, Problem> {
    for (words, kind) in [
        (&["SHOW", "STREAMS"][..], ObjectKind::Stream),
        (&["SHOW", "SOURCES"], ObjectKind::Stream),
        (&["SHOW", "TABLES"], ObjectKind::Table),
        (&["SHOW", "MATERIALIZED", "VIEWS"], ObjectKind::View),
        (&["SHOW", "SINKS"], ObjectKind::Sink),
    ] {
        if cursor.take(words) {
            cursor.finish()?;
            return Ok(Statement::Show(kind));
        }
    }
    if cursor.take(&["SHOW", "CREATE"]) {
        let kind = kind(cursor)?;
        let name = names::object(cursor, "a name")?;
        cursor.finish()?;
        return Ok(Statement::ShowCreate { kind, name });
    }
    if let Some(problem) = mistaken_show(cursor) {
        return Err(problem);
    }
    query::show(cursor)?;
    Ok(Statement::Query { sql: whole_text(cursor) })
}

/// A `SHOW` that is nearly one of ours.
fn mistaken_show(cursor: &mut Cursor<'_, '_>) -> Option<Problem> {
    let word = cursor.word_at(1).unwrap_or_default().to_ascii_uppercase();
    let meant = match word.as_str() {
        "ALL" | "COLUMNS" | "FUNCTIONS" => return None,
        "VIEW" | "VIEWS" | "MATERIALIZED" => Some("MATERIALIZED VIEWS".to_owned()),
        word => did_you_mean(word, ["STREAMS", "SOURCES", "TABLES", "CREATE", "MATERIALIZED", "SINKS"]),
    };
    if word.is_empty() || meant.is_some() {
        cursor.advance();
        let problem = cursor.expected("something to show");
        return Some(if meant.is_some() { with_guess(problem, meant) } else { problem.with_hint(SHOW_HINT) });
    }
    None
}

fn refresh(cursor: &mut Cursor<'_, '_>) -> Result<Statement, Problem> {
    if cursor.take(&["REFRESH", "TABLE"]) {
        let name = names::object(cursor, "a table name")?;
        cursor.finish()?;
        return Ok(Statement::RefreshTable { name });
    }
    cursor.expect(&["REFRESH", "MATERIALIZED", "VIEW"])?;
    let name = names::object(cursor, "a view name")?;
    let incremental = cursor.take(&["INCREMENTAL"]);
    if !incremental && !cursor.take(&["FULL"]) && !cursor.is_done() {
        return Err(cursor.expected_one_of("FULL, INCREMENTAL or the end of the statement", &["FULL", "INCREMENTAL"]));
    }
    cursor.finish()?;
    Ok(Statement::Refresh { name, incremental })
}

fn rollback(cursor: &mut Cursor<'_, '_>) -> Result<Statement, Problem> {
    if cursor.rest().len() == 1 || cursor.is_at(&["ROLLBACK", "TO"]) || cursor.is_at(&["ROLLBACK", "TRANSACTION"]) {
        cursor.advance();
        let problem = cursor.expected("MATERIALIZED VIEW name TO RUN number");
        return Err(problem.with_hint("there are no transactions: every statement is carried out by itself"));
    }
    cursor.expect(&["ROLLBACK", "MATERIALIZED", "VIEW"])?;
    let name = names::object(cursor, "a view name")?;
    cursor.expect(&["TO", "RUN"])?;
    let run = cursor.whole_number("the number of a run")?;
    cursor.finish()?;
    Ok(Statement::Rollback { name, run })
}

fn explain(cursor: &mut Cursor<'_, '_>) -> Result<Statement, Problem> {
    cursor.advance();
    if cursor.take(&["LAYERS"]) {
        query::check(cursor.script, cursor.rest(), cursor.position())?;
        return Ok(Statement::ExplainLayers { sql: text_of(cursor, cursor.rest()) });
    }
    query::explain(cursor)?;
    Ok(Statement::Query { sql: whole_text(cursor) })
}
