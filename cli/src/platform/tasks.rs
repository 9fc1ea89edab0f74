//! Background work: everything runs in one set, and the first failure ends the process with a reason.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use schemas::Problem;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

type Work = Pin<Box<dyn Future<Output = (&'static str, Result<(), Problem>)> + Send>>;

/// The set; clones share it. Work may be added while others run (a stream is created, say).
#[derive(Clone)]
pub(crate) struct Tasks {
    added: mpsc::UnboundedSender<Work>,
    running: Arc<Mutex<Running>>,
}

struct Running {
    incoming: mpsc::UnboundedReceiver<Work>,
    set: JoinSet<(&'static str, Result<(), Problem>)>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        // bounded by what is declared: a handful of tasks, and one for each stream
        let (added, incoming) = mpsc::unbounded_channel();
        Self { added, running: Arc::new(Mutex::new(Running { incoming, set: JoinSet::new() })) }
    }

    /// Adds work; `name` is for the message when it fails.
    pub(crate) fn spawn(&self, name: &'static str, work: impl Future<Output = Result<(), Problem>> + Send + 'static) {
        // a closed channel means that the platform has ended
        let _ = self.added.send(Box::pin(async move { (name, work.await) }));
    }

    /// Runs everything; returns when something fails.
    pub(crate) async fn first_failure(&self) -> anyhow::Error {
        let mut running = self.running.lock().await;
        let Running { incoming, set } = &mut *running;
        loop {
            tokio::select! {
                biased;
                Some(work) = incoming.recv() => { set.spawn(work); }
                Some(ended) = set.join_next() => if let Err(error) = outcome(ended) { return error },
            }
        }
    }

    /// Waits for the end of everything, after it was told to stop.
    pub(crate) async fn finish(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        while let Ok(work) = running.incoming.try_recv() {
            running.set.spawn(work);
        }
        let mut result = Ok(());
        while let Some(ended) = running.set.join_next().await {
            result = result.and(outcome(ended));
        }
        result
    }
}

fn outcome(ended: Result<(&'static str, Result<(), Problem>), tokio::task::JoinError>) -> anyhow::Result<()> {
    match ended {
        Ok((_, Ok(()))) => Ok(()),
        Ok((name, Err(problem))) => Err(anyhow::anyhow!("{name}: {}", problem.text())),
        Err(error) => Err(anyhow::Error::new(error)),
    }
}
