//! Statements that only read: checked with `sqlparser`, handed on as they are.

use sqlparser::ast::{Query, SetExpr, Statement as Ast};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::cursor::{Cursor, with_guess};
use super::script::{DIALECT, Script, lower_first};
use super::{as_of, misread, names, refused, windows};
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};

/// Words whose slips of the pen are worth a guess.
const WORDS: [&str; 22] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "BY",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "JOIN",
    "LEFT",
    "INNER",
    "UNION",
    "DISTINCT",
    "BETWEEN",
    "INTERVAL",
    "FILTER",
    "OVER",
    "PARTITION",
    "VALUES",
    "WITH",
    "EXCEPT",
];

/// True if a query begins here.
pub(super) fn begins(cursor: &Cursor<'_, '_>) -> bool {
    let words = ["SELECT", "WITH", "VALUES", "TABLE"];
    words.iter().any(|word| cursor.is_at(&[word])) || cursor.peek() == Some(&Token::LParen)
}

/// Checks that these tokens are one query that only reads. `position` is where they begin.
pub(super) fn check(script: &Script<'_>, tokens: &[usize], position: SqlPosition) -> Result<(), Problem> {
    check_with(parser(script, tokens), script, tokens, position)
        .map_err(|problem| as_of::in_query(script, tokens).unwrap_or(problem))
}

/// The same of what a view is made from: there, tables may be joined as of a time.
pub(super) fn check_definition(script: &Script<'_>, tokens: &[usize], position: SqlPosition) -> Result<(), Problem> {
    let plain = as_of::plain_tokens(tokens_of(script, tokens));
    let parser = Parser::new(&DIALECT).with_tokens_with_locations(windows::plain_tokens(plain));
    check_with(parser, script, tokens, position)
}

fn check_with(
    mut parser: Parser<'static>,
    script: &Script<'_>,
    tokens: &[usize],
    position: SqlPosition,
) -> Result<(), Problem> {
    if tokens.is_empty() {
        let detail = "expected a query, found the end of the statement";
        return Err(Problem::new(Code::SyntaxError, detail).at(script.text, position));
    }
    let end = tokens.last().map_or(position, |last| script.position_after(*last));
    let parsed = parser.parse_query().and_then(|query| {
        let next = parser.peek_token();
        if next.token == Token::EOF { Ok(query) } else { parser.expected("the end of the statement", next) }
    });
    let query = parsed.map_err(|error| problem_of(script, tokens, &error, (position, end)))?;
    match writes(&query) {
        Some(what) => Err(refused::in_query(what).at(script.text, position)),
        None => misread::check(script, tokens).map_or(Ok(()), Err),
    }
}

/// `EXPLAIN [ANALYZE] [VERBOSE] [FORMAT f] query`, behind the first word.
pub(super) fn explain(cursor: &mut Cursor<'_, '_>) -> Result<(), Problem> {
    cursor.take(&["ANALYZE"]);
    cursor.take(&["VERBOSE"]);
    if cursor.take(&["FORMAT"]) {
        cursor.advance();
    }
    if begins(cursor) {
        return check(cursor.script, cursor.rest(), cursor.position());
    }
    if let Some(problem) = refused::statement(cursor) {
        return Err(problem);
    }
    Err(cursor.expected_one_of("a query", &WORDS))
}

/// `DESCRIBE [TABLE] name` or `DESCRIBE query`, behind the first word.
pub(super) fn describe(cursor: &mut Cursor<'_, '_>) -> Result<(), Problem> {
    if ["SELECT", "WITH", "VALUES"].iter().any(|word| cursor.is_at(&[word])) {
        return check(cursor.script, cursor.rest(), cursor.position());
    }
    cursor.take(&["TABLE"]);
    names::identifier(cursor, "a name")?;
    while cursor.take_symbol(&Token::Period) {
        names::identifier(cursor, "a name")?;
    }
    cursor.finish()
}

