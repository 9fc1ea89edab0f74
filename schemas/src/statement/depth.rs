//! How deep the syntax tree of a statement can become. The parser bounds nesting, but not chains
//! like `1 + 1 + 1 + …`, whose trees are as deep as they are long: walking and freeing such a tree
//! recurses, so an unbounded one ends the process.

use sqlparser::tokenizer::Token;

use super::script::Script;
use crate::limits::SQL_CHAIN_MAX;
use crate::problem::{Code, Problem};

/// Words that join what stands left of them with what follows, like an operator.
const JOINING: [&str; 17] = [
    "AND", "OR", "XOR", "NOT", "IS", "IN", "LIKE", "ILIKE", "SIMILAR", "BETWEEN", "AT", "COLLATE", "UNION", "EXCEPT",
    "INTERSECT", "JOIN", "OPERATOR",
];

/// One open parenthesis: operators since the last comma, and the deepest of the groups since then.
#[derive(Default)]
struct Level {
    operators: usize,
    inner: usize,
    deepest: usize,
}

impl Level {
    fn end_item(&mut self) {
        self.deepest = self.deepest.max(self.operators + self.inner);
        (self.operators, self.inner) = (0, 0);
    }
}

/// Refuses a statement whose tree could be deeper than [`SQL_CHAIN_MAX`].
pub(super) fn check(script: &Script<'_>, statement: &[usize]) -> Result<(), Problem> {
    let mut levels = vec![Level::default()];
    for &index in statement {
        match &script.tokens[index].token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace => close(&mut levels),
            Token::Comma => levels.iter_mut().next_back().into_iter().for_each(Level::end_item),
            token => levels.iter_mut().next_back().into_iter().for_each(|l| l.operators += usize::from(joins(token))),
        }
        if levels.iter().next_back().is_some_and(|level| level.operators + level.inner > SQL_CHAIN_MAX) {
            let detail = format!("an expression of more than {SQL_CHAIN_MAX} operators in a row");
            return Err(Problem::new(Code::SyntaxError, detail)
                .with_hint("write a long list of alternatives as IN (…)")
                .at(script.text, script.position(index)));
        }
    }
    Ok(())
}

fn close(levels: &mut Vec<Level>) {
    if levels.len() < 2 {
        return;
    }
    if let (Some(mut closed), Some(outer)) = (levels.pop(), levels.last_mut()) {
        closed.end_item();
        // `(a)(b)(c)` and `a[1][2][3]` are chains too.
        outer.operators += 1;
        outer.inner = outer.inner.max(closed.deepest);
    }
}

fn joins(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            word.quote_style.is_none() && JOINING.iter().any(|joining| word.value.eq_ignore_ascii_case(joining))
        }
        other => is_operator(other),
    }
}

fn is_operator(token: &Token) -> bool {
    let text = token.to_string();
    !matches!(token, Token::Period | Token::SemiColon) && !text.starts_with(|c: char| c.is_alphanumeric() || c == '\'')
}
