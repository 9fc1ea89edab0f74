//! The command line: every command, option and environment variable of a client.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

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
    /// Send events (NDJSON or a JSON array; gzip and zstd are unpacked)
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
    /// A file, or - for stdin
    pub file: String,
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
    },
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
