//! `FROM FILE`, `FROM URL`, `FROM POSTGRES`: where the rows of a table come from.

use super::cursor::{Cursor, with_guess};
use crate::problem::{Code, Problem, SqlPosition, did_you_mean};
use crate::table::{PostgresRead, TableSource};

/// What stands where SQL shows an address without its secrets.
const HIDDEN: &str = "***";

/// What begins with `FROM`.
pub(super) fn table_source(cursor: &mut Cursor<'_, '_>) -> Result<TableSource, Problem> {
    let words = ["FILE", "URL", "POSTGRES"];
    if !cursor.take(&["FROM"]) {
        return Err(cursor.expected_one_of("FROM FILE, FROM URL or FROM POSTGRES", &["FROM"]));
    }
    if cursor.take(&["FILE"]) {
        return Ok(TableSource::File(text(cursor, "a file name like 'ads.csv'", "the file name")?));
    }
    if cursor.take(&["URL"]) {
        let url = address(cursor, "an address like 'https://host/ads.csv'", &["http", "https"])?;
        return Ok(TableSource::Url { url });
    }
    if cursor.take(&["POSTGRES"]) {
        let what = "an address like 'postgres://user:password@host:5432/database'";
        let postgres = address(cursor, what, &["postgres", "postgresql"])?;
        return Ok(TableSource::Postgres { postgres, read: postgres_read(cursor)? });
    }
    Err(cursor.expected_one_of("FILE '…', URL '…' or POSTGRES '…'", &words))
}

fn postgres_read(cursor: &mut Cursor<'_, '_>) -> Result<PostgresRead, Problem> {
    if cursor.take(&["TABLE"]) {
        return Ok(PostgresRead::Table(text(cursor, "a name like 'public.ads'", "the name of the table")?));
    }
    if cursor.take(&["QUERY"]) {
        return Ok(PostgresRead::Query(text(cursor, "a query like 'SELECT ad, campaign FROM ads'", "the query")?));
    }
    Err(cursor.expected_one_of("TABLE '…' or QUERY '…'", &["TABLE", "QUERY"]))
}

/// A text that says something.
fn text(cursor: &mut Cursor<'_, '_>, what: &str, name: &str) -> Result<String, Problem> {
    let position = cursor.position();
    let text = cursor.string(what)?;
    if text.trim().is_empty() || text.contains('\0') {
        let detail = format!("{name} is empty or has a null character");
        return Err(cursor.problem_at(position, Code::InvalidSql, detail));
    }
    Ok(text)
}

fn address(cursor: &mut Cursor<'_, '_>, what: &str, schemes: &[&str]) -> Result<String, Problem> {
    let position = cursor.position();
    let text = text(cursor, what, "the address")?;
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text.as_str()));
    let scheme = scheme.to_ascii_lowercase();
    if !schemes.contains(&scheme.as_str()) || rest.is_empty() || rest.starts_with('/') {
        let detail = format!("expected an address that begins with {}://", schemes.join(":// or "));
        let problem = cursor.problem_at(position, Code::InvalidSql, detail);
        return Err(with_guess(problem, did_you_mean(&scheme, schemes.iter().copied())));
    }
    check_is_whole(cursor, position, rest)?;
    Ok(text)
}

/// A statement that was taken from `SHOW CREATE` lacks what must not be shown.
fn check_is_whole(cursor: &Cursor<'_, '_>, position: SqlPosition, rest: &str) -> Result<(), Problem> {
    let (authority, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let is_hidden = authority.starts_with(&format!("{HIDDEN}@")) || authority.contains(&format!(":{HIDDEN}@"));
    if parameters != HIDDEN && !is_hidden {
        return Ok(());
    }
    let problem = cursor.problem_at(position, Code::InvalidSql, "the address has stars in place of a secret");
    Err(problem.with_hint("SHOW CREATE does not show passwords and parameters: write them"))
}
