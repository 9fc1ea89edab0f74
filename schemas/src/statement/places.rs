//! Where a construct stands in a text: the caret of an error that the planner found, which knows no places.
//!
//! A construct is written as its tokens with blanks between: `DISTINCT ON`, `MEDIAN (`, `LIMIT # BY`. `#` is any
//! number, `*` any word.

use sqlparser::tokenizer::Token;

use super::script::Script;
use crate::problem::SqlPosition;

/// Where a construct stands first. Of `ORDER BY` and `( SELECT`, only what belongs to a query, and not to a call
/// or to a relation.
pub fn place_of(sql: &str, construct: &str) -> Option<SqlPosition> {
    let script = Script::new(sql).ok()?;
    let tokens: Vec<usize> = script.statements().into_iter().flatten().collect();
    let found = (0..tokens.len())
        .find(|at| stands_at(&script, &tokens, *at, construct) && is_own(&script, &tokens, *at, construct));
    found.map(|at| script.position(tokens[at]))
}

/// True if a construct begins at this token.
pub(super) fn stands_at(script: &Script<'_>, tokens: &[usize], at: usize, construct: &str) -> bool {
    let mut pieces = construct.split_whitespace().enumerate();
    pieces.all(|(ahead, piece)| {
        let token = tokens.get(at + ahead).and_then(|index| script.tokens.get(*index));
        token.is_some_and(|token| is_piece(&token.token, piece))
    })
}

fn is_piece(token: &Token, piece: &str) -> bool {
    match (token, piece) {
        (Token::Number(..), "#")
        | (Token::Word(_), "*")
        | (Token::LParen, "(")
        | (Token::RParen, ")")
        | (Token::Eq, "=")
        | (Token::Plus, "+")
        | (Token::Period, ".")
        | (Token::Comma, ",") => true,
        (Token::Word(word), _) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(piece),
        _ => false,
    }
}

fn is_own(script: &Script<'_>, tokens: &[usize], at: usize, construct: &str) -> bool {
    let is = |at: usize, words: &[&str]| words.iter().any(|word| stands_at(script, tokens, at, word));
    match construct {
        "ORDER BY" => open_bracket(script, tokens, at).is_none_or(|open| is(open + 1, &["SELECT", "WITH"])),
        "( SELECT" => at.checked_sub(1).is_none_or(|before| !is(before, &["FROM", "JOIN", "AS", "LATERAL", "(", ","])),
        _ => true,
    }
}

/// The innermost bracket that is open at this token.
fn open_bracket(script: &Script<'_>, tokens: &[usize], at: usize) -> Option<usize> {
    let mut closed = 0;
    for before in (0..at).rev() {
        if stands_at(script, tokens, before, ")") {
            closed += 1;
        } else if stands_at(script, tokens, before, "(") {
            if closed == 0 {
                return Some(before);
            }
            closed -= 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::place_of;

    #[rstest]
    #[case::word("SELECT a\nFROM s FINAL", "final", Some((2, 8)))]
    #[case::call("SELECT median, median (x) FROM s", "MEDIAN (", Some((1, 16)))]
    #[case::number("SELECT a FROM s LIMIT 2 BY a", "LIMIT # BY", Some((1, 17)))]
    #[case::any_word("INSERT INTO t SELECT 1", "INSERT INTO * SELECT", Some((1, 1)))]
    #[case::text("SELECT 'LIMIT 2 BY a'", "LIMIT # BY", None)]
    #[case::quoted("SELECT \"over\" FROM s", "OVER", None)]
    #[case::order_of_a_query("SELECT f(x ORDER BY y) FROM (SELECT * FROM s ORDER BY y) AS q", "ORDER BY", Some((1, 46)))]
    #[case::order_of_a_call("SELECT f(x ORDER BY y) FROM s", "ORDER BY", None)]
    #[case::subquery("SELECT * FROM (SELECT 1) AS q WHERE x > (SELECT 2)", "( SELECT", Some((1, 41)))]
    #[case::no_sql("SELECT 'a", "SELECT", None)]
    fn constructs_are_found(#[case] sql: &str, #[case] construct: &str, #[case] place: Option<(u64, u64)>) {
        assert_eq!(place_of(sql, construct).map(|place| (place.line, place.column)), place);
    }
}
