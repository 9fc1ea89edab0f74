//! How much work a statement makes for the parser, bounded before it begins. The parser bounds its
//! own recursion, but not all of it:
//!
//! - chains like `1 + 1 + 1 + …` become trees that are as deep as they are long, and walking or
//!   freeing a tree recurses: an unbounded one ends the process;
//! - it reads the arguments of a call twice, so `f(f(f(…)))` takes time exponential in its depth.

use sqlparser::tokenizer::Token;

use super::script::Script;
use crate::limits::{SQL_CHAIN_MAX, SQL_NESTING_MAX, SQL_PARSE_STEPS_MAX};
use crate::problem::{Code, Problem};

/// Words that join what stands left of them with what follows, like an operator.
const JOINING: [&str; 17] = [
    "AND",
    "OR",
    "XOR",
    "NOT",
    "IS",
    "IN",
    "LIKE",
    "ILIKE",
    "SIMILAR",
    "BETWEEN",
    "AT",
    "COLLATE",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "JOIN",
    "OPERATOR",
];
/// Words in front of a parenthesis that do not make it a call.
const NO_CALL: [&str; 18] = [
    "AND", "OR", "IN", "AS", "FROM", "WHERE", "ON", "OVER", "FILTER", "USING", "BY", "SELECT", "THEN", "ELSE", "WHEN",
    "ALL", "EXISTS", "UNION",
];
/// Calls whose arguments are read more than twice.
const COSTLY: [&str; 4] = ["CASE", "CAST", "TRY_CAST", "SAFE_CAST"];

/// One open bracket.
struct Level {
    /// Operators since the last comma.
    operators: usize,
    /// The deepest of the groups since the last comma.
    inner: usize,
    /// The deepest item so far.
    deepest: usize,
    /// How often the parser reads a token in here.
    readings: u64,
}

impl Level {
    fn new(readings: u64) -> Self {
        Self { operators: 0, inner: 0, deepest: 0, readings }
    }

    fn end_item(&mut self) {
        self.deepest = self.deepest.max(self.operators + self.inner);
        (self.operators, self.inner) = (0, 0);
    }
}

/// Refuses a statement that would need too much stack or too much time.
pub(super) fn check(script: &Script<'_>, statement: &[usize]) -> Result<(), Problem> {
    let (mut outer, mut level) = (Vec::<Level>::new(), Level::new(1));
    let (mut steps, mut before) = (0u64, None);
    for &index in statement {
        let token = &script.tokens[index].token;
        steps = steps.saturating_add(level.readings);
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                let readings = level.readings.saturating_mul(readings(token, before));
                outer.push(std::mem::replace(&mut level, Level::new(readings)));
            }
            Token::RParen | Token::RBracket | Token::RBrace => close(&mut outer, &mut level),
            Token::Comma => level.end_item(),
            _ => level.operators += usize::from(joins(token)),
        }
        let chain = level.operators + level.inner;
        let twice = is_word(Some(token), &["INTERVAL"]) && is_word(before, &["INTERVAL"]);
        if let Some(wrong) = too_much(chain, outer.len(), steps, twice) {
            return Err(wrong.at(script.text, script.position(index)));
        }
        before = Some(token);
    }
    Ok(())
}

fn too_much(chain: usize, nesting: usize, steps: u64, interval_twice: bool) -> Option<Problem> {
    if chain > SQL_CHAIN_MAX {
        let detail = format!("an expression of more than {SQL_CHAIN_MAX} operators in a row");
        let problem = Problem::new(Code::SyntaxError, detail);
        return Some(problem.with_hint("write a long list of alternatives as IN (…)"));
    }
    if nesting > SQL_NESTING_MAX {
        let detail = format!("more than {SQL_NESTING_MAX} brackets within brackets");
        return Some(Problem::new(Code::SyntaxError, detail).with_hint("name the inner part in WITH name AS (…)"));
    }
    if steps > SQL_PARSE_STEPS_MAX {
        let problem = Problem::new(Code::SyntaxError, "too many calls within calls");
        return Some(problem.with_hint("name the inner part in WITH name AS (…)"));
    }
    // The parser's only unbounded recursion over words alone.
    interval_twice.then(|| Problem::new(Code::SyntaxError, "expected an interval's text, found INTERVAL"))
}

/// How often what stands behind this bracket is read, compared with what stands before it.
fn readings(bracket: &Token, before: Option<&Token>) -> u64 {
    match before {
        _ if *bracket == Token::LBracket => 2,
        Some(Token::Word(_)) if is_word(before, &COSTLY) => 4,
        Some(Token::Word(_)) if !is_word(before, &NO_CALL) => 2,
        _ => 1,
    }
}

fn close(outer: &mut Vec<Level>, level: &mut Level) {
    let Some(outside) = outer.pop() else { return };
    let mut closed = std::mem::replace(level, outside);
    closed.end_item();
    // `(a)(b)(c)` and `a[1][2][3]` are chains too.
    level.operators += 1;
    level.inner = level.inner.max(closed.deepest);
}

fn is_word(token: Option<&Token>, words: &[&str]) -> bool {
    match token {
        Some(Token::Word(word)) => {
            word.quote_style.is_none() && words.iter().any(|known| word.value.eq_ignore_ascii_case(known))
        }
        _ => false,
    }
}

fn joins(token: &Token) -> bool {
    match token {
        Token::Word(_) => is_word(Some(token), &JOINING),
        Token::Number(..) | Token::Period | Token::SingleQuotedString(_) | Token::Placeholder(_) => false,
        other => !other.to_string().starts_with(|c: char| c.is_alphanumeric() || c == '\'' || c == '$'),
    }
}
