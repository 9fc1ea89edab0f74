//! A process: a platform on a runtime of its own, of one thread, whose time moves only when nothing else does.
//! Dropping the runtime is the crash.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use bifold::config::Config;
use bifold::platform::{Enclosed, Surroundings};
use parking_lot::Mutex;
use serde_json::Value;
use storage::clock::Clock;
use storage::layers::Speed;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tower::ServiceExt;
use uuid::Uuid;

use super::barriers::Barriers;
use super::link::Link;
use super::log::Logs;
use super::store::SimulatedStore;

/// A simulation that stands still for so long, by the machine's clock, has lost its way.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often a task may go to the thread for what blocks and come back, at one moment.
const ROUNDS: usize = 6;
/// The node that all processes are: copies of one data folder.
const NODE: Uuid = Uuid::from_u128(0x0b1f_01d0_0000_4000_8000_0000_0000_0001);
/// What the processes' clients show.
const TOKEN: &str = "simulation";

/// What a client sends.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// What it hears.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) number: u64,
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// How far a process is.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    #[default]
    Starting,
    Ready(Arc<Enclosed>),
    /// It ended by itself, with its reason.
    Ended(String),
}

#[derive(Default)]
struct Shared {
    phase: Mutex<Phase>,
    heard: Mutex<Vec<Heard>>,
}

/// One process.
pub(crate) struct Process {
    pub(crate) link: Arc<Link>,
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    watchdog: Watchdog,
}

impl Process {
    /// Starts a platform in a data folder; it is ready when the simulation has let it.
    pub(crate) fn start(link: Arc<Link>, folder: &Path) -> Self {
        let mut builder = Builder::new_current_thread();
        // one thread for what blocks: in the order in which it was begun
        let runtime = builder.enable_time().start_paused(true).max_blocking_threads(1).build().expect("a runtime");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("node-id"), NODE.to_string()).expect("a file");
        let shared = Arc::<Shared>::default();
        runtime.spawn(live(config(folder), surroundings(&link), Arc::clone(&shared)));
        Self { link, runtime: Some(runtime), shared, watchdog: Watchdog::start() }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.shared.phase.lock(), Phase::Ready(_))
    }

    /// Why the process ended by itself, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        match &*self.shared.phase.lock() {
            Phase::Ended(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Sends a request; what it hears comes out of [`Process::heard`].
    pub(crate) fn call(&self, call: Call) {
        let platform = match &*self.shared.phase.lock() {
            Phase::Ready(platform) => Arc::clone(platform),
            _ => return,
        };
        let (Some(runtime), shared, link) = (&self.runtime, Arc::clone(&self.shared), Arc::clone(&self.link)) else {
            return;
        };
        runtime.spawn(async move {
            let (status, body) = ask(&platform, &call).await;
            // what a dead process says is heard by nobody
            if !link.is_dead() {
                shared.heard.lock().push(Heard { number: call.number, status, body });
            }
        });
    }

    /// Tells the platform to end in good order.
    pub(crate) fn stop(&self) {
        if let (Phase::Ready(platform), Some(runtime)) = (&*self.shared.phase.lock(), &self.runtime) {
            let platform = Arc::clone(platform);
            // its end is seen where its work is waited for
            runtime.spawn(async move { platform.stop().await });
        }
    }

    /// What was heard since the last time, by number.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        let mut heard = std::mem::take(&mut *self.shared.heard.lock());
        heard.sort_by_key(|heard| heard.number);
        heard
    }

    /// Runs everything that can run, until all of it waits for the simulation or for a later time.
    pub(crate) fn settle(&self) {
        let Some(runtime) = &self.runtime else { return };
        runtime.block_on(async {
            loop {
                let before = self.link.arrivals();
                self.pass_time(1).await;
                come_to_rest().await;
                if self.link.arrivals() == before {
                    return self.link.has_settled();
                }
            }
        });
    }

    /// Lets so much time pass, without letting anything on the world happen.
    pub(crate) fn idle(&self, milliseconds: u64) {
        let Some(runtime) = &self.runtime else { return };
        runtime.block_on(self.pass_time(milliseconds));
    }

    /// The runtime's clock moves only when no task can go on and no other thread works for one: then all
    /// has settled.
    async fn pass_time(&self, milliseconds: u64) {
        self.link.world.clock.advance_us(milliseconds as i64 * 1_000);
        let _watched = self.watchdog.watch();
        tokio::select! {
            biased;
            () = tokio::time::sleep(Duration::from_millis(milliseconds)) => {}
            () = self.watchdog.barks.notified() => panic!(
                "the simulation stands still\nprocess {} waits for: {}\n{}",
                self.link.number,
                self.link.waits_for(),
                self.link.world.last_lines(40),
            ),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.link.die();
        // a platform in here would hold its own runtime's tasks
        *self.shared.phase.lock() = Phase::Starting;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

/// Barks when the machine's clock says that nothing has happened for long.
struct Watchdog {
    /// True: there is something to watch; false: that has ended.
    watching: mpsc::Sender<bool>,
    barks: Arc<Notify>,
}

struct Watched<'a>(&'a Watchdog);

impl Watchdog {
    fn start() -> Self {
        let (watching, told) = mpsc::channel();
        let barks = Arc::new(Notify::new());
        let bark = Arc::clone(&barks);
        std::thread::spawn(move || {
            while let Ok(is_watching) = told.recv() {
                if is_watching && told.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    bark.notify_one();
                }
            }
        });
        Self { watching, barks }
    }

    fn watch(&self) -> Watched<'_> {
        let _ = self.watching.send(true);
        Watched(self)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let _ = self.0.watching.send(false);
    }
}

