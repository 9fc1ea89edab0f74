//! What a client is told when something is wrong: one list of codes, one status each (RFC 9457).

use serde::{Deserialize, Serialize};

/// Why a request was not carried out. The list is final once released; each code has a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The SQL cannot be parsed.
    SyntaxError,
    /// No such stream, table, view, column, function, run.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Something depends on it.
    InUse,
    /// The SQL means nothing valid (types, ambiguous names, …).
    InvalidSql,
    /// The view could not be merged exactly; the message says why and how to write it.
    NotMergeable,
    /// Valid, but this server does not do it.
    Unsupported,
    /// The request cannot be read (encoding, JSON, parameters).
    BadRequest,
    /// Bad records, and the request or the stream said to refuse them.
    BadRecords,
    /// No or a wrong token.
    Unauthorized,
    /// The token may not do this.
    Forbidden,
    /// No such route.
    UnknownRoute,
    /// The route does not take this method; `Allow` lists those that it takes.
    MethodNotAllowed,
    /// The body is larger than the limit.
    PayloadTooLarge,
    /// The content type or encoding is not understood.
    UnsupportedMediaType,
    /// A queue is full; nothing was written; try again after `Retry-After`.
    Overloaded,
    /// The disk or the object store refuses; nothing was acknowledged.
    StorageUnavailable,
    /// The view's history is still being computed; the message says how far it is.
    NotReady,
    /// `max_staleness` or `at_least` could not be met in time.
    Stale,
    /// The query took longer than its limit.
    Timeout,
    /// The query needs more memory than its limit.
    MemoryLimit,
    /// A value cannot be computed (overflow, division by zero, cap of an aggregate).
    ComputationFailed,
    /// The request was cancelled.
    Cancelled,
    /// Our bug.
    Internal,
}

impl Code {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::SyntaxError | Self::InvalidSql | Self::NotMergeable | Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::UnknownRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyExists | Self::InUse => 409,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::BadRecords | Self::ComputationFailed => 422,
            Self::Overloaded => 429,
            Self::Cancelled => 499,
            Self::Unsupported => 501,
            Self::StorageUnavailable | Self::NotReady | Self::Stale => 503,
            Self::Timeout => 504,
            Self::MemoryLimit | Self::Internal => 500,
        }
    }

    /// True if the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Overloaded | Self::StorageUnavailable | Self::NotReady | Self::Stale | Self::Timeout)
    }

    /// As JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SyntaxError => "syntax_error",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::InUse => "in_use",
            Self::InvalidSql => "invalid_sql",
            Self::NotMergeable => "not_mergeable",
            Self::Unsupported => "unsupported",
            Self::BadRequest => "bad_request",
            Self::BadRecords => "bad_records",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::UnknownRoute => "unknown_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Overloaded => "overloaded",
            Self::StorageUnavailable => "storage_unavailable",
            Self::NotReady => "not_ready",
            Self::Stale => "stale",
            Self::Timeout => "timeout",
            Self::MemoryLimit => "memory_limit",
            Self::ComputationFailed => "computation_failed",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

/// One bad record of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordError {
    /// Index of the record in the request, from 0.
    pub index: u64,
    /// `bad_json`, `bad_value`, `missing_value`, `unknown_column`, `too_large`, `too_deep`
    pub code: String,
    /// The column at fault, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What was wrong.
    pub message: String,
}

/// A place in an SQL text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlPosition {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

impl SqlPosition {
    /// This place in a text that begins at `start`, which is not behind it.
    #[must_use]
    pub fn relative_to(self, start: Self) -> Self {
        let column = if self.line == start.line { (self.column + 1).saturating_sub(start.column) } else { self.column };
        Self { line: (self.line + 1).saturating_sub(start.line), column }
    }

    /// The place in the whole, of this place in a part that begins at `start`: the way back of `relative_to`.
    #[must_use]
    pub fn within(self, start: Self) -> Self {
        let column = if self.line == 1 { (self.column + start.column).saturating_sub(1) } else { self.column };
        Self { line: (self.line + start.line).saturating_sub(1), column }
    }
}

/// The body of every answer that is not a success: `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// Always `about:blank`: `code` is the machine's name for it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The machine's name.
    pub code: Code,
    /// What was wrong with which thing. For SQL: message, line with caret, hint, each on its own line.
    pub detail: String,
    /// True if the same request may succeed later.
    pub retryable: bool,
    /// Seconds to wait, sent as `Retry-After` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// Where in the SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<SqlPosition>,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The bad records, the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<RecordError>,
}

impl Problem {
    /// A problem with a message.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".into(),
            title: code.as_str().replace('_', " "),
            status: code.status(),
            code,
            detail: detail.into(),
            retryable: code.is_retryable(),
            retry_after_s: if code.is_retryable() { Some(1) } else { None },
            position: None,
            hint: None,
            errors: vec![],
        }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds how long to wait.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    /// Adds a place in the SQL: `detail` gets the line and a caret below it.
    #[must_use]
    pub fn at(mut self, sql: &str, position: SqlPosition) -> Self {
        let index = usize::try_from(position.line.saturating_sub(1)).unwrap_or(usize::MAX);
        if let Some(line) = sql.lines().nth(index) {
            let (line, blanks) = around(line, usize::try_from(position.column.saturating_sub(1)).unwrap_or(0));
            let detail = std::mem::take(&mut self.detail);
            self.detail =
                format!("{detail} (line {}, column {})\n  {line}\n  {blanks}^", position.line, position.column);
        }
        self.position = Some(position);
        self
    }

    /// Detail and hint as a terminal shows them.
    pub fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}\nhint: {hint}", self.detail),
            None => self.detail.clone(),
        }
    }
}

/// The part of a line around a column (from 0), and the blanks in front of the caret. Tabs stay tabs.
fn around(line: &str, column: usize) -> (String, String) {
    const BEFORE: usize = 120;
    let from = column.saturating_sub(BEFORE);
    let text: String = line.chars().skip(from).take(2 * BEFORE).collect();
    let under = text.chars().map(|c| if c == '\t' { '\t' } else { ' ' });
    let blanks = under.chain(std::iter::repeat(' ')).take(column - from).collect();
    (text, blanks)
}

/// The closest of `known` to `name`, for "did you mean".
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let wanted = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests;
