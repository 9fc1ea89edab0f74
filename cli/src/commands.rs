//! One file per command; each turns parsed arguments into requests and prints the answer.

pub mod apply;
mod catalog;
mod completions;
mod config;
mod dlq;
mod doctor;
pub mod ingest;
mod reconcile;
pub mod run;
mod serve;
pub mod sql;
mod status;

use crate::arguments::{Arguments, Command, GlobalOptions, ServeOptions};
use crate::client::Client;
use crate::exit::{Exit, fail};
use crate::output::Output;

pub(crate) use catalog::create_statement;
pub(crate) use reconcile::summary as reconcile_summary;

/// What every client command needs.
#[derive(Debug)]
pub struct Session {
    /// The server.
    pub client: Client,
    /// Where data goes.
    pub output: Output,
}

impl Session {
    /// The server and the format that the options name.
    pub fn new(options: &GlobalOptions) -> anyhow::Result<Self> {
        Ok(Self { client: Client::find(options)?, output: Output::new(options.output) })
    }
}

/// Carries out one command line.
///
/// # Errors
/// With the exit code in a [`crate::exit::Failure`].
pub async fn dispatch(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { global, serve, command } = arguments;
    let command = match command {
        None => return serve::serve(&global, &serve).await,
        Some(Command::Serve(later)) => return serve::serve(&global, &serve.overridden_by(later)).await,
        Some(command) => command,
    };
    if serve != ServeOptions::default() && !matches!(command, Command::Config { .. }) {
        return fail(Exit::Usage, "--listen and --role belong to `bifold serve`");
    }
    match command {
        Command::Demo(options) => crate::demo::demo(&global, &options).await,
        Command::Config { action } => config::show(&global, &serve, &action),
        Command::Completions { shell } => completions::print(shell),
        Command::Doctor => doctor::doctor(&global).await,
        other => client_command(&Session::new(&global)?, other).await,
    }
}

async fn client_command(session: &Session, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Sql(options) => sql::sql(session, &options).await,
        Command::Apply(options) => apply::apply(session, &options).await,
        Command::Ingest(options) => ingest::ingest(session, &options).await,
        Command::Stream { action } => catalog::catalog(session, catalog::STREAM, &action).await,
        Command::View { action } => catalog::catalog(session, catalog::VIEW, &action).await,
        Command::Run(options) => run::run(session, options).await,
        Command::Reconcile(options) => reconcile::reconcile(session, &options).await,
        Command::Dlq { action } => dlq::dlq(session, &action).await,
        Command::Status => status::status(session).await,
        // Handled before a client is made.
        Command::Serve(_)
        | Command::Demo(_)
        | Command::Config { .. }
        | Command::Completions { .. }
        | Command::Doctor => Ok(()),
    }
}