/// `SHOW …` of anything that is not ours, with its first word.
pub(super) fn show(cursor: &Cursor<'_, '_>) -> Result<(), Problem> {
    let mut parser = parser(cursor.script, cursor.all());
    let (start, end) = (cursor.position(), cursor.all().last().map(|last| cursor.script.position_after(*last)));
    let parsed = parser.parse_statement().and_then(|statement| match parser.peek_token() {
        next if next.token == Token::EOF => Ok(statement),
        next => parser.expected("the end of the statement", next),
    });
    match parsed {
        Ok(Ast::ShowVariable { .. } | Ast::ShowColumns { .. } | Ast::ShowFunctions { .. }) => Ok(()),
        Ok(_) => Err(cursor.problem(Code::Unsupported, "there is no such SHOW").with_hint(super::commands::SHOW_HINT)),
        Err(error) => Err(problem_of(cursor.script, cursor.all(), &error, (start, end.unwrap_or(start)))),
    }
}

fn parser(script: &Script<'_>, tokens: &[usize]) -> Parser<'static> {
    Parser::new(&DIALECT).with_tokens_with_locations(windows::plain_tokens(tokens_of(script, tokens)))
}

fn tokens_of(script: &Script<'_>, tokens: &[usize]) -> Vec<TokenWithSpan> {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => script.tokens[*first..=*last].to_vec(),
        _ => vec![],
    }
}

/// The first thing in a query that would write. The planner checks subqueries again.
fn writes(query: &Query) -> Option<&'static str> {
    if !query.locks.is_empty() {
        return Some("FOR UPDATE");
    }
    let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
    ctes.into_iter().find_map(|cte| writes(&cte.query)).or_else(|| body_writes(&query.body))
}

fn body_writes(body: &SetExpr) -> Option<&'static str> {
    match body {
        SetExpr::Select(select) => select.into.as_ref().map(|_| "SELECT INTO"),
        SetExpr::Query(query) => writes(query),
        SetExpr::SetOperation { left, right, .. } => body_writes(left).or_else(|| body_writes(right)),
        SetExpr::Values(_) | SetExpr::Table(_) => None,
        SetExpr::Insert(_) => Some("INSERT"),
        SetExpr::Update(_) => Some("UPDATE"),
        SetExpr::Delete(_) => Some("DELETE"),
        SetExpr::Merge(_) => Some("MERGE"),
    }
}

/// The parser's error in our words, at its place. `(start, end)` are the statement's.
fn problem_of(
    script: &Script<'_>,
    tokens: &[usize],
    error: &ParserError,
    (start, end): (SqlPosition, SqlPosition),
) -> Problem {
    let message = match error {
        ParserError::RecursionLimitExceeded => {
            return Problem::new(Code::SyntaxError, "the statement is nested too deeply").at(script.text, start);
        }
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
    };
    let (message, position) = match split_location(message) {
        Some((message, position)) => (message, position),
        None => (message.as_str(), end),
    };
    let text = message.replace("Expected: ", "expected ").replace(", found: EOF", ", found the end of the statement");
    let text = lower_first(&text.replace(", found: ", ", found "));
    with_guess(Problem::new(Code::SyntaxError, text).at(script.text, position), guess(script, tokens, position))
}

/// Takes ` at Line: 3, Column: 7` off the end of a message.
fn split_location(message: &str) -> Option<(&str, SqlPosition)> {
    let (text, location) = message.rsplit_once(" at Line: ")?;
    let (line, column) = location.split_once(", Column: ")?;
    Some((text, SqlPosition { line: line.parse().ok()?, column: column.parse().ok()? }))
}

/// A keyword that the word at the error, or the one before it, is nearly.
fn guess(script: &Script<'_>, tokens: &[usize], position: SqlPosition) -> Option<String> {
    let at = tokens.iter().position(|index| script.position(*index) == position).unwrap_or(tokens.len());
    let near = tokens.get(at.saturating_sub(1)..=at).or_else(|| tokens.get(at.saturating_sub(1)..)).unwrap_or(&[]);
    near.iter().find_map(|index| match &script.tokens[*index].token {
        Token::Word(word) if word.quote_style.is_none() && word.value.len() > 2 => {
            did_you_mean(&word.value, WORDS).filter(|guess| !guess.eq_ignore_ascii_case(&word.value))
        }
        _ => None,
    })
}
