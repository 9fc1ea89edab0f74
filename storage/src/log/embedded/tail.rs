//! The tail: the newest frames in memory, as they were appended, for readers that keep up.

use std::collections::VecDeque;

use schemas::{Offset, Partition};

use crate::log::Frame;

/// Newest frames per partition, bounded by the bytes that they take in the file.
#[derive(Debug)]
pub(in crate::log) struct Tail {
    /// Consecutive frames up to the head.
    frames: Vec<VecDeque<Frame>>,
    /// Partition and bytes of every frame, the oldest first.
    order: VecDeque<(Partition, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(in crate::log) fn new(partitions: usize, bytes_max: usize) -> Self {
        Self { frames: vec![VecDeque::new(); partitions], order: VecDeque::new(), bytes: 0, bytes_max }
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
        while self.bytes > self.bytes_max {
            let Some((oldest, bytes)) = self.order.pop_front() else { break };
            self.bytes -= bytes;
            self.frames[oldest as usize].pop_front();
        }
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
