//! The tail: the newest frames in memory, as they were appended, for readers that keep up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use schemas::{Offset, Partition};

use crate::log::Frame;

/// What the tails of all logs may have together: each of them an equal share. With every log that is opened the shares
/// become smaller, and what is beyond them goes at once, also from logs that nobody writes to.
#[derive(Debug)]
pub struct TailShares {
    bytes_max: usize,
    share: AtomicUsize,
    members: Mutex<Vec<Weak<dyn Shrink>>>,
}

/// Has a tail.
pub(in crate::log) trait Shrink: Send + Sync + std::fmt::Debug {
    /// Gives up what is beyond the tail's share.
    fn shrink(&self);
}

impl TailShares {
    /// Nobody has a share yet.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, share: AtomicUsize::new(bytes_max), members: Mutex::default() })
    }

    /// One more has a share. Nobody's tail may be locked.
    pub(in crate::log) fn join<T: Shrink + 'static>(&self, member: &Arc<T>) {
        let member: Arc<dyn Shrink> = Arc::clone(member) as Arc<dyn Shrink>;
        let members: Vec<Arc<dyn Shrink>> = {
            let mut members = self.members.lock();
            members.retain(|other| other.strong_count() > 0);
            members.push(Arc::downgrade(&member));
            self.share.store(self.bytes_max / members.len(), Ordering::Release);
            members.iter().filter_map(Weak::upgrade).collect()
        };
        for member in members {
            member.shrink();
        }
    }
}

/// Newest frames per partition, bounded by the bytes that they take in the file.
#[derive(Debug)]
pub(in crate::log) struct Tail {
    /// Consecutive frames up to the head.
    frames: Vec<VecDeque<Frame>>,
    /// Partition and bytes of every frame, the oldest first.
    order: VecDeque<(Partition, usize)>,
    bytes: usize,
    bytes_max: usize,
    shares: Option<Arc<TailShares>>,
}

impl Tail {
    pub(in crate::log) fn new(partitions: usize, bytes_max: usize, shares: Option<Arc<TailShares>>) -> Self {
        Self { frames: vec![VecDeque::new(); partitions], order: VecDeque::new(), bytes: 0, bytes_max, shares }
    }

    /// Gives up the oldest frames that are too many.
    pub(in crate::log) fn shrink(&mut self) {
        let share = self.shares.as_ref().map_or(usize::MAX, |shares| shares.share.load(Ordering::Acquire));
        while self.bytes > self.bytes_max.min(share) {
            let Some((oldest, bytes)) = self.order.pop_front() else { break };
            self.bytes -= bytes;
            self.frames[oldest as usize].pop_front();
        }
    }

    /// Adds the newest frame of its partition; the oldest ones go.
    pub(in crate::log) fn push(&mut self, frame: Frame, bytes: usize) {
        let partition = frame.partition;
        if self.frames.len() <= partition as usize {
            self.frames.resize(partition as usize + 1, VecDeque::new());
        }
        self.frames[partition as usize].push_back(frame);
        self.order.push_back((partition, bytes));
        self.bytes += bytes;
        self.shrink();
    }

    /// Frames from `from` on, about `rows_max` rows; none if `from` is no longer in here.
    pub(in crate::log) fn read(&self, partition: Partition, from: Offset, rows_max: usize) -> Option<Vec<Frame>> {
        let frames = self.frames.get(partition as usize)?;
        if frames.front()?.base > from {
            return None;
        }
        let first = frames.partition_point(|frame| frame.end() <= from);
        let mut found = vec![];
        let mut rows = 0;
        for frame in frames.iter().skip(first) {
            if rows >= rows_max && !found.is_empty() {
                break;
            }
            let frame = frame.clip(&(from..Offset::MAX))?;
            rows += frame.rows.num_rows();
            found.push(frame);
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::datatypes::Schema;
    use parking_lot::RwLock;

    use super::*;

    impl Shrink for RwLock<Tail> {
        fn shrink(&self) {
            self.write().shrink();
        }
    }

    fn joined(shares: &Arc<TailShares>) -> Arc<RwLock<Tail>> {
        let tail = Arc::new(RwLock::new(Tail::new(1, 600, Some(Arc::clone(shares)))));
        shares.join(&tail);
        tail
    }

    fn push(tail: &RwLock<Tail>, frames: u64) {
        for base in 0..frames {
            let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
            tail.write().push(Frame { partition: 0, base, rows }, 10);
        }
    }

    /// what all logs have in memory is bounded, also by those that come later.
    #[test]
    fn tails_share_their_bytes() {
        let shares = TailShares::new(1_000);
        let (first, second) = (joined(&shares), joined(&shares));
        push(&first, 100);
        assert_eq!(first.read().bytes, 500, "half of all");
        push(&second, 20);
        let more: Vec<_> = (0..3).map(|_| joined(&shares)).collect();
        assert_eq!((first.read().bytes, second.read().bytes), (200, 200), "a fifth, though nobody writes");
        drop(more);
        let _one = joined(&shares);
        push(&first, 100);
        assert_eq!(first.read().bytes, 330, "who is gone has no share");
        let alone = Arc::new(RwLock::new(Tail::new(1, 600, Some(TailShares::new(1_000)))));
        push(&alone, 100);
        assert_eq!(alone.read().bytes, 600, "its own bound");
    }
}
