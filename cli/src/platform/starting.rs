//! A platform that is starting: it listens at once, and says how far it is until it is recovered.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use storage::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::folder::DataFolder;
use super::gate::{Gate, Progress};
use super::listener::Bounded;
use super::reader::{self, Reader};
use super::surroundings::Surroundings;
use super::{Node, Owner, Platform, Wired, http, replay, run, wire};
use crate::config::Config;

/// How many ports after the configured one are tried when it is taken.
const PORTS_TRIED: u16 = 20;

/// A platform between its first request and its recovery: `/healthz` is 200, `/readyz` 503 with the
/// reasons, everything else a 503 problem with `Retry-After`.
#[derive(Debug)]
pub struct Starting {
    config: Config,
    folder: Arc<DataFolder>,
    address: SocketAddr,
    taken_port: Option<u16>,
    gate: Arc<Gate>,
    progress: Progress,
    server: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Starting {
    /// Takes the data folder and listens.
    ///
    /// # Errors
    /// The folder is in use by another process; no port is free.
    pub async fn listen(config: Config) -> anyhow::Result<Self> {
        config.check_roles()?;
        let folder = Arc::new(DataFolder::open(&config)?);
        let (listener, taken_port) = listen(config.listen).await?;
        let address = listener.local_addr()?;
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let gate = Gate::new(progress.clone());
        let listener = Bounded::new(listener, config.limits.connections_at_once);
        let server = axum::serve(listener, gate.router()).with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = tokio::spawn(async move { server.await });
        Ok(Self { config, folder, address, taken_port, gate, progress, server, stop })
    }

    /// `http://127.0.0.1:4480`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens and recovers every stream, replays what is not in its deltas, and lets every request in.
    ///
    /// # Errors
    /// The folder is damaged. Nothing listens any more then.
    pub async fn recover(self) -> anyhow::Result<Platform> {
        self.recover_on(&Surroundings::default()).await
    }

    /// [`Starting::recover`] with a clock of the caller's.
    ///
    /// # Errors
    /// As there.
    pub async fn recover_with_clock(self, clock: Arc<dyn Clock>) -> anyhow::Result<Platform> {
        self.recover_on(&Surroundings::with_clock(clock)).await
    }

    async fn recover_on(self, surroundings: &Surroundings) -> anyhow::Result<Platform> {
        // whatever ends this halfway ends the server too
        let unless_recovered = self.stop.clone().drop_guard();
        let (node, work) = if self.config.only_answers() {
            self.reader(surroundings).await?
        } else {
            self.owner(surroundings).await?
        };
        let url = self.url();
        self.folder.announce(&url)?;
        let stop = unless_recovered.disarm();
        let work = match work {
            Work::Owner(wired) => tokio::spawn(run(*wired, self.server, stop.clone())),
            Work::Reader(reader) => tokio::spawn(reader::run(*reader, self.server, stop.clone())),
        };
        Ok(Platform {
            address: self.address,
            url,
            token: self.folder.token().to_owned(),
            taken_port: self.taken_port,
            stop,
            work: Mutex::new(Some(work)),
            folder: self.folder,
            node,
        })
    }

    async fn owner(&self, surroundings: &Surroundings) -> anyhow::Result<(Node, Work)> {
        let metrics = http::metrics()?;
        let wired = wire(&self.config, &self.folder, surroundings, &self.stop, &self.progress).await?;
        wired.tasks.spawn("metrics", http::keep_metrics_small(metrics.clone(), self.stop.clone()));
        if let Err(failed) = replay(&wired, &self.progress).await {
            self.stop.cancel();
            // the first failure is the reason; what fails on the way down follows from it
            let _ = wired.wind_down().await;
            return Err(failed);
        }
        self.gate.open(http::router(&wired, self.folder.token(), metrics));
        let owner = Owner { ingest: Arc::clone(&wired.ingest), registry: Arc::clone(&wired.registry) };
        Ok((Node { engine: Arc::clone(&wired.engine), owner: Some(owner) }, Work::Owner(Box::new(wired))))
    }

    async fn reader(&self, surroundings: &Surroundings) -> anyhow::Result<(Node, Work)> {
        let metrics = http::metrics()?;
        let reader = reader::wire(&self.config, &self.folder, Arc::clone(&surroundings.clock)).await?;
        reader.tasks.spawn("metrics", http::keep_metrics_small(metrics.clone(), self.stop.clone()));
        self.gate.open(http::reader_router(&reader, self.folder.token(), metrics));
        Ok((Node { engine: Arc::clone(&reader.engine), owner: None }, Work::Reader(Box::new(reader))))
    }
}

/// What goes on until the platform is stopped.
enum Work {
    Owner(Box<Wired>),
    Reader(Box<Reader>),
}

/// The configured address, or the next free port.
async fn listen(wanted: SocketAddr) -> anyhow::Result<(TcpListener, Option<u16>)> {
    let mut address = wanted;
    for _ in 0..=PORTS_TRIED {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok((listener, (address.port() != wanted.port()).then_some(wanted.port()))),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && address.port() < u16::MAX => {
                address.set_port(address.port() + 1);
            }
            Err(error) => return Err(error).with_context(|| format!("listening on {address}")),
        }
    }
    anyhow::bail!("ports {} to {} are all taken: choose another one with --listen", wanted.port(), address.port())
}
