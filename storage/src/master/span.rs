//! Which offsets a landing is of, and whether they are the ones that are due.

use std::collections::BTreeMap;

use schemas::{Cut, Partition};
use url::Url;

use crate::error::StorageError;
use crate::log::Frame;

/// What a landing spans, of the partitions that it has rows for.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) partitions: Vec<Partition>,
    pub(super) from: Cut,
    pub(super) to: Cut,
}

impl Span {
    /// Checks that the frames of each partition follow each other.
    pub(super) fn of(by_partition: &BTreeMap<Partition, Vec<Frame>>, root: &Url) -> Result<Self, StorageError> {
        let mut span = Self { partitions: Vec::new(), from: Cut::default(), to: Cut::default() };
        for (&partition, frames) in by_partition {
            let Some(first) = frames.first() else { continue };
            let mut end = first.base;
            for frame in frames {
                if frame.base != end {
                    let reason = format!("partition {partition}: rows from {} follow rows up to {end}", frame.base);
                    return Err(StorageError::Damaged { path: root.to_string(), reason });
                }
                end = frame.end();
            }
            span.partitions.push(partition);
            span.from.set(partition, first.base);
            span.to.set(partition, end);
        }
        Ok(span)
    }

    /// Checks that the span starts where the partitions end.
    pub(super) fn check(&self, landed: &Cut, root: &Url) -> Result<(), StorageError> {
        for &partition in &self.partitions {
            let (from, end) = (self.from.offset(partition), landed.offset(partition));
            if from < end {
                return Err(StorageError::Conflict { path: format!("{root} partition {partition} offset {from}") });
            }
            if from > end {
                let reason = format!("partition {partition}: rows from {from} where {end} is due");
                return Err(StorageError::Damaged { path: root.to_string(), reason });
            }
        }
        Ok(())
    }
}
