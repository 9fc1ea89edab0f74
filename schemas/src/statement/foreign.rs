//! What people who know another system write: the construct, why it is not here, and the spelling that works.
//!
//! Nobody who writes something that works hears of this list: it is looked at when a statement has failed.
//! Which system has what, and that each spelling works, is held by the table of `docs/spellings.md`.

mod constructs;
mod functions;

use sqlparser::tokenizer::Token;

use self::constructs::CONSTRUCTS;
use self::functions::FUNCTIONS;
use super::places::stands_at;
use super::script::Script;
use crate::problem::{Code, Problem, SqlPosition};

/// A construct by its tokens (see [`super::places`]), why it is not here, and what to write.
type Construct = (&'static str, &'static str, &'static str);
/// Names of functions, why they are not here, and what to write.
type Functions = (&'static [&'static str], &'static str, &'static str);

/// Tokens of a text that are looked at.
const TOKENS_MAX: usize = 2_000;

/// The refusal of the first construct of another system in a text that was not understood, and its place.
pub fn foreign(sql: &str) -> Option<(Problem, SqlPosition)> {
    let script = Script::new(sql).ok()?;
    let tokens: Vec<usize> = script.statements().into_iter().flatten().collect();
    in_tokens(&script, &tokens)
}

/// The refusal of a function that there is not, if another system has it.
pub fn foreign_function(name: &str) -> Option<Problem> {
    let named = |(names, ..): &&Functions| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let (names, reason, hint) = FUNCTIONS.iter().find(named)?;
    let shown = names.iter().find(|known| known.eq_ignore_ascii_case(name))?;
    Some(Problem::new(Code::Unsupported, format!("{shown}: {reason}")).with_hint(*hint))
}

/// A better problem for a statement that is written as another system wants it; else the one that it has.
pub(super) fn instead_of(problem: Problem, script: &Script<'_>, tokens: &[usize]) -> Problem {
    in_tokens(script, tokens).map_or(problem, |(better, place)| better.at(script.text, place))
}

/// The first construct in the text; of several that begin there, the longest. What a person wrote is short: the
/// rest of a longer text is not looked at.
fn in_tokens(script: &Script<'_>, tokens: &[usize]) -> Option<(Problem, SqlPosition)> {
    let tokens = &tokens[..tokens.len().min(TOKENS_MAX)];
    let at_token = |at: usize| {
        let here = CONSTRUCTS.iter().filter(|(words, ..)| stands_at(script, tokens, at, words));
        let construct = here.max_by_key(|(words, ..)| words.len()).map(|(words, reason, hint)| {
            let named = named(script, &tokens[at..at + words.split(' ').count()]);
            Problem::new(Code::Unsupported, format!("{named}: {reason}")).with_hint(*hint)
        });
        let problem = construct.or_else(|| with_parameters(script, tokens, at))?;
        Some((problem, script.position(tokens[at])))
    };
    (0..tokens.len()).find_map(at_token)
}

/// ClickHouse's calls with parameters in front of the arguments: `quantile(0.5)(x)`.
fn with_parameters(script: &Script<'_>, tokens: &[usize], at: usize) -> Option<Problem> {
    let Token::Word(name) = &script.tokens[tokens[at]].token else { return None };
    if !stands_at(script, tokens, at + 1, "(") {
        return None;
    }
    let mut open = 0_usize;
    let closed = (at + 1..tokens.len()).find(|next| {
        open += usize::from(stands_at(script, tokens, *next, "("));
        open -= usize::from(stands_at(script, tokens, *next, ")"));
        open == 0
    })?;
    if stands_at(script, tokens, closed + 1, "(") { foreign_function(&name.value) } else { None }
}

/// A construct as the text has it, without the symbols at its end.
fn named(script: &Script<'_>, tokens: &[usize]) -> String {
    let mut pieces: Vec<String> = tokens.iter().map(|index| script.tokens[*index].token.to_string()).collect();
    while pieces.last().is_some_and(|piece| matches!(piece.as_str(), "(" | ")" | "=" | "+")) {
        pieces.pop();
    }
    pieces.join(" ").replace(" . ", ".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_entry_is_one_line_in_the_house_style_and_stands_here_once() {
        let words = CONSTRUCTS.iter().map(|(words, ..)| (*words).to_uppercase());
        let names = FUNCTIONS.iter().flat_map(|(names, ..)| names.iter().map(|name| name.to_lowercase()));
        let mut seen = BTreeSet::new();
        for word in words.chain(names) {
            assert!(seen.insert(word.clone()), "{word} stands here twice");
        }
        let texts = CONSTRUCTS.iter().map(|(_, reason, hint)| (reason, hint));
        for (reason, hint) in texts.chain(FUNCTIONS.iter().map(|(_, reason, hint)| (reason, hint))) {
            for text in [reason, hint] {
                assert!(!text.is_empty() && !text.contains('\n') && !text.ends_with('.'), "{text}");
                assert!(!text.contains("  "), "{text}");
            }
        }
    }

    fn found(sql: &str) -> (String, u64, u64) {
        let (problem, place) = foreign(sql).unwrap();
        (problem.detail.split(": ").next().unwrap().to_owned(), place.line, place.column)
    }

    #[test]
    fn the_longest_construct_at_the_first_place_is_named() {
        let all = "SELECT k FROM s\n  EMIT ON WINDOW CLOSE";
        assert_eq!(found(all), ("EMIT ON WINDOW CLOSE".into(), 2, 3));
        assert_eq!(found("SELECT quantile(0.5)(x) FROM s FORMAT JSON"), ("quantile".into(), 1, 8));
        assert_eq!(found("SELECT windowFunnel((60))(at, n > 1) FROM s"), ("windowFunnel".into(), 1, 8));
        assert_eq!(
            found("CREATE MATERIALIZED VIEW a TO b AS SELECT 1"),
            ("CREATE MATERIALIZED VIEW a TO".into(), 1, 1)
        );
        assert_eq!(foreign("SELECT 'EMIT CHANGES', f(x) FROM s"), None);
        let long = format!("SELECT {} FROM s EMIT CHANGES", vec!["1"; TOKENS_MAX].join(", "));
        assert_eq!(foreign(&long), None);
    }

    #[test]
    fn functions_are_found_in_any_case_and_shown_as_they_are_written_there() {
        let problem = foreign_function("tostartofhour").unwrap();
        assert!(problem.detail.starts_with("toStartOfHour: "), "{problem}");
        assert_eq!(foreign_function("count"), None);
    }
}
