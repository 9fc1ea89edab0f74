//! `COPY stream FROM 'file' [WITH (format = 'csv')]`.

use super::cursor::Cursor;
use super::options::options;
use super::{CopyFormat, CopyFrom, names};
use crate::problem::{Code, Problem};

/// What follows `COPY`.
pub(super) fn copy_from(cursor: &mut Cursor<'_, '_>) -> Result<CopyFrom, Problem> {
    let stream = names::object(cursor, "a stream name")?;
    cursor.expect(&["FROM"])?;
    let position = cursor.position();
    let file = cursor.string("a file name like 'events.csv'")?;
    if file.is_empty() || file.contains('\0') {
        return Err(cursor.problem_at(position, Code::InvalidSql, "the file name is empty or has a null character"));
    }
    let mut format = None;
    if cursor.take(&["WITH"]) {
        for option in options(cursor, &["format"])? {
            format = Some(option.one_of(cursor, &CopyFormat::ALL, CopyFormat::as_str)?);
        }
    }
    cursor.finish()?;
    Ok(CopyFrom { stream, file, format })
}
