//! The interactive shell: statements over several lines until `;`, a few commands with a backslash.

use std::path::{Path, PathBuf};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::commands::apply::script_request;
use crate::commands::sql::{identifier, print_answer};
use crate::commands::{Session, create_statement};
use crate::output::{note, text};

const HISTORY_FILE: &str = ".bifold_history";
const HELP: &str = "\
  SELECT …;      a statement; ends with a semicolon, may have many lines
  \\d             streams, views and tables
  \\d NAME        the statement that creates one
  \\?             this help
  \\q             leave (or Ctrl-D)
  Ctrl-C         cancel the line
";

/// Reads statements and prints answers until `\q` or the end of the input.
pub async fn shell(session: &Session) -> anyhow::Result<()> {
    let mut editor = DefaultEditor::new()?;
    let history = std::env::home_dir().map(|home| home.join(HISTORY_FILE));
    if let Some(path) = &history {
        // The first start has none.
        let _ = editor.load_history(path);
    }
    note(&format!("bifold {}, connected to {}; \\? helps", env!("CARGO_PKG_VERSION"), session.client.url()));
    let mut pending = String::new();
    loop {
        let prompt = if pending.is_empty() { "bifold> " } else { "     -> " };
        match tokio::task::block_in_place(|| editor.readline(prompt)) {
            Ok(line) => {
                if take_line(session, &mut editor, &mut pending, &line).await? {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => pending.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    save_history(&mut editor, history.as_ref());
    Ok(())
}

fn save_history(editor: &mut DefaultEditor, path: Option<&PathBuf>) {
    if let Some(path) = path
        && let Err(error) = editor.save_history(path)
    {
        note(&format!("the history is not saved in {}: {error}", path.display()));
    }
}

/// Takes one line in; true if it says to leave.
async fn take_line(
    session: &Session,
    editor: &mut DefaultEditor,
    pending: &mut String,
    line: &str,
) -> anyhow::Result<bool> {
    let word = line.trim();
    if pending.is_empty() && matches!(word, "\\q" | "quit" | "exit") {
        return Ok(true);
    }
    if pending.is_empty() && word.starts_with('\\') {
        editor.add_history_entry(word)?;
        tell(command(session, word).await);
        return Ok(false);
    }
    if !pending.is_empty() {
        pending.push('\n');
    }
    pending.push_str(line);
    if pending.trim().is_empty() {
        pending.clear();
    } else if is_complete(pending) {
        let sql = std::mem::take(pending);
        editor.add_history_entry(sql.as_str())?;
        tell(statement(session, sql).await);
    }
    Ok(false)
}

/// In a shell an error is an answer like any other.
fn tell(result: anyhow::Result<()>) {
    if let Err(error) = result {
        note(&format!("error: {error:#}"));
    }
}

async fn statement(session: &Session, sql: String) -> anyhow::Result<()> {
    print_answer(session.output, &session.client.sql(&script_request(sql, Path::new("."))?).await?)
}

async fn command(session: &Session, line: &str) -> anyhow::Result<()> {
    match line.trim_end_matches(';').split_once(char::is_whitespace) {
        Some(("\\d", name)) => describe(session, name.trim()).await,
        None if line.trim_end_matches(';') == "\\d" => {
            for kind in ["STREAMS", "MATERIALIZED VIEWS", "TABLES"] {
                note(kind);
                print_answer(session.output, &session.client.query(&format!("SHOW {kind}")).await?)?;
            }
            Ok(())
        }
        _ => {
            note(HELP.trim_end());
            Ok(())
        }
    }
}

/// The statement that creates something, whatever kind it is.
async fn describe(session: &Session, name: &str) -> anyhow::Result<()> {
    let mut last = Ok(());
    for kind in ["STREAM", "TABLE", "MATERIALIZED VIEW"] {
        match session.client.query(&format!("SHOW CREATE {kind} {}", identifier(name))).await {
            Ok(answer) => return text(&create_statement(&answer)),
            Err(error) => last = Err(error),
        }
    }
    last
}

/// True if the text ends with a semicolon that is in no string, quoted name or comment.
fn is_complete(sql: &str) -> bool {
    let mut characters = sql.chars().peekable();
    let mut complete = false;
    while let Some(character) = characters.next() {
        match character {
            '\'' | '"' => {
                complete = false;
                if !characters.by_ref().any(|c| c == character) {
                    return false;
                }
            }
            '-' if characters.peek() == Some(&'-') => {
                characters.by_ref().find(|c| *c == '\n');
            }
            '/' if characters.peek() == Some(&'*') => {
                characters.next();
                if !skip_comment(&mut characters) {
                    return false;
                }
            }
            ';' => complete = true,
            blank if blank.is_whitespace() => {}
            _ => complete = false,
        }
    }
    complete
}

/// Skips to the end of a block comment; false if there is none.
fn skip_comment(characters: &mut impl Iterator<Item = char>) -> bool {
    let mut last = ' ';
    for character in characters {
        if last == '*' && character == '/' {
            return true;
        }
        last = character;
    }
    false
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("SELECT 1;", true)]
    #[case::no_semicolon("SELECT 1", false)]
    #[case::several_lines("SELECT 1,\n 2\n;  ", true)]
    #[case::two_statements_one_open("SELECT 1; SELECT", false)]
    #[case::in_a_string("SELECT ';", false)]
    #[case::after_a_string("SELECT 'it''s;';", true)]
    #[case::in_a_name("SELECT \";\"", false)]
    #[case::in_a_comment("SELECT 1 -- ;", false)]
    #[case::comment_after("SELECT 1; -- done", true)]
    #[case::open_block_comment("SELECT 1; /* ;", false)]
    #[case::block_comment_after("SELECT 1; /* x */", true)]
    fn statement_ends_at_a_semicolon(#[case] sql: &str, #[case] complete: bool) {
        assert_eq!(is_complete(sql), complete);
    }
}
