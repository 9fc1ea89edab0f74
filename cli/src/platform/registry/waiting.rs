//! Streams whose log is at a broker that does not answer when the platform starts: it starts without them, answers 503
//! for them, and goes on with them when the broker is back.

use std::sync::Arc;
use std::time::Duration;

use batch::RunService;
use schemas::{Code, LogKind, Problem, StreamDef};
use storage::StorageError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Registry;

/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A stream of the catalogue that is not open.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) def: Arc<StreamDef>,
    /// Why.
    pub(crate) reason: String,
}

impl Waiting {
    /// What whoever asks for the stream is told.
    pub(crate) fn problem(&self) -> Problem {
        let detail = format!("stream {}: waits for the broker of its log: {}", self.def.name, self.reason);
        Problem::new(Code::StorageUnavailable, detail)
    }
}

/// True for a failure that ends when a broker is back; everything else is the end of a start.
pub(super) fn may_come_back(stream: &StreamDef, error: &anyhow::Error) -> bool {
    let is_unavailable = match (error.downcast_ref::<StorageError>(), error.downcast_ref::<Problem>()) {
        (Some(StorageError::Io { .. }), _) => true,
        (_, Some(problem)) => problem.code == Code::StorageUnavailable,
        _ => false,
    };
    stream.transport.log == LogKind::Kafka && is_unavailable
}

impl Registry {
    /// Notes why a stream is not open.
    pub(super) fn note_waiting(&self, stream: &StreamDef, error: &anyhow::Error) {
        let waiting = Waiting { def: Arc::new(stream.clone()), reason: format!("{error:#}") };
        tracing::warn!(stream = %stream.name, reason = waiting.reason, "the stream's log cannot be reached");
        self.waiting.write().insert(stream.id, waiting);
    }

    /// Streams that are not open, by id.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        self.waiting.read().values().cloned().collect()
    }

    /// Opens a stream as soon as its broker answers.
    ///
    /// # Errors
    /// What would have ended the start: the log is damaged, or not the one that the store was made from.
    pub(crate) async fn open_when_reached(
        self: Arc<Self>,
        id: Uuid,
        runs: Arc<RunService>,
        stop: CancellationToken,
    ) -> Result<(), Problem> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
            let opened = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                opened = self.try_again(id) => opened?,
            };
            if opened {
                return runs.complete_history().await;
            }
        }
    }

    /// True when there is nothing to wait for any more.
    async fn try_again(&self, id: Uuid) -> Result<bool, Problem> {
        let catalog = self.parts.catalog.current();
        let Some(stream) = catalog.stream_by_id(id) else { return Ok(true) };
        let opened = match self.recover_stream(stream, &catalog).await {
            Ok(opened) => opened,
            Err(error) if may_come_back(stream, &error) => {
                self.note_waiting(stream, &error);
                return Ok(false);
            }
            Err(error) => {
                return Err(Problem::new(Code::Internal, format!("opening stream {}: {error:#}", stream.name)));
            }
        };
        // an answer must have what was acknowledged before this process began
        if let Some(speed) = self.parts.speed.stream(id) {
            let head = opened.stream.log.head();
            // a fold that is gone is the end of the platform
            let _ = speed.watch_folded().wait_for(|folded| head.is_at_most(folded)).await;
        }
        self.publish(opened);
        self.waiting.write().remove(&id);
        tracing::info!(stream = %stream.name, "the stream's log is reached again");
        // what was dropped meanwhile
        let catalog = self.parts.catalog.current();
        self.views.write().retain(|view, _| catalog.views.iter().any(|known| known.id == *view));
        if catalog.stream_by_id(id).is_none() {
            self.close_stream(id).await;
        }
        Ok(true)
    }
}
