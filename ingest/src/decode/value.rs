//! One JSON value → one typed value of a column (precondition H4: nobody parses it again).

use std::borrow::Cow;

use schemas::SqlType;

use super::cursor::{Broken, Cursor, RawNumber, RawString};
use super::{number, time};

/// A typed value. Which variant a column has follows from its SQL type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Boolean(bool),
    /// SMALLINT, INT, BIGINT, DATE (days), TIMESTAMPTZ (microseconds)
    Integer(i64),
    /// REAL, DOUBLE PRECISION
    Float(f64),
    /// NUMERIC, unscaled
    Decimal(i128),
    /// TEXT; JSON as it was sent
    Text(Cow<'a, str>),
    /// An array: its items
    List(Vec<Value<'a>>),
}

/// Why a value does not go into its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misfit<'a> {
    /// The text is no JSON, or too deep.
    Broken(Broken),
    /// JSON, but not of the column's type: as it was sent.
    Type(&'a str),
}

impl From<Broken> for Misfit<'_> {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Reads the next value for a column of `sql_type`.
///
/// Numbers may stand in quotes (JavaScript's 2^53 makes people do so); for TIMESTAMPTZ a number is
/// milliseconds since the epoch. Nothing else is converted: an INT takes no `1.5`, a TEXT no `7`.
#[inline]
pub(crate) fn value<'a>(cursor: &mut Cursor<'a>, sql_type: SqlType, depth_max: usize) -> Result<Value<'a>, Misfit<'a>> {
    let start = cursor.at();
    let found = match (cursor.peek(), sql_type) {
        (Some(b'n'), _) if cursor.take_all(b"null") => return Ok(Value::Null),
        (_, SqlType::Json) => {
            cursor.skip_value(1, depth_max)?;
            return Ok(Value::Text(Cow::Borrowed(cursor.since(start))));
        }
        (Some(b'"'), _) => {
            let string = cursor.string()?;
            from_string(unescape(&string)?, sql_type)
        }
        (Some(b'-' | b'0'..=b'9'), _) => from_number(cursor.number()?, sql_type),
        (Some(b'['), SqlType::Array(item)) => {
            let items = items(cursor, item.sql_type(), depth_max)?;
            if items.is_none() {
                // the rest of it has to be JSON all the same
                cursor.back_to(start);
                cursor.skip_value(1, depth_max)?;
            }
            items.map(Value::List)
        }
        (Some(b't'), SqlType::Boolean) if cursor.take_all(b"true") => Some(Value::Boolean(true)),
        (Some(b'f'), SqlType::Boolean) if cursor.take_all(b"false") => Some(Value::Boolean(false)),
        _ => {
            cursor.skip_value(1, depth_max)?;
            None
        }
    };
    found.ok_or_else(|| Misfit::Type(cursor.since(start)))
}

/// The items of an array; none if one of them is not of the type.
fn items<'a>(cursor: &mut Cursor<'a>, item: SqlType, depth_max: usize) -> Result<Option<Vec<Value<'a>>>, Broken> {
    if depth_max <= 1 {
        return Err(Broken::TooDeep);
    }
    cursor.take(b'[');
    cursor.space();
    let mut items = vec![];
    if cursor.take(b']') {
        return Ok(Some(items));
    }
    loop {
        cursor.space();
        match value(cursor, item, depth_max) {
            Ok(found) => items.push(found),
            Err(Misfit::Broken(broken)) => return Err(broken),
            Err(Misfit::Type(_)) => return Ok(None),
        }
        cursor.space();
        if cursor.take(b']') {
            return Ok(Some(items));
        }
        if !cursor.take(b',') {
            return cursor.broken("\",\" or \"]\"");
        }
    }
}

fn from_string(text: Cow<'_, str>, sql_type: SqlType) -> Option<Value<'_>> {
    match sql_type {
        SqlType::Text => Some(Value::Text(text)),
        SqlType::TimestampTz => time::timestamp(&text).map(Value::Integer),
        SqlType::Date => time::date(&text).map(|days| Value::Integer(i64::from(days))),
        SqlType::SmallInt | SqlType::Int | SqlType::BigInt | SqlType::Numeric { .. } => quoted_number(&text, sql_type),
        SqlType::Real | SqlType::Double => quoted_number(&text, sql_type).or_else(|| not_a_finite_number(&text)),
        SqlType::Boolean | SqlType::Json | SqlType::Array(_) => None,
    }
}

fn quoted_number(text: &str, sql_type: SqlType) -> Option<Value<'static>> {
    let mut cursor = Cursor::new(text);
    let number = cursor.number().ok()?;
    if !cursor.is_done() {
        return None;
    }
    from_number(number, sql_type)
}

