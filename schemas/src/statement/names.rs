//! Names of objects and columns: folding, reserved names, length.

use sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::column::is_reserved;
use crate::limits::NAME_BYTES_MAX;
use crate::problem::{Code, Problem};

/// The schemas through which layers and system tables are read; no object may be called so.
pub const SCHEMAS: [&str; 6] = ["public", "batch", "speed", "recon", "dlq", "system"];

/// A name as Postgres folds it: lower case unless it is quoted. DataFusion folds ASCII only; so does this.
pub(super) fn identifier(cursor: &mut Cursor<'_, '_>, what: &str) -> Result<String, Problem> {
    let Some(Token::Word(word)) = cursor.peek() else { return Err(cursor.expected(what)) };
    let name = if word.quote_style.is_some() { word.value.clone() } else { word.value.to_ascii_lowercase() };
    let wrong = if name.is_empty() {
        Some(format!("{what} is empty"))
    } else if name.len() > NAME_BYTES_MAX {
        Some(format!("{what} has {} bytes, more than {NAME_BYTES_MAX}", name.len()))
    } else if name.chars().any(char::is_control) {
        Some(format!("{what} {name:?} has a control character"))
    } else {
        None
    };
    if let Some(wrong) = wrong {
        return Err(cursor.problem(Code::InvalidSql, wrong));
    }
    cursor.advance();
    Ok(name)
}

/// The name of a column that is declared here.
pub(super) fn new_column(cursor: &mut Cursor<'_, '_>) -> Result<String, Problem> {
    let position = cursor.position();
    let name = identifier(cursor, "a column name")?;
    if let Some(bad) = name.chars().find(|c| " ,;{}()\n\t=".contains(*c)) {
        let detail = format!("column {name:?}: a column of a Delta Lake table cannot have {bad:?} in its name");
        return Err(cursor.problem_at(position, Code::InvalidSql, detail));
    }
    if is_reserved(&name) {
        let detail = format!("column {name}: names that begin with \"_\" are reserved");
        return Err(cursor.problem_at(position, Code::InvalidSql, detail));
    }
    Ok(name)
}

/// The name of a stream, table or view. `public.` in front is allowed and means nothing.
pub(super) fn object(cursor: &mut Cursor<'_, '_>, what: &str) -> Result<String, Problem> {
    let position = cursor.position();
    let mut name = identifier(cursor, what)?;
    if cursor.take_symbol(&Token::Period) {
        if name != "public" {
            let detail = format!("{name}. in front of a name: streams, tables and views live in public");
            return Err(cursor
                .problem_at(position, Code::InvalidSql, detail)
                .with_hint("write the name alone; batch., speed., … are for reading"));
        }
        name = identifier(cursor, what)?;
    }
    if SCHEMAS.contains(&name.as_str()) || is_reserved(&name) {
        let detail = format!("the name {name} is reserved");
        return Err(cursor
            .problem_at(position, Code::InvalidSql, detail)
            .with_hint(format!("reserved: {}, and names that begin with \"_\"", SCHEMAS.join(", "))));
    }
    Ok(name)
}

/// `IF NOT EXISTS`, if it is there.
pub(super) fn if_not_exists(cursor: &mut Cursor<'_, '_>) -> bool {
    cursor.take(&["IF", "NOT", "EXISTS"])
}
