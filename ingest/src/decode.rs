//! A request's records → typed rows and a verdict for each bad record. JSON is parsed here and
//! nowhere else.
//!
//! The parser is driven by the stream's columns and writes straight into Arrow builders. (`arrow-json`
//! goes through a tape, reads `1.5` as the INT 1, takes `{"a":1 "b":2}`, cannot keep the text of a
//! JSON value, and names no row; the tests use it to compare with.)

pub(crate) mod cursor;
pub(crate) mod number;
mod record;
mod rows;
#[cfg(test)]
mod tests;
pub(crate) mod time;
pub(crate) mod value;

use std::ops::Range;

use arrow::record_batch::RecordBatch;
use schemas::problem::RecordError;
use schemas::{Code, Limits, Problem, StreamDef};

use self::cursor::Broken;
use self::record::{Fault, RecordParser};
use self::rows::RowsBuilder;

/// Characters of a wrong value that a message shows.
const FOUND_CHARS_MAX: usize = 64;

/// A record that does not fit the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Index in the request, code, column, message.
    pub error: RecordError,
    /// Where its bytes are in the payload.
    pub bytes: Range<usize>,
}

/// What became of a request's records: every one is a row or a bad record.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The good ones in order, in the stream's event schema.
    pub rows: RecordBatch,
    /// The bad ones in order.
    pub bad: Vec<BadRecord>,
}

impl Decoded {
    /// How many records there were.
    pub fn received(&self) -> u64 {
        (self.rows.num_rows() + self.bad.len()) as u64
    }
}

/// Decodes `records`, ranges of `payload`, as rows of `stream`.
///
/// Synchronous and busy for microseconds per record: callers run it where that is allowed.
///
/// # Errors
/// Only our own bugs; whatever is wrong with a record is a verdict.
///
/// # Panics
/// If a record is neither a row nor bad: our bug.
pub fn decode(
    stream: &StreamDef,
    limits: &Limits,
    payload: &[u8],
    records: &[Range<usize>],
) -> Result<Decoded, Problem> {
    let internal = |error| Problem::new(Code::Internal, format!("stream {}: rows: {error}", stream.name));
    // One pass over the whole is the cheapest check; only a payload that fails is checked by record.
    let text = std::str::from_utf8(payload).ok();
    let mut rows = RowsBuilder::new(stream, records.len()).map_err(internal)?;
    let mut parser = RecordParser::new(stream, limits.record_depth_max);
    let mut bad = Vec::new();
    for (index, range) in (0..).zip(records) {
        let parsed = match record_text(payload, text, range, limits) {
            Ok(record) => parser.parse(record).map_err(|fault| explain(stream, limits, &fault)),
            Err(verdict) => Err(verdict),
        };
        match parsed {
            Ok(values) => rows.append(values),
            Err((code, column, message)) => {
                let error = RecordError { index, code: code.into(), column, message };
                bad.push(BadRecord { error, bytes: range.clone() });
            }
        }
    }
    let rows = rows.finish(stream).map_err(internal)?;
    assert!(rows.num_rows() + bad.len() == records.len(), "every record is a row or a bad record");
    Ok(Decoded { rows, bad })
}

type Verdict = (&'static str, Option<String>, String);

fn record_text<'a>(
    payload: &'a [u8],
    text: Option<&'a str>,
    range: &Range<usize>,
    limits: &Limits,
) -> Result<&'a str, Verdict> {
    if range.len() > limits.record_bytes_max {
        let message = format!("record: {} bytes, the limit is {}", range.len(), limits.record_bytes_max);
        return Err(("too_large", None, message));
    }
    let of_payload = text.and_then(|text| text.get(range.clone()));
    match of_payload {
        Some(record) => Ok(record),
        None => std::str::from_utf8(payload.get(range.clone()).unwrap_or_default())
            .map_err(|error| ("bad_json", None, format!("record: not UTF-8 at byte {}", error.valid_up_to()))),
    }
}

fn explain(stream: &StreamDef, limits: &Limits, fault: &Fault<'_>) -> Verdict {
    let name = &stream.name;
    match fault {
        Fault::Broken(Broken::Syntax { expected, at }) => {
            ("bad_json", None, format!("stream {name}: not JSON: expected {expected} at byte {at}"))
        }
        Fault::Broken(Broken::TooDeep) => {
            let message = format!("stream {name}: nested deeper than {} levels", limits.record_depth_max);
            ("too_deep", None, message)
        }
        Fault::Type { column, found } => {
            let column = &stream.columns[*column];
            let (kind, shown) = (column.sql_type.sql(), shorten(found));
            let message = format!("stream {name}: column {}: expected {kind}, found {shown}", column.name);
            ("bad_value", Some(column.name.clone()), message)
        }
        Fault::Missing { column } => {
            let column = &stream.columns[*column].name;
            (
                "missing_value",
                Some(column.clone()),
                format!("stream {name}: column {column}: is NOT NULL and has no value"),
            )
        }
    }
}

fn shorten(found: &str) -> String {
    match found.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &found[..end]),
        None => found.to_owned(),
    }
}
