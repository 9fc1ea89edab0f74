//! `CREATE MATERIALIZED VIEW`: everything around its `SELECT`.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::options::options;
use super::refresh::refresh;
use super::{CreateView, names, query};
use crate::problem::{Code, Problem, SqlPosition};
use crate::stream::LatePolicy;
use crate::view::Refresh;

/// What a view may do with late events.
const POLICIES: [LatePolicy; 4] = [LatePolicy::Include, LatePolicy::Side, LatePolicy::Drop, LatePolicy::Only];

/// What follows `CREATE [OR REPLACE] MATERIALIZED VIEW`.
pub(super) fn create_view(cursor: &mut Cursor<'_, '_>, or_replace: bool) -> Result<CreateView, Problem> {
    let position = cursor.position();
    let if_not_exists = names::if_not_exists(cursor);
    if or_replace && if_not_exists {
        let detail = "OR REPLACE and IF NOT EXISTS exclude each other";
        return Err(cursor.problem_at(position, Code::SyntaxError, detail));
    }
    let name = names::object(cursor, "a view name")?;
    if cursor.peek() == Some(&Token::LParen) {
        let problem = cursor.problem(Code::Unsupported, "a list of column names behind a view's name is not supported");
        return Err(problem.with_hint("name the columns in the SELECT: count(*) AS commits"));
    }
    let (refresh, late) = clauses(cursor)?;
    let (sql, with_no_data, sql_position) = definition(cursor)?;
    Ok(CreateView { name, if_not_exists, or_replace, refresh, late, with_no_data, sql, sql_position })
}

/// `REFRESH …` and `WITH (…)` in any order, up to `AS`.
fn clauses(cursor: &mut Cursor<'_, '_>) -> Result<(Refresh, Option<LatePolicy>), Problem> {
    let (mut schedule, mut late, mut with_seen) = (None, None, false);
    while !cursor.take(&["AS"]) {
        let position = cursor.position();
        let twice = if cursor.take(&["REFRESH"]) {
            schedule.replace(refresh(cursor)?).is_some()
        } else if cursor.take(&["WITH"]) {
            for option in options(cursor, &["late"])? {
                late = Some(option.late(cursor, &POLICIES)?);
            }
            std::mem::replace(&mut with_seen, true)
        } else {
            return Err(cursor.expected_one_of("REFRESH, WITH or AS", &["REFRESH", "WITH", "AS"]));
        };
        if twice {
            return Err(cursor.problem_at(position, Code::SyntaxError, "REFRESH or WITH stands here twice"));
        }
    }
    Ok((schedule.unwrap_or(Refresh::Manual), late))
}

/// The `SELECT` as written, whether `WITH NO DATA` follows it, and where it begins in the statement's text.
fn definition(cursor: &Cursor<'_, '_>) -> Result<(String, bool, SqlPosition), Problem> {
    let rest = cursor.rest();
    let words = |from_end: usize| rest.len().checked_sub(from_end).and_then(|at| cursor.word_at(at));
    let is = |from_end, keyword: &str| words(from_end).is_some_and(|word| word.eq_ignore_ascii_case(keyword));
    let no_data = is(3, "WITH") && is(2, "NO") && is(1, "DATA");
    let with_data = is(2, "WITH") && is(1, "DATA");
    let suffix = usize::from(with_data) * 2 + usize::from(no_data) * 3;
    let select = &rest[..rest.len() - suffix];
    query::check_definition(cursor.script, select, cursor.position())?;
    let (Some(first), Some(last), Some(start)) = (select.first(), select.last(), cursor.all().first()) else {
        return Err(cursor.expected("a SELECT"));
    };
    let sql = cursor.script.text_between(*first, *last).to_owned();
    let position = cursor.script.position(*first).relative_to(cursor.script.position(*start));
    Ok((sql, no_data, position))
}
