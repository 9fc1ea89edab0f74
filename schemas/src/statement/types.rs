//! Column types: PostgreSQL's names for the types of [`SqlType`], and what to write instead of the others.

use sqlparser::tokenizer::Token;

use super::cursor::{Cursor, with_guess};
use crate::column::{ItemType, SqlType};
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};

/// Types without parameters, by every name.
const PLAIN: [(&str, SqlType); 21] = [
    ("BOOLEAN", SqlType::Boolean),
    ("BOOL", SqlType::Boolean),
    ("SMALLINT", SqlType::SmallInt),
    ("INT2", SqlType::SmallInt),
    ("INT", SqlType::Int),
    ("INTEGER", SqlType::Int),
    ("INT4", SqlType::Int),
    ("BIGINT", SqlType::BigInt),
    ("INT8", SqlType::BigInt),
    ("REAL", SqlType::Real),
    ("FLOAT4", SqlType::Real),
    ("DOUBLE", SqlType::Double),
    ("FLOAT8", SqlType::Double),
    ("FLOAT", SqlType::Double),
    ("TEXT", SqlType::Text),
    ("STRING", SqlType::Text),
    ("DATE", SqlType::Date),
    ("TIMESTAMPTZ", SqlType::TimestampTz),
    ("JSON", SqlType::Json),
    ("JSONB", SqlType::Json),
    ("BPCHAR", SqlType::Text),
];

/// Types with parameters or several words.
const COMPOUND: [&str; 7] = ["NUMERIC", "DECIMAL", "DEC", "VARCHAR", "CHAR", "CHARACTER", "TIMESTAMP"];

/// Types that Postgres or others have and streams have not, with what to write.
const ABSENT: [(&str, &str); 16] = [
    ("UUID", "TEXT"),
    ("TINYINT", "SMALLINT"),
    ("SERIAL", "BIGINT"),
    ("BIGSERIAL", "BIGINT"),
    ("MONEY", "NUMERIC(19, 2)"),
    ("BYTEA", "TEXT with base64 or hex"),
    ("BLOB", "TEXT with base64 or hex"),
    ("TIME", "TEXT, or TIMESTAMPTZ for a point in time"),
    ("TIMETZ", "TIMESTAMPTZ"),
    ("DATETIME", "TIMESTAMPTZ"),
    ("INTERVAL", "BIGINT with a count of microseconds"),
    ("INET", "TEXT"),
    ("ARRAY", "the type of the items and [], such as TEXT[]"),
    ("MAP", "JSONB"),
    ("STRUCT", "JSONB"),
    ("ENUM", "TEXT"),
];

/// The type that comes next.
pub(super) fn sql_type(cursor: &mut Cursor<'_, '_>) -> Result<SqlType, Problem> {
    let position = cursor.position();
    let Some(Token::Word(word)) = cursor.peek() else { return Err(cursor.expected("a type")) };
    let name = word.value.to_ascii_uppercase();
    cursor.advance();
    let found = match name.as_str() {
        "TIMESTAMP" => timestamp(cursor, position)?,
        "TIMESTAMPTZ" => timestamptz(cursor)?,
        "NUMERIC" | "DECIMAL" | "DEC" => numeric(cursor, position)?,
        "DOUBLE" => {
            cursor.take(&["PRECISION"]);
            SqlType::Double
        }
        "FLOAT" => float(cursor)?,
        "VARCHAR" | "CHAR" | "CHARACTER" => text(cursor)?,
        _ => plain(cursor, position, &name)?,
    };
    array_of(cursor, position, found)
}

/// `[]` or `ARRAY` behind a type.
fn array_of(cursor: &mut Cursor<'_, '_>, position: SqlPosition, item: SqlType) -> Result<SqlType, Problem> {
    if cursor.take_symbol(&Token::LBracket) {
        cursor.expect_symbol(&Token::RBracket)?;
    } else if !cursor.take(&["ARRAY"]) {
        return Ok(item);
    }
    let nested = cursor.peek() == Some(&Token::LBracket);
    match ItemType::of(item).filter(|_| !nested) {
        Some(item) => Ok(SqlType::Array(item)),
        None => Err(instead(cursor, position, &format!("{}[]{}", item.sql(), if nested { "[]" } else { "" }), "JSONB")),
    }
}

