//! Everything that is printed: data to stdout in four formats, talk to stderr.
//!
//! Writes through `std::io::Write` and hands errors on, so that a closed pipe ends the process quietly.

mod cell;
mod render;

use std::io::{IsTerminal, Write};

use schemas::freshness::Freshness;
use serde_json::Value;

pub use cell::Cell;
pub use render::{Table, answer_text, cell_text, cut_text, freshness_line, json_text};

/// Format of data on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a row.
    Ndjson,
    /// RFC 4180, with a header.
    Csv,
}

/// Where data goes, and how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    format: Format,
}

impl Output {
    /// The chosen format; without a choice a table on a terminal and NDJSON in a pipe.
    pub fn new(choice: Option<Format>) -> Self {
        let default = if std::io::stdout().is_terminal() { Format::Table } else { Format::Ndjson };
        Self { format: choice.unwrap_or(default) }
    }

    /// The format in force.
    pub fn format(self) -> Format {
        self.format
    }

    /// Prints rows.
    pub fn table(self, table: &Table) -> anyhow::Result<()> {
        text(&table.render(self.format))
    }

    /// Prints one document: as a list of facts on a terminal, else as JSON or CSV.
    pub fn document(self, document: &Value) -> anyhow::Result<()> {
        match self.format {
            Format::Json => text(&format!("{}\n", json_text(document))),
            Format::Ndjson => text(&format!("{document}\n")),
            Format::Table | Format::Csv => self.table(&Table::facts(document)),
        }
    }
}

/// Writes a text to stdout as it is.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Writes one line to stderr. Nobody can be told if that fails.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Says on stderr what an answer was made from, one line a view.
pub fn note_freshness(freshness: &Freshness) {
    for view in &freshness.views {
        let name = if freshness.views.len() > 1 { format!("{}: ", view.view) } else { String::new() };
        note(&format!("{name}{}", freshness_line(view)));
    }
    if !freshness.complete {
        note("incomplete: a part of the log is known to be lost");
    }
}

/// How a word stands out on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// A heading.
    Bold,
    /// Beside the point.
    Dim,
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
}

/// A text in a tone; plain unless stdout is a terminal and `NO_COLOR` is unset.
pub fn paint(tone: Tone, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Bold => "1",
        Tone::Dim => "2",
        Tone::Good => "32",
        Tone::Bad => "31",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// A count with thousands separators: `137,512`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
