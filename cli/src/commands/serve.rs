//! `serve`: the platform in this process, until it is told to stop.

use std::io::IsTerminal;
use std::pin::pin;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::arguments::{GlobalOptions, ServeOptions};
use crate::config::{Config, LogFormat, Sources};
use crate::exit::{Exit, fail};
use crate::output::note;
use crate::platform::Platform;

pub(super) async fn serve(global: &GlobalOptions, options: &ServeOptions) -> anyhow::Result<()> {
    let config = Config::load(&Sources::of_process(global, options))?;
    config.check_roles()?;
    start_logging(&config)?;
    let folder = config.data_dir.display().to_string();
    let wanted = config.listen;
    let platform = Platform::start(config).await?;
    if let Some(port) = platform.taken_port() {
        note(&format!("port {port} is taken, so this one listens on {}", platform.address()));
    }
    if !wanted.ip().is_loopback() {
        note("listening beyond this machine, without TLS: put a proxy with TLS in front");
    }
    note(&welcome(platform.url(), &folder, &platform.token_file().display().to_string()));
    let mut ended = pin!(platform.wait());
    tokio::select! {
        result = &mut ended => return result,
        result = stop_signal() => result?,
    }
    note("stopping: no more requests, last checkpoint");
    let (result, stopped) = tokio::join!(ended, platform.stop());
    result.and(stopped)
}

/// Where everything is, and a first event to paste.
fn welcome(url: &str, folder: &str, token_file: &str) -> String {
    format!(
        "bifold {version} is ready

  address      {url}
  data folder  {folder}
  admin token  {token_file} (on this machine the command line finds it)

  first steps:
    bifold sql -c \"CREATE STREAM clicks (id TEXT NOT NULL, page TEXT, event_time TIMESTAMPTZ NOT NULL, PRIMARY KEY (id))\"
    curl -sS {url}/v1/streams/clicks/events \\
         -H \"Authorization: Bearer $(cat '{token_file}')\" \\
         -H 'Content-Type: application/x-ndjson' -d '{{\"id\":\"1\",\"page\":\"/\",\"event_time\":\"2026-01-05T08:00:00Z\"}}'
    bifold demo
",
        version = env!("CARGO_PKG_VERSION")
    )
}

/// Ends when the process is asked to stop: Ctrl-C, or SIGTERM from a supervisor.
async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => Ok(result?),
        _ = terminate.recv() => Ok(()),
    }
}

/// The process's log goes to stderr.
fn start_logging(config: &Config) -> anyhow::Result<()> {
    let Ok(filter) = EnvFilter::try_new(filter_text(&config.log.level)) else {
        return fail(Exit::Usage, format!("log.level: `{}` is no level and no filter", config.log.level));
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// At the plain level `info` libraries only warn: one of them reports every commit of the master.
fn filter_text(level: &str) -> String {
    match level {
        "info" => "info,delta_kernel=warn,delta_kernel_default_engine=warn,datafusion=warn".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn welcome_has_the_address_the_folder_the_token_and_a_curl() {
        insta::assert_snapshot!(
            "welcome",
            welcome("http://127.0.0.1:4480", "./bifold-data", "./bifold-data/admin-token")
        );
    }
}
