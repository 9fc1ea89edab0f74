//! Requests of one source, let in one behind the other without waiting for the end of each.
//!
//! ```text
//!  1  decide ─► queued ══════════════► durable
//!  2            decide ─► queued ════════════► durable      if 1 fails, 2 fails with it, and 3 is refused:
//!  3                      decide ─► queued ══► …            the series has ended
//! ```
//!
//! Whoever goes on behind what he has let in has to know that all before it is in the log. A request of a client stands
//! for itself: it is decided again on whatever state there is.

use std::sync::Arc;

use storage::StorageError;

use super::parts::Part;
use super::{Admission, Admitted, Queued, State};

/// What the requests of a series are decided on: one state as it was read from the log, and what was decided since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Series(u64);

impl Series {
    pub(super) fn is_on(self, state: &State) -> bool {
        state.generation == self.0
    }
}

/// A request that is decided, and on its way to the disk.
#[derive(Debug)]
pub(crate) struct UnderWay {
    queued: Queued,
    parts: Arc<[Part]>,
}

impl Admission {
    /// Begins a series: it ends when an append fails, its own or another one.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) async fn begin_series(&self) -> Result<Series, StorageError> {
        loop {
            self.ensure_recovered().await?;
            if let Some(state) = self.state.lock().as_ref() {
                return Ok(Series(state.generation));
            }
        }
    }

    /// Queues what is new in `parts`, behind what the series has queued before. [`Admission::finish`] has to be waited for.
    ///
    /// # Errors
    /// `Outdated` when the series has ended; `Full` when there is no room. Nothing is queued then.
    pub(crate) async fn queue(self: &Arc<Self>, series: Series, parts: &Arc<[Part]>) -> Result<UnderWay, StorageError> {
        let decided = self.decide_where_it_may_block(parts, Some(series)).await;
        self.spill_if_due();
        match decided? {
            Some(queued) => Ok(UnderWay { queued, parts: Arc::clone(parts) }),
            None => Err(StorageError::Outdated { what: format!("stream {}: what came before", self.stream.name) }),
        }
    }

    /// Waits as [`Admission::admit`] does. Run it to its end: dropped halfway, it never learns whether the append failed.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn finish(self: &Arc<Self>, under_way: UnderWay) -> Result<Admitted, StorageError> {
        self.settle(under_way.queued, &under_way.parts).await
    }
}