/// As PostgreSQL spells them; JSON has no other way.
fn not_a_finite_number(text: &str) -> Option<Value<'static>> {
    match text {
        "NaN" => Some(Value::Float(f64::NAN)),
        "Infinity" => Some(Value::Float(f64::INFINITY)),
        "-Infinity" => Some(Value::Float(f64::NEG_INFINITY)),
        _ => None,
    }
}

#[inline]
fn from_number(number: RawNumber<'_>, sql_type: SqlType) -> Option<Value<'static>> {
    match sql_type {
        SqlType::BigInt => integer(number).map(Value::Integer),
        SqlType::Int => integer(number).filter(|v| i32::try_from(*v).is_ok()).map(Value::Integer),
        SqlType::SmallInt => integer(number).filter(|v| i16::try_from(*v).is_ok()).map(Value::Integer),
        SqlType::TimestampTz => milliseconds(number).map(Value::Integer),
        SqlType::Double => number.text.parse().ok().filter(|v: &f64| v.is_finite()).map(Value::Float),
        SqlType::Real => number.text.parse().ok().filter(|v: &f32| v.is_finite()).map(|v| Value::Float(f64::from(v))),
        SqlType::Numeric { precision, scale } => {
            let value = number::scaled(number.text, scale)?.value;
            let bound = 10_i128.checked_pow(u32::from(precision))?;
            (value.abs() < bound).then_some(Value::Decimal(value))
        }
        SqlType::Text | SqlType::Boolean | SqlType::Date | SqlType::Json | SqlType::Array(_) => None,
    }
}

/// A whole number, however it is written: `1e3` and `2.0` are, `1.5` is not.
fn integer(number: RawNumber<'_>) -> Option<i64> {
    if number.integer.is_some() {
        return number.integer;
    }
    let scaled = number::scaled(number.text, 0)?;
    if scaled.exact { i64::try_from(scaled.value).ok() } else { None }
}

fn milliseconds(number: RawNumber<'_>) -> Option<i64> {
    let time_us = match number.integer {
        Some(time_ms) => time_ms.checked_mul(1_000)?,
        None => i64::try_from(number::scaled(number.text, 3)?.value).ok()?,
    };
    time::in_range(time_us)
}

/// The string that a JSON string stands for.
#[inline]
pub(crate) fn unescape<'a>(string: &RawString<'a>) -> Result<Cow<'a, str>, Broken> {
    if string.escaped { unescape_slowly(string).map(Cow::Owned) } else { Ok(Cow::Borrowed(string.text)) }
}

/// Checks the escapes of a string that nobody needs.
pub(crate) fn check_escapes(string: &RawString<'_>) -> Result<(), Broken> {
    unescape(string).map(|_| ())
}

fn unescape_slowly(string: &RawString<'_>) -> Result<String, Broken> {
    let mut plain = String::with_capacity(string.text.len());
    let mut rest = string.text;
    while let Some(found) = rest.find('\\') {
        let broken =
            || Broken::Syntax { expected: "an escape", at: string.at + string.text.len() - rest.len() + found };
        plain.push_str(&rest[..found]);
        let (character, used) = escape(rest.as_bytes().get(found + 1..).unwrap_or_default()).ok_or_else(broken)?;
        plain.push(character);
        rest = rest.get(found + 1 + used..).ok_or_else(broken)?;
    }
    plain.push_str(rest);
    Ok(plain)
}

/// The character of an escape, after its backslash, and how many bytes it took.
fn escape(bytes: &[u8]) -> Option<(char, usize)> {
    let character = match bytes.first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes),
        _ => return None,
    };
    Some((character, 1))
}

fn unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let first = four_hex(bytes.get(1..5)?)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 5));
    }
    let second = if bytes.get(5..7)? == b"\\u" { four_hex(bytes.get(7..11)?)? } else { return None };
    let is_pair = (0xD800..0xDC00).contains(&first) && (0xDC00..0xE000).contains(&second);
    if !is_pair {
        return None;
    }
    char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)).map(|character| (character, 11))
}

fn four_hex(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |value, byte| Some(value * 16 + char::from(*byte).to_digit(16)?))
}
