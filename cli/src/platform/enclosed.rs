//! A platform without a network: all roles, but requests are handed to it in the process.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::folder::DataFolder;
use super::gate::Progress;
use super::surroundings::Surroundings;
use super::{http, replay, run, wire};
use crate::config::Config;

/// A platform that nobody can connect to. Dropping it does not stop it; dropping its runtime does, as a
/// crash would.
#[derive(Debug)]
pub struct Enclosed {
    router: Router,
    token: String,
    stop: CancellationToken,
    work: Mutex<Option<JoinHandle<anyhow::Result<()>>>>,
}

impl Enclosed {
    /// Opens the data folder and recovers every stream; returns when it is ready. Nothing listens.
    ///
    /// # Errors
    /// The folder is in use by another process or damaged; the store belongs to another node.
    pub async fn start(config: &Config, surroundings: &Surroundings) -> anyhow::Result<Self> {
        let folder = Arc::new(DataFolder::open(config)?);
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let unless_recovered = stop.clone().drop_guard();
        let metrics = http::metrics()?;
        let wired = wire(config, &folder, surroundings, &stop, &progress).await?;
        if let Err(failed) = replay(&wired, &progress).await {
            stop.cancel();
            // the first failure is the reason; what fails on the way down follows from it
            let _ = wired.wind_down().await;
            return Err(failed);
        }
        let router = http::router(&wired, folder.token(), metrics);
        let stopped = unless_recovered.disarm();
        let nobody = tokio::spawn(async move {
            stopped.cancelled().await;
            Ok(())
        });
        let work = tokio::spawn(run(wired, nobody, stop.clone()));
        Ok(Self { router, token: folder.token().to_owned(), stop, work: Mutex::new(Some(work)) })
    }

    /// All routes of the HTTP interface.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Waits until the platform ends: after [`Enclosed::stop`], or because a part of it failed.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn wait(&self) -> anyhow::Result<()> {
        let mut work = self.work.lock().await;
        let Some(running) = work.as_mut() else { return Ok(()) };
        let ended = running.await;
        // only now: whoever stopped waiting half-way may wait again
        *work = None;
        ended.context("the platform stopped abnormally")?
    }

    /// Takes no more requests, checkpoints, and ends.
    ///
    /// # Errors
    /// What failed on the way; nothing acknowledged is lost by that.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.wait().await
    }
}
