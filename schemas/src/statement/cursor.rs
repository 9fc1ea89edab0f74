//! Reads the tokens of one statement from left to right.

use sqlparser::tokenizer::Token;

use super::script::Script;
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};

/// A place in a statement. White space and comments are invisible to it.
pub(super) struct Cursor<'s, 'a> {
    /// The script around the statement.
    pub(super) script: &'s Script<'a>,
    /// Indices of the statement's tokens; never empty.
    tokens: &'s [usize],
    next: usize,
}

impl<'s, 'a> Cursor<'s, 'a> {
    /// The beginning of a statement.
    pub(super) fn new(script: &'s Script<'a>, tokens: &'s [usize]) -> Self {
        Self { script, tokens, next: 0 }
    }

    /// The token that comes next.
    pub(super) fn peek(&self) -> Option<&'s Token> {
        self.peek_at(0)
    }

    /// A token further on.
    pub(super) fn peek_at(&self, ahead: usize) -> Option<&'s Token> {
        self.tokens.get(self.next + ahead).map(|index| &self.script.tokens[*index].token)
    }

    /// Goes past a token.
    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// The unquoted word that stands so many tokens ahead.
    pub(super) fn word_at(&self, ahead: usize) -> Option<&'s str> {
        match self.peek_at(ahead) {
            Some(Token::Word(word)) if word.quote_style.is_none() => Some(&word.value),
            _ => None,
        }
    }

    /// True if these keywords come next.
    pub(super) fn is_at(&self, keywords: &[&str]) -> bool {
        let mut ahead = keywords.iter().enumerate();
        ahead.all(|(index, keyword)| self.word_at(index).is_some_and(|word| word.eq_ignore_ascii_case(keyword)))
    }

    /// Goes past these keywords if they come next.
    pub(super) fn take(&mut self, keywords: &[&str]) -> bool {
        let found = self.is_at(keywords);
        if found {
            self.next += keywords.len();
        }
        found
    }

    /// Goes past these keywords; anything else is an error.
    pub(super) fn expect(&mut self, keywords: &[&str]) -> Result<(), Problem> {
        for keyword in keywords {
            if !self.take(&[keyword]) {
                return Err(self.expected_one_of(&keywords.join(" "), &[keyword]));
            }
        }
        Ok(())
    }

    /// Goes past a symbol if it comes next.
    pub(super) fn take_symbol(&mut self, symbol: &Token) -> bool {
        let found = self.peek() == Some(symbol);
        if found {
            self.next += 1;
        }
        found
    }

    /// Goes past a symbol; anything else is an error.
    pub(super) fn expect_symbol(&mut self, symbol: &Token) -> Result<(), Problem> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.expected(&format!("\"{symbol}\""))) }
    }

    /// The string literal that comes next, without its quotes.
    pub(super) fn string(&mut self, what: &str) -> Result<String, Problem> {
        let text = match self.peek() {
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => text.clone(),
            Some(Token::DollarQuotedString(quoted)) => quoted.value.clone(),
            _ => return Err(self.expected(what)),
        };
        self.advance();
        Ok(text)
    }

    /// The whole number that comes next.
    pub(super) fn whole_number(&mut self, what: &str) -> Result<u64, Problem> {
        let Some(Token::Number(text, _)) = self.peek() else { return Err(self.expected(what)) };
        let number = text.parse().map_err(|_| self.expected(what))?;
        self.advance();
        Ok(number)
    }

    /// True if nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.tokens.len()
    }

    /// An error if something is left.
    pub(super) fn finish(&self) -> Result<(), Problem> {
        if self.is_done() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// What is left of the statement: indices into the script's tokens.
    pub(super) fn rest(&self) -> &'s [usize] {
        self.tokens.get(self.next..).unwrap_or(&[])
    }

    /// The whole statement.
    pub(super) fn all(&self) -> &'s [usize] {
        self.tokens
    }

    /// Where the next token stands, or where the statement ends.
    pub(super) fn position(&self) -> SqlPosition {
        match (self.tokens.get(self.next), self.tokens.last()) {
            (Some(index), _) => self.script.position(*index),
            (None, Some(last)) => self.script.position_after(*last),
            (None, None) => SqlPosition { line: 1, column: 1 },
        }
    }

    /// A problem at the next token.
    pub(super) fn problem(&self, code: Code, detail: impl Into<String>) -> Problem {
        self.problem_at(self.position(), code, detail)
    }

    /// A problem at some place.
    pub(super) fn problem_at(&self, position: SqlPosition, code: Code, detail: impl Into<String>) -> Problem {
        Problem::new(code, detail).at(self.script.text, position)
    }

    /// A syntax error: something else stands here.
    pub(super) fn expected(&self, what: &str) -> Problem {
        let found = self.peek().map_or_else(|| "the end of the statement".to_owned(), shown);
        self.problem(Code::SyntaxError, format!("expected {what}, found {found}"))
    }

    /// A syntax error that looks for a slip of the pen among the words that may stand here.
    pub(super) fn expected_one_of(&self, what: &str, words: &[&str]) -> Problem {
        let word = self.word_at(0).unwrap_or_default();
        let meant = did_you_mean(word, words.iter().copied()).filter(|meant| !meant.eq_ignore_ascii_case(word));
        with_guess(self.expected(what), meant)
    }
}

/// Adds "did you mean" where there is a guess.
pub(super) fn with_guess(problem: Problem, guess: Option<String>) -> Problem {
    match guess {
        Some(guess) => problem.with_hint(format!("did you mean {guess}?")),
        None => problem,
    }
}

/// A token as an error shows it.
fn shown(token: &Token) -> String {
    let text = token.to_string();
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    match token {
        Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) => format!("{short}{more}"),
        _ => format!("\"{short}{more}\""),
    }
}