fn plain(cursor: &Cursor<'_, '_>, position: SqlPosition, name: &str) -> Result<SqlType, Problem> {
    if let Some((_, sql_type)) = PLAIN.iter().find(|(known, _)| *known == name) {
        return Ok(*sql_type);
    }
    if let Some((_, other)) = ABSENT.iter().find(|(known, _)| *known == name) {
        return Err(instead(cursor, position, name, other));
    }
    let known = PLAIN.iter().map(|(known, _)| *known).chain(COMPOUND);
    let problem = cursor.problem_at(position, Code::InvalidSql, format!("unknown type {}", name.to_lowercase()));
    Err(with_guess(problem, did_you_mean(name, known)))
}

fn instead(cursor: &Cursor<'_, '_>, position: SqlPosition, name: &str, other: &str) -> Problem {
    let problem = cursor.problem_at(position, Code::Unsupported, format!("columns have no type {name}"));
    problem.with_hint(format!("write {other}"))
}

/// `(a)` or `(a, b)`, if it is there.
fn parameters(cursor: &mut Cursor<'_, '_>) -> Result<Vec<u64>, Problem> {
    let mut numbers = vec![];
    if cursor.take_symbol(&Token::LParen) {
        numbers.push(cursor.whole_number("a number")?);
        while cursor.take_symbol(&Token::Comma) {
            numbers.push(cursor.whole_number("a number")?);
        }
        cursor.expect_symbol(&Token::RParen)?;
    }
    Ok(numbers)
}

/// `NUMERIC(precision[, scale])`
fn numeric(cursor: &mut Cursor<'_, '_>, position: SqlPosition) -> Result<SqlType, Problem> {
    let numbers = parameters(cursor)?;
    let (precision, scale) = match numbers[..] {
        [precision] => (precision, 0),
        [precision, scale] => (precision, scale),
        _ => {
            let problem = cursor.problem_at(position, Code::InvalidSql, "NUMERIC needs a precision and a scale");
            return Err(problem.with_hint("write NUMERIC(38, 9), say: 38 digits in all, 9 of them after the point"));
        }
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(digits)) if scale <= u64::from(precision) => {
            Ok(SqlType::Numeric { precision, scale: digits })
        }
        _ => {
            let detail =
                format!("NUMERIC({precision}, {scale}): the precision is 1 to 38, the scale 0 to the precision");
            Err(cursor.problem_at(position, Code::InvalidSql, detail))
        }
    }
}

/// `FLOAT`, `FLOAT(bits)`: up to 24 bits are `REAL`, as in Postgres.
fn float(cursor: &mut Cursor<'_, '_>) -> Result<SqlType, Problem> {
    let small = parameters(cursor)?.first().is_some_and(|bits| *bits <= 24);
    Ok(if small { SqlType::Real } else { SqlType::Double })
}

/// `VARCHAR(n)`, `CHARACTER VARYING(n)`, `CHAR(n)`: text; the length is not enforced.
fn text(cursor: &mut Cursor<'_, '_>) -> Result<SqlType, Problem> {
    cursor.take(&["VARYING"]);
    parameters(cursor)?;
    Ok(SqlType::Text)
}

fn timestamptz(cursor: &mut Cursor<'_, '_>) -> Result<SqlType, Problem> {
    let position = cursor.position();
    match parameters(cursor)?.first() {
        None | Some(6) => Ok(SqlType::TimestampTz),
        Some(digits) => {
            let detail = format!("TIMESTAMPTZ({digits}): points in time have microseconds");
            Err(cursor.problem_at(position, Code::Unsupported, detail).with_hint("write TIMESTAMPTZ"))
        }
    }
}

/// `TIMESTAMP WITH TIME ZONE`; without a zone it is not a point in time.
fn timestamp(cursor: &mut Cursor<'_, '_>, position: SqlPosition) -> Result<SqlType, Problem> {
    let zoned = timestamptz(cursor)?;
    if cursor.take(&["WITH", "TIME", "ZONE"]) {
        return Ok(zoned);
    }
    let detail = "TIMESTAMP without a time zone is not a point in time";
    Err(cursor.problem_at(position, Code::Unsupported, detail).with_hint("write TIMESTAMPTZ"))
}
