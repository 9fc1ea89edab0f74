//! The queue between the threads that append and the one that commits: bounded by bytes.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use schemas::limits::LOG_STALLED_MS;
use tokio::sync::oneshot;

use super::frame::EncodedFrame;
use crate::error::StorageError;
use crate::log::{Epoch, Placed};

/// One append.
#[derive(Debug)]
pub(in crate::log) struct Request {
    pub(in crate::log) frames: Vec<EncodedFrame>,
    pub(in crate::log) done: oneshot::Sender<Result<Vec<Placed>, StorageError>>,
}

impl Request {
    fn bytes(&self) -> usize {
        self.frames.iter().map(EncodedFrame::bytes).sum()
    }
}

#[derive(Debug)]
pub(in crate::log) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    requests: Vec<Request>,
    /// Of the requests, and of the group that is being written.
    bytes: usize,
    is_closed: bool,
    /// Since when a group is being written, if one is.
    writing_since: Option<Instant>,
    /// What is being done about it, where that is known.
    doing: Option<&'static str>,
    /// Ends when a group fails.
    epoch: Epoch,
    /// Why the log takes nothing any more.
    failure: Option<String>,
}

impl Queue {
    pub(in crate::log) fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), filled: Condvar::new(), bytes_max }
    }

    pub(in crate::log) fn epoch(&self) -> Epoch {
        self.inner.lock().epoch
    }

    /// Whether anything would be taken now.
    pub(in crate::log) fn check(&self, epoch: Epoch) -> Result<(), StorageError> {
        let inner = self.inner.lock();
        inner.check(epoch)?;
        inner.check_progress()?;
        if inner.bytes >= self.bytes_max { Err(full()) } else { Ok(()) }
    }

    /// Whether the group that is being written goes on.
    pub(in crate::log) fn check_progress(&self) -> Result<(), StorageError> {
        self.inner.lock().check_progress()
    }

    /// Takes an append; the lock gives it its place in the order of all. One that is larger than the
    /// bound is taken when it is alone.
    pub(in crate::log) fn push(&self, epoch: Epoch, request: Request) -> Result<(), StorageError> {
        let bytes = request.bytes();
        let mut inner = self.inner.lock();
        inner.check(epoch)?;
        if inner.bytes > 0 && inner.bytes + bytes > self.bytes_max {
            return Err(full());
        }
        inner.bytes += bytes;
        inner.requests.push(request);
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// All that is queued, as soon as something is; none once it is closed and empty.
    pub(in crate::log) fn take(&self) -> Option<Vec<Request>> {
        let mut inner = self.inner.lock();
        while inner.requests.is_empty() {
            if inner.is_closed {
                return None;
            }
            self.filled.wait(&mut inner);
        }
        inner.writing_since = Some(Instant::now());
        Some(std::mem::take(&mut inner.requests))
    }

    /// Begins the next epoch, as a group has failed, and takes out what is queued behind it: it was
    /// decided on top of that group.
    pub(in crate::log) fn end_epoch(&self) -> Vec<Request> {
        let mut inner = self.inner.lock();
        inner.epoch += 1;
        let behind = std::mem::take(&mut inner.requests);
        inner.bytes -= behind.iter().map(Request::bytes).sum::<usize>();
        behind
    }

    /// Makes room again, once a group is done with.
    pub(in crate::log) fn release(&self, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.bytes -= bytes;
        inner.writing_since = None;
        inner.doing = None;
    }

    /// Notes what is being done about the group that is being written: who is refused meanwhile is told.
    pub(in crate::log) fn note(&self, doing: &'static str) {
        self.inner.lock().doing = Some(doing);
    }

    /// Refuses everything from now on, and what is queued.
    pub(in crate::log) fn fail(&self, reason: &str) {
        let mut inner = self.inner.lock();
        inner.failure = Some(reason.to_owned());
        inner.bytes = 0;
        let refused = std::mem::take(&mut inner.requests);
        drop(inner);
        for request in refused {
            // Nobody waits any more: nobody needs to know.
            let _ = request.done.send(Err(failed(reason)));
        }
    }

    /// Whether it takes no more.
    pub(in crate::log) fn is_closed(&self) -> bool {
        self.inner.lock().is_closed
    }

    /// Takes no more; what is queued is still committed.
    pub(in crate::log) fn close(&self) {
        self.inner.lock().is_closed = true;
        self.filled.notify_all();
    }
}

impl Inner {
    fn check(&self, epoch: Epoch) -> Result<(), StorageError> {
        match &self.failure {
            Some(reason) => Err(failed(reason)),
            None if self.is_closed => Err(StorageError::Closed { what: "log".into() }),
            None if epoch != self.epoch => Err(StorageError::Outdated { what: "an append to the log".into() }),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// What would be queued behind a write that does not end would only wait.
    fn check_progress(&self) -> Result<(), StorageError> {
        let waited = self.writing_since.map(|since| since.elapsed()).unwrap_or_default();
        if waited < Duration::from_millis(LOG_STALLED_MS) {
            return Ok(());
        }
        let what = self.doing.map_or_else(|| "the log".to_owned(), |doing| format!("the log, which {doing},"));
        Err(StorageError::Stalled { what, seconds: waited.as_secs() })
    }
}

fn full() -> StorageError {
    StorageError::Full { what: "the log's queue".into() }
}

fn failed(reason: &str) -> StorageError {
    StorageError::io("appending to a log that has failed", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a disk or a broker that hangs ends in refusals, and not in requests that wait behind each other.
    #[test]
    fn nothing_new_is_taken_while_a_write_does_not_end() {
        let queue = Queue::new(100);
        let (done, _pending) = oneshot::channel();
        queue.push(0, Request { frames: vec![], done }).unwrap();
        assert_eq!(queue.take().unwrap().len(), 1);
        queue.check(0).unwrap();
        let long_ago = Instant::now().checked_sub(Duration::from_millis(LOG_STALLED_MS + 2_000));
        queue.inner.lock().writing_since = long_ago;
        let refused = queue.check(0).unwrap_err();
        assert!(matches!(refused, StorageError::Stalled { seconds: 7, .. }), "{refused}");
        queue.note("looks for its broker");
        let told = queue.check_progress().unwrap_err().to_string();
        assert_eq!(told, "the log, which looks for its broker, has not answered for 7 s");
        let problem = refused.problem();
        assert_eq!((problem.status, problem.retry_after_s), (503, Some(7)));
        queue.release(0);
        queue.check(0).unwrap();
    }
}
