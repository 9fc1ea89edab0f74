//! How many readers of changes there are at a time, what is held for them, and their end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use schemas::limits::{CHANGE_READERS_MAX, CHANGE_SNAPSHOTS_MAX};
use schemas::{Code, Problem};
use storage::snapshot::ViewSnapshot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// How long the snapshot is held that a reader was given last. One that comes later is told a little more than it
/// needs to know.
const HELD: Duration = Duration::from_secs(30);

/// Room for readers.
#[derive(Debug)]
pub struct FeedRoom {
    places: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    held: Mutex<Vec<Weak<Mutex<Held>>>>,
}

impl Default for FeedRoom {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(CHANGE_READERS_MAX)),
            snapshots: Arc::new(Semaphore::new(CHANGE_SNAPSHOTS_MAX)),
            closing: watch::Sender::new(false),
            held: Mutex::default(),
        }
    }
}

/// The snapshot that a reader was given last.
#[derive(Debug)]
struct Held {
    snapshot: Option<Arc<ViewSnapshot>>,
    since: Instant,
}

/// A reader's place; it is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    snapshots: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
    held: Arc<Mutex<Held>>,
}

impl FeedRoom {
    pub(super) fn enter(&self) -> Result<Place, Problem> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Problem::new(
                Code::Overloaded,
                format!("{CHANGE_READERS_MAX} readers of changes are there, more are not admitted"),
            )
        })?;
        let held = Arc::new(Mutex::new(Held { snapshot: None, since: Instant::now() }));
        let mut all = self.held.lock();
        all.retain(|held| held.strong_count() > 0);
        all.push(Arc::downgrade(&held));
        let (snapshots, closing) = (Arc::clone(&self.snapshots), self.closing.subscribe());
        Ok(Place { _permit: permit, snapshots, closing, held })
    }

    /// Lets go what is held for readers that stay away.
    pub(super) fn forget_old(&self) {
        for held in self.held.lock().iter().filter_map(Weak::upgrade) {
            let mut held = held.lock();
            if held.since.elapsed() > HELD {
                held.snapshot = None;
            }
        }
    }

    /// Ends all readers.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }
}

impl Place {
    /// Waits for the turn to read a whole view.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.snapshots).acquire_owned().await.ok()
    }

    /// Waits, but not beyond the end; false at the end.
    pub(super) async fn rest(&mut self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Holds the snapshot that the reader has now.
    pub(super) fn hold(&self, snapshot: &Arc<ViewSnapshot>) {
        *self.held.lock() = Held { snapshot: Some(Arc::clone(snapshot)), since: Instant::now() };
    }

    /// The snapshot that the reader has, if it is still held.
    pub(super) fn held(&self) -> Option<Arc<ViewSnapshot>> {
        self.held.lock().snapshot.clone()
    }

    /// Holds nothing any more: the reader has another state, or none.
    pub(super) fn let_go(&self) {
        self.held.lock().snapshot = None;
    }
}
