//! Memory of queries: each has a bound, and all of them together have one. A query that finds the other ones using it
//! up is told to come back; one that needs too much by itself is told so.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::Result;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation};

/// The memory of one query, which is taken from that of all.
#[derive(Debug)]
pub(super) struct QueryMemory {
    own: GreedyMemoryPool,
    all: Arc<GreedyMemoryPool>,
    is_crowded: AtomicBool,
}

impl QueryMemory {
    pub(super) fn new(bytes_max: usize, all: &Arc<GreedyMemoryPool>) -> Arc<Self> {
        let (own, all) = (GreedyMemoryPool::new(bytes_max), Arc::clone(all));
        Arc::new(Self { own, all, is_crowded: AtomicBool::new(false) })
    }

    /// True once it was refused what it might have had alone.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded.load(Ordering::Relaxed)
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query({} of {})", self.own, self.all)
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &'static str {
        "query"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.own.try_grow(reservation, additional)?;
        let taken = self.all.try_grow(reservation, additional);
        if taken.is_err() {
            self.own.shrink(reservation, additional);
            self.is_crowded.store(true, Ordering::Relaxed);
        }
        taken
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    /// any number of queries use no more than all of them may.
    #[test]
    fn queries_share_one_bound_and_give_back_what_they_held() {
        let all = Arc::new(GreedyMemoryPool::new(100));
        let (one, two) = (QueryMemory::new(80, &all), QueryMemory::new(80, &all));
        let reserve =
            |of: &Arc<QueryMemory>| MemoryConsumer::new("t").register(&(Arc::clone(of) as Arc<dyn MemoryPool>));
        let (first, second) = (reserve(&one), reserve(&two));
        first.try_grow(70).unwrap();
        assert!(first.try_grow(20).is_err());
        assert!(!one.is_crowded(), "its own bound");
        assert!(second.try_grow(40).is_err());
        assert!(two.is_crowded());
        assert_eq!((two.reserved(), all.reserved()), (0, 70));
        drop(first);
        second.try_grow(80).unwrap();
        drop(second);
        assert_eq!(all.reserved(), 0);
    }
}
