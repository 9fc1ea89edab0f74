//! `JOIN rates FOR SYSTEM_TIME AS OF s.at ON …`: which of a table's rows are joined is said by a time.
//!
//! The parser does not know it in this dialect. It is taken out before it reads, without moving anything: errors keep their
//! place. What it says becomes a condition of the join (`operators::view`).

use std::borrow::Cow;

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::script::Script;
use crate::problem::{Code, Problem, SqlPosition};

const WORDS: [&str; 4] = ["FOR", "SYSTEM_TIME", "AS", "OF"];
/// What may stand behind the time.
const ENDS: [&str; 24] = [
    "AS",
    "ON",
    "USING",
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "NATURAL",
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "WINDOW",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "FOR",
    "QUALIFY",
    "RETURNING",
];

/// A time behind the name of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf {
    /// Where the name stands, or the alias behind it: the last word in front of `FOR`.
    pub table: SqlPosition,
    /// Where `FOR` stands.
    pub position: SqlPosition,
    /// The time, with white space in front of it, so that it stands where it stood in the text.
    pub time: String,
}

/// A text without the times behind its tables, of the same length, and these times in order.
pub fn without_as_of(text: &str) -> (Cow<'_, str>, Vec<AsOf>) {
    let Ok(script) = Script::new(text) else { return (Cow::Borrowed(text), vec![]) };
    let found = found(&script.tokens);
    if found.is_empty() {
        return (Cow::Borrowed(text), vec![]);
    }
    let (mut plain, mut times) = (text.to_owned(), vec![]);
    for clause in found {
        let bytes = |first: usize, last: usize| script.bytes_of(first).start..script.bytes_of(last).end;
        let whole = bytes(clause.first, clause.last);
        plain.replace_range(whole.clone(), &blank(&text[whole]));
        let time = clause.time.map(|first| bytes(first, clause.last));
        times.push(AsOf {
            table: clause.table.map_or_else(|| script.position(clause.first), |table| script.position(table)),
            position: script.position(clause.first),
            time: time.map_or_else(String::new, |time| format!("{}{}", blank(&text[..time.start]), &text[time])),
        });
    }
    (Cow::Owned(plain), times)
}

/// The same of the tokens that the parser reads; white space may be among them or not.
pub(super) fn plain_tokens(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    for clause in found(&tokens).into_iter().rev() {
        tokens.drain(clause.first..=clause.last);
    }
    tokens
}

/// What is said of a query that has one.
pub(super) fn in_query(script: &Script<'_>, tokens: &[usize]) -> Option<Problem> {
    let (first, last) = (*tokens.first()?, *tokens.last()?);
    let at = found(script.tokens.get(first..=last)?).first()?.first + first;
    let detail = "FOR SYSTEM_TIME AS OF: a query reads a table with the rows of all times";
    let problem = Problem::new(Code::Unsupported, detail).at(script.text, script.position(at));
    Some(problem.with_hint(
        "write it in the SELECT of a CREATE MATERIALIZED VIEW, or compare: ON d.valid_from <= s.at AND s.at < d.valid_to",
    ))
}

/// Indices of tokens.
struct Clause {
    table: Option<usize>,
    first: usize,
    time: Option<usize>,
    last: usize,
}

fn found(tokens: &[TokenWithSpan]) -> Vec<Clause> {
    let seen: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let is = |place: usize, word: &str| seen.get(place).is_some_and(|index| is_word(&tokens[*index].token, word));
    let mut clauses = vec![];
    let mut place = 0;
    while place < seen.len() {
        if !(0..WORDS.len()).all(|word| is(place + word, WORDS[word])) {
            place += 1;
            continue;
        }
        let time = place + WORDS.len();
        let mut depth = 0_usize;
        let ends = |at: usize, depth: &mut usize| match &tokens[seen[at]].token {
            Token::RParen | Token::Comma | Token::SemiColon if *depth == 0 => true,
            Token::LParen => {
                *depth += 1;
                false
            }
            Token::RParen => {
                *depth -= 1;
                false
            }
            token => *depth == 0 && ENDS.iter().any(|word| is_word(token, word)),
        };
        let end = (time..seen.len()).find(|at| ends(*at, &mut depth)).unwrap_or(seen.len());
        clauses.push(Clause {
            table: place.checked_sub(1).map(|before| seen[before]),
            first: seen[place],
            time: (end > time).then(|| seen[time]),
            last: seen[end - 1],
        });
        place = end;
    }
    clauses
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// White space of the same length, in bytes and in lines.
fn blank(text: &str) -> String {
    let white = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
    text.chars().map(white).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::flink(
        "FROM s JOIN d FOR SYSTEM_TIME AS OF s.at AS r ON s.k = r.k",
        "FROM s JOIN d                           AS r ON s.k = r.k",
        &["s.at"]
    )]
    #[case::alias_before("JOIN d AS r for system_time as of s.at ON TRUE", "JOIN d AS r                            ON TRUE", &["s.at"])]
    #[case::expression(
        "JOIN d FOR SYSTEM_TIME AS OF date_trunc('day', CAST(s.at AS DATE))\nON TRUE",
        "JOIN d                                                            \nON TRUE",
        &["date_trunc('day', CAST(s.at AS DATE))"]
    )]
    #[case::within("(SELECT 1 FROM d FOR SYSTEM_TIME AS OF x) AS q", "(SELECT 1 FROM d                         ) AS q", &["x"])]
    #[case::nothing_behind_it("JOIN d FOR SYSTEM_TIME AS OF ON TRUE", "JOIN d                        ON TRUE", &[""])]
    #[case::none("SELECT 'FOR SYSTEM_TIME AS OF x' FROM s FOR UPDATE", "SELECT 'FOR SYSTEM_TIME AS OF x' FROM s FOR UPDATE", &[])]
    #[case::no_sql("'", "'", &[])]
    fn times_are_taken_out(#[case] text: &str, #[case] plain: &str, #[case] times: &[&str]) {
        let (found, clauses) = without_as_of(text);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!((words(&found), found.len()), (words(plain), text.len()), "{found}");
        let is_in_its_place = |(at, c): (usize, char)| c == ' ' || text[at..].starts_with(c);
        assert!(found.char_indices().all(is_in_its_place), "{found}");
        let said: Vec<&str> = clauses.iter().map(|clause| clause.time.trim()).collect();
        assert_eq!(said, times);
        for clause in &clauses {
            assert!(
                clause.time.is_empty()
                    || text.starts_with(&clause.time)
                    || text[..clause.time.len()].ends_with(clause.time.trim_start())
            );
        }
    }

    #[test]
    fn places_are_those_of_the_text() {
        let (_, clauses) = without_as_of("SELECT 1\nFROM s JOIN d FOR SYSTEM_TIME\n AS OF s.at ON TRUE");
        assert_eq!(clauses[0].table, SqlPosition { line: 2, column: 13 });
        assert_eq!(clauses[0].position, SqlPosition { line: 2, column: 15 });
        assert_eq!(clauses[0].time.lines().count(), 3);
        assert!(clauses[0].time.ends_with("       s.at"));
    }
}
