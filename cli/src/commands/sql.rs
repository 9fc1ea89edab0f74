//! `sql -c SQL | -f FILE`, or a shell.

use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::Context;

use super::Session;
use super::apply::script_request;
use crate::arguments::SqlArguments;
use crate::client::{SqlAnswer, SqlRequest};
use crate::exit::{Exit, fail};
use crate::output::{Format, Output, answer_text, note, note_freshness, text};

pub(super) async fn sql(session: &Session, options: &SqlArguments) -> anyhow::Result<()> {
    let request = match (&options.command, &options.file) {
        (Some(text), _) => script_request(text.clone(), Path::new("."))?,
        (None, Some(path)) => file_request(path)?,
        (None, None) if std::io::stdin().is_terminal() => return crate::shell::shell(session).await,
        (None, None) => script_request(stdin_text()?, Path::new("."))?,
    };
    let answer = session.client.sql(&SqlRequest { at_least: options.at_least.clone(), ..request }).await?;
    print_answer(session.output, &answer)
}

fn file_request(path: &Path) -> anyhow::Result<SqlRequest> {
    match std::fs::read_to_string(path) {
        Ok(text) => script_request(text, path.parent().unwrap_or(Path::new("."))),
        Err(error) => fail(Exit::Usage, format!("script {}: {error}", path.display())),
    }
}

fn stdin_text() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("reading the script from stdin")?;
    Ok(text)
}

/// Prints the rows to stdout; messages and freshness to stderr.
pub fn print_answer(output: Output, answer: &SqlAnswer) -> anyhow::Result<()> {
    let has_rows = !answer.table.columns.is_empty();
    let spoken = if has_rows { answer.messages.len().saturating_sub(1) } else { answer.messages.len() };
    for message in answer.messages.iter().take(spoken).filter(|message| !message.is_empty()) {
        note(message);
    }
    match output.format() {
        Format::Json => text(&format!("{}\n", answer_text(&answer.raw)?))?,
        _ if has_rows => output.table(&answer.table)?,
        _ => {}
    }
    if output.format() == Format::Table && has_rows {
        note(&row_count(answer));
    } else if answer.truncated {
        note("there are more rows than the limit");
    }
    if let Some(freshness) = &answer.freshness {
        note_freshness(freshness);
    }
    Ok(())
}

fn row_count(answer: &SqlAnswer) -> String {
    let rows = answer.table.rows.len();
    let unit = if rows == 1 { "row" } else { "rows" };
    let more = if answer.truncated { ", and more than the limit" } else { "" };
    let time = answer.elapsed_ms.map_or(String::new(), |ms| format!(", {ms:.1} ms"));
    format!("{rows} {unit}{more}{time}")
}

/// A name as SQL takes it: quoted unless it is a plain lower-case word.
pub fn identifier(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty();
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_when_they_must_be() {
        let names = ["sales_1", "Sales", "a b", "1a", "x\"; DROP", ""];
        let quoted = ["sales_1", "\"Sales\"", "\"a b\"", "\"1a\"", "\"x\"\"; DROP\"", "\"\""];
        assert_eq!(names.map(identifier), quoted);
    }
}
