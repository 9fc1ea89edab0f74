//! How many bytes of requests are in memory: full means 429, never growth.
//!
//! `Retry-After` is measured: how long it takes, at the rate at which room has come back lately, until half of what
//! is held is given back, and as much as was refused lately has had its turn. While nothing comes back it is as long
//! as nothing has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use schemas::limits::RETRY_AFTER_MAX_S;
use schemas::{Code, Problem};
use tokio::time::Instant;

/// The rate is measured over so long.
const MEASURED: Duration = Duration::from_secs(1);

/// The bytes of all requests that are being read, decoded, or wait for the log.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// What a request takes besides its own bytes.
    request_bytes: usize,
    drain: Mutex<Drain>,
}

/// How fast room comes back.
#[derive(Debug)]
struct Drain {
    since: Instant,
    /// Given back since then.
    bytes: usize,
    /// Over the last whole measurement; none before there was one.
    bytes_per_s: Option<f64>,
    /// Refused since then, and in the last whole measurement: who was refused comes back.
    refused: usize,
    refused_before: usize,
    /// When something was given back last.
    last: Instant,
}

impl Drain {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, bytes: 0, bytes_per_s: None, refused: 0, refused_before: 0, last: now }
    }

    fn give_back(&mut self, bytes: usize) {
        let now = Instant::now();
        self.bytes += bytes;
        self.last = now;
        let took = now - self.since;
        if took >= MEASURED {
            self.bytes_per_s = Some(self.bytes as f64 / took.as_secs_f64());
            self.refused_before = self.refused;
            (self.since, self.bytes, self.refused) = (now, 0, 0);
        }
    }

    /// Seconds until so many bytes are given back.
    fn seconds(&self, wanted: usize) -> u64 {
        let idle = self.last.elapsed();
        let seconds = match self.bytes_per_s {
            Some(rate) if idle < MEASURED && rate > 0.0 => {
                let before_it = self.refused_before.max(self.refused);
                (wanted.saturating_add(before_it) as f64 / rate).ceil()
            }
            _ => idle.as_secs_f64().ceil(),
        };
        (seconds as u64).clamp(1, RETRY_AFTER_MAX_S)
    }
}

impl InFlight {
    pub(crate) fn new(bytes_max: usize, request_bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max, request_bytes, drain: Mutex::new(Drain::new()) })
    }

    fn full(&self, refused: usize) -> Problem {
        let mut drain = self.drain.lock();
        let wait_s = drain.seconds(self.bytes.load(Ordering::Acquire) / 2);
        drain.refused = drain.refused.saturating_add(refused);
        drop(drain);
        let detail = format!("ingest: more than {} bytes of requests in flight", self.bytes_max);
        Problem::new(Code::Overloaded, detail).with_retry_after(wait_s)
    }
}

/// The bytes of one request; given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    of: Arc<InFlight>,
    held: usize,
    /// What it says that it will need.
    expected: usize,
}

impl Reservation {
    pub(crate) fn new(of: &Arc<InFlight>) -> Self {
        Self { of: Arc::clone(of), held: 0, expected: 0 }
    }

    /// Says how much it will need: nothing is held for it yet.
    pub fn expect(&mut self, bytes: usize) {
        self.expected = bytes;
    }

    /// Takes room until `bytes` are held. A request that is alone always gets it.
    ///
    /// # Errors
    /// `overloaded`: nothing of the request was written.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Problem> {
        let bytes = bytes.saturating_add(self.of.request_bytes);
        let more = bytes.saturating_sub(self.held);
        let others_max = self.of.bytes_max.saturating_sub(bytes);
        let grow = |all: usize| {
            let others = all.saturating_sub(self.held);
            (others == 0 || others <= others_max).then_some(all.saturating_add(more))
        };
        if self.of.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow).is_err() {
            return Err(self.of.full(bytes.max(self.expected)));
        }
        self.held += more;
        metrics::gauge!("bifold_ingest_in_flight_bytes").set(self.of.bytes.load(Ordering::Relaxed) as f64);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self.of.bytes.fetch_sub(self.held, Ordering::AcqRel);
        self.of.drain.lock().give_back(self.held);
        metrics::gauge!("bifold_ingest_in_flight_bytes").set(before.saturating_sub(self.held) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_overloaded_and_room_comes_back() {
        let all = InFlight::new(100, 0);
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

    /// any number of requests without a body take room, too.
    #[test]
    fn empty_requests_are_bounded_in_number() {
        let all = InFlight::new(1_000, 100);
        let held: Vec<Reservation> = (0..10)
            .map(|_| {
                let mut one = Reservation::new(&all);
                one.hold(0).unwrap();
                one
            })
            .collect();
        assert!(Reservation::new(&all).hold(0).is_err());
        drop(held);
        Reservation::new(&all).hold(0).unwrap();
    }

    /// how long to wait is what it takes at the rate of the last second.
    #[tokio::test(start_paused = true)]
    async fn retry_after_follows_from_the_rate_at_which_room_comes_back() {
        let all = InFlight::new(10_000, 0);
        let mut stays = Reservation::new(&all);
        stays.hold(9_900).unwrap();
        for _ in 0..30 {
            Reservation::new(&all).hold(100).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Reservation::new(&all).hold(100).unwrap();
        // half of 9,900 bytes at 1,000 a second
        let wait_s = Reservation::new(&all).hold(101).unwrap_err().retry_after_s.unwrap();
        assert!((4..=6).contains(&wait_s), "{wait_s}");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(Reservation::new(&all).hold(101).unwrap_err().retry_after_s, Some(20), "nothing comes back");
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(Reservation::new(&all).hold(101).unwrap_err().retry_after_s, Some(RETRY_AFTER_MAX_S));
    }
}
