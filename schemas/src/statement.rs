//! Bifold's own SQL statements. Everything else that only reads is handed on to DataFusion as it is.
#![allow(clippy::result_large_err, reason = "a problem is the body of an answer: large, rare, never in a hot loop")]

mod as_of;
mod columns;
mod commands;
mod copy;
mod create_sink;
mod create_stream;
mod create_table;
mod create_view;
mod cursor;
mod depth;
mod foreign;
mod freeze;
pub mod interval;
mod misread;
mod names;
mod options;
mod places;
mod query;
mod refresh;
mod refused;
mod script;
mod table_source;
#[cfg(test)]
mod tests;
mod types;
pub mod union;
mod windows;

pub use as_of::{AsOf, without_as_of};
pub use foreign::{foreign, foreign_function};
pub use names::SCHEMAS;
pub use places::place_of;
pub use windows::plain_windows;

use crate::column::ColumnDef;
use crate::problem::{Problem, SqlPosition};
use crate::sink::{OutputMode, SinkTarget};
use crate::stream::{LatePolicy, OnBadData};
use crate::table::{TableSource, Validity};
use crate::transport::Transport;
use crate::view::{Refresh, TableJoin};

/// One statement of a script.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// `CREATE STREAM [IF NOT EXISTS] …` (or `CREATE SOURCE`)
    CreateStream(CreateStream),
    /// `CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] …`
    CreateView(CreateView),
    /// `CREATE [OR REPLACE] TABLE … FROM FILE | URL | POSTGRES …`
    CreateTable(CreateTable),
    /// `CREATE SINK … FROM view WITH (…)`
    CreateSink(CreateSink),
    /// `DROP STREAM|MATERIALIZED VIEW|TABLE|SINK [IF EXISTS] name`
    Drop {
        /// What is dropped.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// No error if there is none.
        if_exists: bool,
    },
    /// `SHOW STREAMS | TABLES | MATERIALIZED VIEWS | SINKS`
    Show(ObjectKind),
    /// `SHOW CREATE STREAM|TABLE|MATERIALIZED VIEW|SINK name`
    ShowCreate {
        /// What is shown.
        kind: ObjectKind,
        /// Its name.
        name: String,
    },
    /// `REFRESH MATERIALIZED VIEW name [FULL | INCREMENTAL]`
    Refresh {
        /// The view.
        name: String,
        /// True for `INCREMENTAL`.
        incremental: bool,
    },
    /// `REFRESH TABLE name`
    RefreshTable {
        /// The table.
        name: String,
    },
    /// `ROLLBACK MATERIALIZED VIEW name TO RUN n`
    Rollback {
        /// The view.
        name: String,
        /// The run to go back to.
        run: u64,
    },
    /// `COPY stream FROM 'file' [WITH (format = 'csv')]`
    Copy(CopyFrom),
    /// `EXPLAIN LAYERS <query>`
    ExplainLayers {
        /// The query.
        sql: String,
    },
    /// Anything else that only reads: `SELECT`, `WITH`, `VALUES`, `EXPLAIN`, `DESCRIBE`.
    Query {
        /// As written.
        sql: String,
    },
}

/// The kinds of things in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A stream.
    Stream,
    /// A static table.
    Table,
    /// A materialized view.
    View,
    /// A sink.
    Sink,
}

/// `CREATE STREAM`, checked: names are distinct, key and time columns exist, limits hold.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateStream {
    /// Name.
    pub name: String,
    /// No error if it exists.
    pub if_not_exists: bool,
    /// Columns.
    pub columns: Vec<ColumnDef>,
    /// Identity; may be empty.
    pub primary_key: Vec<String>,
    /// The event-time column.
    pub time_column: Option<String>,
    /// Microseconds.
    pub watermark_delay_us: i64,
    /// `partitions`, default 4; those of the topic where the stream is read from one.
    pub partitions: u32,
    /// True if the statement says how many: a topic that has another number is refused.
    pub partitions_given: bool,
    /// `dedup_horizon`, default 24 hours, microseconds.
    pub dedup_horizon_us: i64,
    /// `late`, default include.
    pub late: LatePolicy,
    /// `on_bad_data`, default quarantine.
    pub on_bad_data: OnBadData,
    /// `connector`, `topic`, `format`, `log`, `brokers`.
    pub transport: Transport,
}

/// `CREATE MATERIALIZED VIEW`, not yet compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateView {
    /// Name.
    pub name: String,
    /// No error if it exists.
    pub if_not_exists: bool,
    /// A new version of an existing one.
    pub or_replace: bool,
    /// Schedule.
    pub refresh: Refresh,
    /// `WITH (late = …)`.
    pub late: Option<LatePolicy>,
    /// `WITH NO DATA`: leave the history to the schedule.
    pub with_no_data: bool,
    /// The `SELECT`, exactly as written.
    pub sql: String,
    /// Where `sql` begins in the statement's text: 1-based line and column, to move error positions.
    pub sql_position: SqlPosition,
}

/// `CREATE [OR REPLACE] TABLE … FROM …`.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    /// Name.
    pub name: String,
    /// No error if it exists.
    pub if_not_exists: bool,
    /// A new version of an existing one.
    pub or_replace: bool,
    /// When views join it: `WITH (join = …)`, default late.
    pub join: TableJoin,
    /// When each row is valid: `WITH (valid_from = …)`.
    pub validity: Option<Validity>,
    /// Columns.
    pub columns: Vec<ColumnDef>,
    /// Where its rows come from.
    pub source: TableSource,
    /// `REFRESH EVERY INTERVAL '…'`, microseconds.
    pub refresh_us: Option<i64>,
}

/// `CREATE SINK`, its options checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSink {
    /// Name.
    pub name: String,
    /// No error if it exists.
    pub if_not_exists: bool,
    /// The view.
    pub view: String,
    /// Where the view's name stands in the script.
    pub view_position: SqlPosition,
    /// `mode`, default update.
    pub mode: OutputMode,
    /// `type` and what belongs to it.
    pub target: SinkTarget,
    /// `every`: how often the view is looked at, microseconds.
    pub every_us: i64,
}

/// `COPY … FROM`: events of a file, or of the files of a folder, on the server's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFrom {
    /// The stream.
    pub stream: String,
    /// The name, below the import folder.
    pub file: String,
    /// How it is written, where its name does not say so.
    pub format: Option<CopyFormat>,
}

/// How a file that is copied is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// A JSON object a line, or one JSON array.
    Json,
    /// CSV with a header line.
    Csv,
    /// Parquet.
    Parquet,
}

impl CopyFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Csv, Self::Parquet];

    /// As SQL has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

/// A statement, and where it stands in the script.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The statement.
    pub statement: Statement,
    /// Its text, without the semicolon and without comments around it.
    pub text: String,
    /// Where `text` begins in the script.
    pub position: SqlPosition,
}

/// Splits a script at its semicolons and parses each statement.
///
/// # Errors
/// A [`Problem`] with line, column and caret in the whole script, and a hint where one helps.
pub fn parse_script(sql: &str) -> Result<Vec<Placed>, Problem> {
    let script = script::Script::new(sql)?;
    let mut placed = vec![];
    for tokens in script.statements() {
        depth::check(&script, &tokens)?;
        let statement = commands::statement(&mut cursor::Cursor::new(&script, &tokens))
            .map_err(|problem| foreign::instead_of(problem, &script, &tokens))?;
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { continue };
        let text = script.text_between(*first, *last).to_owned();
        placed.push(Placed { statement, text, position: script.position(*first) });
    }
    Ok(placed)
}