/// Tasks whose time came with ours run to where they wait, and what they have begun on the one thread for what
/// blocks ends: ours is begun behind it. No time passes meanwhile.
async fn come_to_rest() {
    for _ in 0..ROUNDS {
        tokio::task::yield_now().await;
        tokio::task::spawn_blocking(|| ()).await.expect("nothing panics");
    }
}

async fn live(config: Config, surroundings: Surroundings, shared: Arc<Shared>) {
    let ended = match Enclosed::start(&config, &surroundings).await {
        Ok(platform) => {
            let platform = Arc::new(platform);
            *shared.phase.lock() = Phase::Ready(Arc::clone(&platform));
            platform.wait().await
        }
        Err(error) => Err(error),
    };
    let why = ended.map_or_else(|error| format!("{error:#}"), |()| "stopped".to_owned());
    *shared.phase.lock() = Phase::Ended(why);
}

fn config(folder: &Path) -> Config {
    let mut config =
        Config { data_dir: folder.to_owned(), store_url: Some("s3://simulation/".into()), ..Config::default() };
    config.auth.token = Some(TOKEN.into());
    config.limits.checkpoint_interval_ms = 40;
    config.limits.landing_interval_ms = 150;
    config.limits.store_cache_bytes_max = 0;
    // so few that they go to disk
    config.limits.dedup_ids_in_memory_max = 90;
    config
}

fn surroundings(link: &Arc<Link>) -> Surroundings {
    let between = Arc::clone(link);
    Surroundings {
        clock: Arc::new(link.world.clock.clone()) as Arc<dyn Clock>,
        store: Some(SimulatedStore::open(link)),
        logs: Some(Arc::new(Logs(Arc::clone(link)))),
        before_speed: Some(Arc::new(move |speed| {
            Arc::new(Barriers { link: Arc::clone(&between), speed }) as Arc<dyn Speed>
        })),
        // two would read one file's metadata once or twice, by chance
        threads: 1,
    }
}

async fn ask(platform: &Enclosed, call: &Call) -> (u16, Value) {
    let content_type = if call.path.ends_with("/events") { "application/x-ndjson" } else { "application/json" };
    let request = Request::builder()
        .method(call.method)
        .uri(&call.path)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", content_type)
        .body(Body::from(call.body.clone()))
        .expect("a request");
    let response = match platform.router().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body in memory");
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}
