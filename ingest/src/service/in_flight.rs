//! How many bytes of requests are in memory: full means 429, never growth.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use schemas::{Code, Problem};

/// The bytes of all requests that are being read, decoded, or wait for the log.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl InFlight {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max })
    }
}

/// The bytes of one request; given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    of: Arc<InFlight>,
    held: usize,
}

impl Reservation {
    pub(crate) fn new(of: &Arc<InFlight>) -> Self {
        Self { of: Arc::clone(of), held: 0 }
    }

    /// Takes room until `bytes` are held. A request that is alone always gets it.
    ///
    /// # Errors
    /// `overloaded`: nothing of the request was written.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.saturating_sub(self.held);
        let others_max = self.of.bytes_max.saturating_sub(bytes);
        let grow = |all: usize| {
            let others = all.saturating_sub(self.held);
            (others == 0 || others <= others_max).then_some(all.saturating_add(more))
        };
        if self.of.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow).is_err() {
            let detail = format!("ingest: more than {} bytes of requests in flight", self.of.bytes_max);
            return Err(Problem::new(Code::Overloaded, detail));
        }
        self.held += more;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.held, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_overloaded_and_room_comes_back() {
        let all = InFlight::new(100);
        let mut first = Reservation::new(&all);
        first.hold(60).unwrap();
        let mut second = Reservation::new(&all);
        let problem = second.hold(41).unwrap_err();
        assert_eq!((problem.code, problem.status, problem.retry_after_s), (Code::Overloaded, 429, Some(1)));
        second.hold(40).unwrap();
        second.hold(10).unwrap();
        assert!(first.hold(61).is_err());
        drop(second);
        first.hold(1_000).unwrap();
        drop(first);
        assert_eq!(all.bytes.load(Ordering::Acquire), 0);
    }
}
