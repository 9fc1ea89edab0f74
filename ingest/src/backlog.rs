//! Whether the layers behind the log keep up. What has not landed, or is in no checkpoint, the log has to keep: it must
//! not grow without end while the store is slow or gone.

use std::sync::Arc;

use schemas::limits::RETRY_AFTER_MAX_S;
use schemas::{Code, Limits, Problem, StreamDef};
use storage::layers::Backlogs;

/// Refuses what the log would have to keep beyond its bound.
#[derive(Clone)]
pub(crate) struct Backlog {
    of: Option<Arc<dyn Backlogs>>,
    bytes_max: usize,
}

impl std::fmt::Debug for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backlog").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Backlog {
    pub(crate) fn new(of: Option<Arc<dyn Backlogs>>, limits: &Limits) -> Self {
        Self { of, bytes_max: limits.log_backlog_bytes_max }
    }

    /// `storage_unavailable` while too much waits; nothing was written.
    pub(crate) fn check(&self, stream: &StreamDef) -> Result<(), Problem> {
        let Some(backlog) = self.of.as_ref().and_then(|of| of.backlog(stream.id)) else { return Ok(()) };
        if backlog.bytes <= self.bytes_max as u64 {
            return Ok(());
        }
        metrics::counter!("bifold_ingest_refused_total", "stream" => stream.name.clone(), "reason" => "backlog")
            .increment(1);
        let detail = format!(
            "stream {}: {} bytes of records wait for the store, {} are kept at most",
            stream.name, backlog.bytes, self.bytes_max
        );
        // as long as it has not moved: a store that is gone is not asked for every second
        let wait_s = backlog.stands_for.as_secs().clamp(1, RETRY_AFTER_MAX_S / 4);
        Err(Problem::new(Code::StorageUnavailable, detail).with_retry_after(wait_s))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use storage::layers::BacklogSize;
    use uuid::Uuid;

    use super::*;
    use crate::testing::stream;

    struct Fixed(BacklogSize);

    impl Backlogs for Fixed {
        fn backlog(&self, _: Uuid) -> Option<BacklogSize> {
            Some(self.0)
        }
    }

    /// a store that does not keep up ends in refusal, with how long to wait.
    #[test]
    fn what_waits_beyond_the_bound_is_refused() {
        let limits = Limits { log_backlog_bytes_max: 1_000, ..Limits::default() };
        let check = |bytes, seconds| {
            let size = BacklogSize { bytes, stands_for: Duration::from_secs(seconds) };
            Backlog::new(Some(Arc::new(Fixed(size))), &limits).check(&stream("s", 1))
        };
        check(1_000, 100).unwrap();
        let problem = check(1_001, 0).unwrap_err();
        assert_eq!((problem.status, problem.retry_after_s), (503, Some(1)));
        assert_eq!(check(1_001, 7).unwrap_err().retry_after_s, Some(7));
        assert_eq!(check(1_001, 700).unwrap_err().retry_after_s, Some(15));
        Backlog::new(None, &limits).check(&stream("s", 1)).unwrap();
    }
}
