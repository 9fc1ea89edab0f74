//! Whether the layers behind the log keep up. What has not landed, or is in no checkpoint, the log has to keep: it must
//! not grow without end while the store is slow or gone. What is in no batch view yet is in memory: it must not grow
//! without end while there is no run.

use std::sync::Arc;

use schemas::limits::RETRY_AFTER_MAX_S;
use schemas::{Code, Limits, Problem, StreamDef};
use storage::layers::Backlogs;

/// Refuses what the log would have to keep beyond its bound.
#[derive(Clone)]
pub(crate) struct Backlog {
    of: Option<Arc<dyn Backlogs>>,
    bytes_max: usize,
    chain_bytes_max: usize,
}

impl std::fmt::Debug for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backlog").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Backlog {
    pub(crate) fn new(of: Option<Arc<dyn Backlogs>>, limits: &Limits) -> Self {
        Self { of, bytes_max: limits.log_backlog_bytes_max, chain_bytes_max: limits.speed_chain_bytes_max }
    }

    /// `storage_unavailable` while too much waits for the store, `overloaded` while too much waits for a run; nothing
    /// was written.
    pub(crate) fn check(&self, stream: &StreamDef) -> Result<(), Problem> {
        self.check_chain(stream)?;
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

    fn check_chain(&self, stream: &StreamDef) -> Result<(), Problem> {
        let bytes = self.of.as_ref().map_or(0, |of| of.chain_bytes(stream.id));
        if bytes <= self.chain_bytes_max as u64 {
            return Ok(());
        }
        metrics::counter!("bifold_ingest_refused_total", "stream" => stream.name.clone(), "reason" => "no run")
            .increment(1);
        let detail = format!(
            "stream {}: what came since the last runs of its views takes {bytes} bytes of memory, {} at most",
            stream.name, self.chain_bytes_max
        );
        let problem = Problem::new(Code::Overloaded, detail).with_retry_after(RETRY_AFTER_MAX_S);
        Err(problem.with_hint(
            "REFRESH MATERIALIZED VIEW makes room, for each view of the stream; let it happen by REFRESH EVERY, or raise \
             limits.speed_chain_bytes_max",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use storage::layers::BacklogSize;
    use uuid::Uuid;

    use super::*;
    use crate::testing::stream;

    struct Fixed(BacklogSize, u64);

    impl Backlogs for Fixed {
        fn backlog(&self, _: Uuid) -> Option<BacklogSize> {
            Some(self.0)
        }

        fn chain_bytes(&self, _: Uuid) -> u64 {
            self.1
        }
    }

    /// a store that does not keep up ends in refusal, with how long to wait.
    #[test]
    fn what_waits_beyond_the_bound_is_refused() {
        let limits = Limits { log_backlog_bytes_max: 1_000, ..Limits::default() };
        let check = |bytes, seconds| {
            let size = BacklogSize { bytes, stands_for: Duration::from_secs(seconds) };
            Backlog::new(Some(Arc::new(Fixed(size, 0))), &limits).check(&stream("s", 1))
        };
        check(1_000, 100).unwrap();
        let problem = check(1_001, 0).unwrap_err();
        assert_eq!((problem.status, problem.retry_after_s), (503, Some(1)));
        assert_eq!(check(1_001, 7).unwrap_err().retry_after_s, Some(7));
        assert_eq!(check(1_001, 700).unwrap_err().retry_after_s, Some(15));
        Backlog::new(None, &limits).check(&stream("s", 1)).unwrap();
    }

    /// states that no run takes into a batch view end in refusal, and not in growth; it says what helps.
    #[test]
    fn states_that_no_run_takes_are_bounded() {
        let limits = Limits { speed_chain_bytes_max: 1_000, ..Limits::default() };
        let size = BacklogSize { bytes: 0, stands_for: Duration::ZERO };
        let check = |bytes| Backlog::new(Some(Arc::new(Fixed(size, bytes))), &limits).check(&stream("s", 1));
        check(1_000).unwrap();
        let problem = check(1_001).unwrap_err();
        assert_eq!((problem.status, problem.retry_after_s), (429, Some(RETRY_AFTER_MAX_S)));
        assert!(problem.hint.unwrap().contains("REFRESH MATERIALIZED VIEW"));
    }
}
