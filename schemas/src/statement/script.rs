//! A script as tokens: where each token stands, and where one statement ends and the next begins.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::limits::SQL_BYTES_MAX;
use crate::problem::{Code, Problem, SqlPosition};

/// The one dialect: PostgreSQL's.
pub(super) static DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// The text of a script and its tokens, white space included.
pub(super) struct Script<'a> {
    /// As given.
    pub(super) text: &'a str,
    /// All tokens, with lines and columns of the whole script.
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Where each token begins and ends in `text`, bytes.
    bytes: Vec<(usize, usize)>,
}

impl<'a> Script<'a> {
    /// Cuts a text into tokens.
    pub(super) fn new(text: &'a str) -> Result<Self, Problem> {
        if text.len() > SQL_BYTES_MAX {
            let detail = format!("SQL text of {} bytes is larger than the limit of {SQL_BYTES_MAX} bytes", text.len());
            return Err(Problem::new(Code::PayloadTooLarge, detail).with_hint("send the statements in several scripts"));
        }
        let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location().map_err(|error| {
            let position = position_of(error.location);
            Problem::new(Code::SyntaxError, lower_first(&error.message)).at(text, position)
        })?;
        let bytes = byte_ranges(text, &tokens);
        Ok(Self { text, tokens, bytes })
    }

    /// Per statement, the indices of its tokens without white space and comments. Empty statements are left out.
    pub(super) fn statements(&self) -> Vec<Vec<usize>> {
        let mut statements = vec![vec![]];
        for (index, token) in self.tokens.iter().enumerate() {
            match (&token.token, statements.last_mut()) {
                (Token::SemiColon, _) => statements.push(vec![]),
                (Token::Whitespace(_), _) | (_, None) => {}
                (_, Some(statement)) => statement.push(index),
            }
        }
        statements.retain(|statement| !statement.is_empty());
        statements
    }

    /// The text from the beginning of one token to the end of another.
    pub(super) fn text_between(&self, first: usize, last: usize) -> &'a str {
        match (self.bytes.get(first), self.bytes.get(last)) {
            (Some((start, _)), Some((_, end))) if start <= end => &self.text[*start..*end],
            _ => "",
        }
    }

    /// Where a token is in the text.
    pub(super) fn bytes_of(&self, index: usize) -> std::ops::Range<usize> {
        self.bytes.get(index).map_or(0..0, |(start, end)| *start..*end)
    }

    /// Where a token begins.
    pub(super) fn position(&self, index: usize) -> SqlPosition {
        self.tokens.get(index).map_or(SqlPosition { line: 1, column: 1 }, |token| position_of(token.span.start))
    }

    /// The place just behind a token.
    pub(super) fn position_after(&self, index: usize) -> SqlPosition {
        self.tokens.get(index).map_or(SqlPosition { line: 1, column: 1 }, |token| position_of(token.span.end))
    }
}

/// The parser's location in our terms.
pub(super) fn position_of(location: Location) -> SqlPosition {
    SqlPosition { line: location.line.max(1), column: location.column.max(1) }
}

/// A message of the parser in our style: lower case at the beginning.
pub(super) fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match chars.next() {
        Some(first) if !chars.as_str().starts_with(char::is_uppercase) => first.to_lowercase().chain(chars).collect(),
        _ => message.to_owned(),
    }
}

/// Turns lines and columns into bytes in one pass; the tokens stand in order.
fn byte_ranges(text: &str, tokens: &[TokenWithSpan]) -> Vec<(usize, usize)> {
    let mut walk = Walk { chars: text.char_indices(), text, line: 1, column: 1 };
    tokens.iter().map(|token| (walk.to(token.span.start), walk.to(token.span.end))).collect()
}

/// Goes through a text once, counting lines and columns as the tokenizer does.
struct Walk<'a> {
    chars: std::str::CharIndices<'a>,
    text: &'a str,
    line: u64,
    column: u64,
}

impl Walk<'_> {
    /// Goes on to a place and returns its byte; never goes back.
    fn to(&mut self, place: Location) -> usize {
        while (self.line, self.column) < (place.line, place.column) {
            match self.chars.next() {
                Some((_, '\n')) => (self.line, self.column) = (self.line + 1, 1),
                Some(_) => self.column += 1,
                None => break,
            }
        }
        self.text.len() - self.chars.as_str().len()
    }
}
