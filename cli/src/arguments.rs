//! The command line: every command, option and environment variable of a client.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::ingest::bodies::InputFormat;
use crate::config::Role;
use crate::output::Format;

/// Exit codes, for the end of `--help`.
const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 a check failed, 4 not allowed, 5 unreachable.";

/// One SQL view, folded twice: once over all of history, once over what just happened.
#[derive(Debug, Parser)]
#[command(name = "bifold", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// Options of `serve`, which is what `bifold` alone does.
    #[command(flatten)]
    pub serve: ServeOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalOptions {
    /// Address of the server [default: what `--data-dir` says]
    #[arg(long, global = true, env = "BIFOLD_URL", value_name = "URL", hide_env_values = true)]
    pub url: Option<String>,
    /// Bearer token that a request carries [default: what `--data-dir` says]
    #[arg(long, global = true, env = "BIFOLD_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Folder of all data [default: ./bifold-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file [default: ./bifold.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Format of data on stdout [default: table on a terminal, ndjson in a pipe]
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// Options of `serve`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ServeOptions {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:4480]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Roles of this process [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE,…")]
    pub role: Vec<Role>,
}

impl ServeOptions {
    /// Options before the word `serve`, overridden by those after it.
    #[must_use]
    pub fn overridden_by(self, later: Self) -> Self {
        Self { listen: later.listen.or(self.listen), role: if later.role.is_empty() { self.role } else { later.role } }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the platform (what `bifold` alone does)
    Serve(ServeOptions),
    /// Tell the whole story in the terminal, on a platform of its own
    Demo(DemoArguments),
    /// Run SQL, or open a shell
    Sql(SqlArguments),
    /// Run a script, or every *.sql of a folder in order of name
    Apply(ApplyArguments),
    /// Send events (NDJSON, a JSON array, CSV, Parquet; gzip and zstd are unpacked)
    Ingest(IngestArguments),
    /// Streams
    Stream {
        /// What to do.
        #[command(subcommand)]
        action: CatalogAction,
    },
    /// Materialized views
    View {
        /// What to do.
        #[command(subcommand)]
        action: CatalogAction,
    },
    /// Start a batch run of a view, or look at runs
    Run(RunArguments),
    /// Print the newest certificate of a view; exit 3 on a violation
    Reconcile(ReconcileArguments),
    /// Dead letters: records that did not fit their stream
    Dlq {
        /// What to do.
        #[command(subcommand)]
        action: DlqAction,
    },
    /// What the server is doing
    Status,
    /// Configuration
    Config {
        /// What to do.
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Check that the server can be reached and the data folder written
    Doctor,
}

/// `demo`
#[derive(Debug, Clone, Args)]
pub struct DemoArguments {
    /// Tell it on the history of this git repository
    #[arg(long, value_name = "PATH", conflicts_with = "data")]
    pub git: Option<PathBuf>,
    /// Tell it on a file of commits (NDJSON, may be gzip or zstd)
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Events of the built-in generator
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["git", "data"])]
    pub events: u64,
    /// Keep the data in --data-dir instead of a temporary folder
    #[arg(long)]
    pub keep: bool,
}

/// `sql`
#[derive(Debug, Clone, Args)]
pub struct SqlArguments {
    /// SQL to run; without -c and -f: a shell on a terminal, else the script on stdin
    #[arg(short, long, value_name = "SQL", conflicts_with = "file")]
    pub command: Option<String>,
    /// Script to run
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Wait until the answer includes this position (ingest hands it out)
    #[arg(long, value_name = "TOKEN")]
    pub at_least: Option<String>,
}

/// `apply`
#[derive(Debug, Clone, Args)]
pub struct ApplyArguments {
    /// A script, or a folder with *.sql
    pub path: PathBuf,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `ingest`
#[derive(Debug, Clone, Args)]
pub struct IngestArguments {
    /// The stream
    pub stream: String,
    /// A file, a folder of files, or - for stdin; .csv and .parquet are told by their names
    pub file: String,
    /// How the events are written [default: what the name of the file says, else JSON]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<InputFormat>,
    /// Read everything first, and send nothing if one event does not fit; needs a stream with a primary key, so
    /// that an import that was cut short can be started again
    #[arg(long)]
    pub all_or_nothing: bool,
    /// Events in one request
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub batch_rows: u64,
    /// Requests under way at the same time; more than one gives up the order of events
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub in_flight: u64,
}

/// `stream …`, `view …`
#[derive(Debug, Clone, Subcommand)]
pub enum CatalogAction {
    /// List them
    Ls,
    /// Print the statement that creates one
    Show {
        /// Its name
        name: String,
    },
}

/// `run …`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunArguments {
    /// Look at runs instead.
    #[command(subcommand)]
    pub action: Option<RunAction>,
    /// The view to recompute
    #[arg(value_name = "VIEW", required_unless_present = "named_view")]
    pub view: Option<String>,
    /// The same, for a view whose name is one of the commands
    #[arg(long = "view", value_name = "VIEW", conflicts_with = "view")]
    pub named_view: Option<String>,
    /// Wait for its end; exit 3 if its certificate is a violation
    #[arg(long)]
    pub wait: bool,
}

/// `run ls|show|cancel`
#[derive(Debug, Clone, Subcommand)]
pub enum RunAction {
    /// List runs, newest first
    Ls,
    /// Show one run
    Show {
        /// Its number
        id: u64,
    },
    /// Stop a run
    Cancel {
        /// Its number
        id: u64,
    },
}

/// `reconcile`
#[derive(Debug, Clone, Args)]
pub struct ReconcileArguments {
    /// The view
    pub view: String,
    /// The certificate of this run instead of the newest
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
}

/// `dlq …`
#[derive(Debug, Clone, Subcommand)]
pub enum DlqAction {
    /// Dead letters per stream
    Ls,
    /// The dead letters of one stream
    Show {
        /// The stream
        stream: String,
        /// Only this one
        #[arg(long, value_name = "N")]
        offset: Option<u64>,
        /// Its bytes, exactly as they were sent
        #[arg(long, requires = "offset")]
        raw: bool,
    },
    /// Send dead letters through the door again; a replayed letter stays, marked, and is not replayed twice
    Replay(ReplayArguments),
}

/// `dlq replay`
#[derive(Debug, Clone, Args)]
pub struct ReplayArguments {
    /// The stream
    pub stream: String,
    /// Only these, by their offsets [default: all that are not replayed yet]
    #[arg(long = "offset", value_name = "N,…", value_delimiter = ',')]
    pub offsets: Vec<u64>,
    /// Put this value in place of what was sent; may be given several times
    #[arg(long = "set", value_name = "COLUMN=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((column, value)) if !column.trim().is_empty() => Ok((column.trim().to_owned(), value.to_owned())),
        _ => Err("expected COLUMN=VALUE".into()),
    }
}

/// `config …`
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Print the configuration that is in force
    Show {
        /// And where each value comes from
        #[arg(long)]
        origin: bool,
    },
}

#[cfg(test)]
mod tests;
