//! `demo`: starts a platform of its own, then talks to it over HTTP like any user, and tells what it sees.

mod commits;
mod git;
mod scenario;
mod shop;
mod stage;
mod story;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;

use crate::arguments::{DemoArguments, GlobalOptions, ServeOptions};
use crate::client::Client;
use crate::config::{Config, Sources};
use crate::output::note;
use crate::platform::Platform;

use scenario::Scenario;

/// Runs the demo; the platform and its folder are gone afterwards unless `--keep` says otherwise.
pub async fn demo(global: &GlobalOptions, options: &DemoArguments) -> anyhow::Result<()> {
    let scenario = scenario(options).await?;
    let temporary = if options.keep { None } else { Some(temporary_folder()?) };
    let config = config(global, temporary.as_ref().map(|folder| folder.path().to_owned()))?;
    config.check_roles()?;
    let folder = config.data_dir.display().to_string();
    let platform = Platform::start(config).await?;
    let client = Client::new(platform.url(), Some(platform.token().to_owned()))?;
    let told = tokio::select! {
        told = story::tell(client, scenario) => told,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and_then(|()| {
            crate::exit::fail(crate::exit::Exit::Failed, "interrupted")
        }),
    };
    let stopped = platform.stop().await;
    if options.keep {
        note(&format!("the data is in {folder}; `bifold --data-dir {folder}` serves it"));
    }
    told.and(stopped)
}

fn temporary_folder() -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("bifold-demo-").tempdir().context("making a temporary folder")
}

async fn scenario(options: &DemoArguments) -> anyhow::Result<Scenario> {
    if let Some(path) = &options.git {
        let path = path.clone();
        return tokio::task::spawn_blocking(move || commits::of_repository(&path)).await?;
    }
    match &options.data {
        Some(path) => commits::of_file(path),
        None => Ok(shop::scenario(options.events)),
    }
}

/// The configuration of the demo's platform: a free port, and a folder of its own.
fn config(global: &GlobalOptions, folder: Option<PathBuf>) -> anyhow::Result<Config> {
    let base = match folder {
        Some(data_dir) => Config { data_dir, ..Config::default() },
        None => Config::load(&Sources::of_process(global, &ServeOptions::default()))?,
    };
    Ok(Config { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..base })
}
