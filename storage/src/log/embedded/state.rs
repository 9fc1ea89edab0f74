//! What the commit thread publishes and readers read: segments, tail, start and head.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use parking_lot::RwLock;
use schemas::{Cut, Offset, Partition};
use tokio::sync::watch;

use super::segment::Segment;
use super::tail::{Shrink, Tail};
use crate::log::Frame;

/// A durable frame, as the commit thread publishes it.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) frame: Frame,
    pub(super) position: u64,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct State {
    inner: RwLock<Inner>,
    head: watch::Sender<Cut>,
}

#[derive(Debug)]
struct Inner {
    /// Ascending; the last one is being written.
    segments: VecDeque<Segment>,
    tail: Tail,
}

/// A segment to look for frames in, from a position on.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    pub(super) position: u64,
    /// Everything below it is durable and whole.
    pub(super) length: u64,
}

impl State {
    pub(super) fn new(segments: VecDeque<Segment>, head: Cut, tail: Tail) -> Self {
        Self { inner: RwLock::new(Inner { segments, tail }), head: watch::Sender::new(head) }
    }

    pub(super) fn start(&self) -> Cut {
        self.inner.read().segments.front().map(|segment| segment.bases.clone()).unwrap_or_default()
    }

    pub(super) fn head(&self) -> Cut {
        self.head.borrow().clone()
    }

    pub(super) fn watch_head(&self) -> watch::Receiver<Cut> {
        self.head.subscribe()
    }

    /// Partitions were added; they are empty.
    pub(super) fn grow(&self, partitions: u32) {
        self.head.send_modify(|head| head.0.resize(head.0.len().max(partitions as usize), 0));
    }

    /// A segment was begun.
    pub(super) fn begin(&self, segment: Segment) {
        self.inner.write().segments.push_back(segment);
    }

    /// Frames became durable in the newest segment: readers find them, then the head moves.
    pub(super) fn publish(&self, durable: Vec<Durable>, length: u64, head: Cut) {
        let mut guard = self.inner.write();
        let inner = &mut *guard;
        if let Some(segment) = inner.segments.back_mut() {
            segment.length = length;
            for Durable { frame, position, .. } in &durable {
                segment.note(frame.partition, frame.base, *position);
            }
        }
        for Durable { frame, bytes, .. } in durable {
            inner.tail.push(frame, bytes);
        }
        drop(guard);
        self.head.send_replace(head);
    }

    pub(super) fn read_tail(&self, partition: Partition, from: Offset, rows_max: usize) -> Option<Vec<Frame>> {
        self.inner.read().tail.read(partition, from, rows_max)
    }

    /// Bytes of the segment files.
    pub(super) fn bytes(&self) -> u64 {
        self.inner.read().segments.iter().map(|segment| segment.length).sum()
    }

    /// The segment that holds `offset`, and where to begin in it; none if it is below the start.
    pub(super) fn find(&self, partition: Partition, offset: Offset) -> Option<Place> {
        let inner = self.inner.read();
        // The last segment that begins at or below the offset holds it, as later ones begin beyond.
        let after = inner.segments.partition_point(|segment| segment.bases.offset(partition) <= offset);
        let segment = inner.segments.get(after.checked_sub(1)?)?;
        let position = segment.seek(partition, offset).unwrap_or(segment.frames_at);
        Some(Place { number: segment.number, file: Arc::clone(&segment.file), position, length: segment.length })
    }

    /// Takes the segments out of which nothing at or beyond `below` can be read; never the newest.
    pub(super) fn take_below(&self, below: &Cut) -> Vec<Segment> {
        let mut inner = self.inner.write();
        let mut taken = vec![];
        while inner.segments.get(1).is_some_and(|next| next.bases.is_at_most(below)) {
            taken.extend(inner.segments.pop_front());
        }
        taken
    }
}

impl Shrink for State {
    fn shrink(&self) {
        self.inner.write().tail.shrink();
    }
}
