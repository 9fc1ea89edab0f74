//! The folder of a partition's runs: written, merged, found again.

use std::path::PathBuf;
use std::sync::Arc;

use schemas::{Offset, Partition};
use storage::StorageError;
use uuid::Uuid;

use super::Frozen;
use super::run::{Entry, Run, Span, order};
use crate::identity::Identity;

/// Where the runs of a partition are.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) folder: PathBuf,
    pub(crate) incarnation: Uuid,
    pub(crate) partition: Partition,
}

/// A run that is on disk.
#[derive(Debug)]
pub(crate) struct Written(pub(super) Run);

/// Two neighbours.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(super) older: Arc<Run>,
    pub(super) newer: Arc<Run>,
    pub(super) oldest: Offset,
}

impl Disk {
    fn span(&self, offsets: std::ops::Range<Offset>) -> Span {
        Span { incarnation: self.incarnation, partition: self.partition, offsets }
    }

    /// Writes a frozen table, all of whose records are durable. Blocks.
    pub(crate) fn write(&self, frozen: &Frozen) -> Result<Written, StorageError> {
        let kept = frozen.table.iter().filter(|(_, offset)| **offset >= frozen.oldest);
        let mut entries: Vec<Entry> = kept.map(|(key, offset)| (Identity::from(*key), *offset)).collect();
        entries.sort_unstable_by_key(order);
        let span = self.span(frozen.offsets.clone());
        Run::write(&self.folder, &span, &frozen.steps, entries.len(), entries.into_iter().map(Ok)).map(Written)
    }

    /// Makes one run of two; of an id that is in both, the newer record stands. Blocks.
    pub(crate) fn merge(&self, pair: &Pair) -> Result<Written, StorageError> {
        let Pair { older, newer, oldest } = pair;
        let span = self.span(older.span.offsets.start..newer.span.offsets.end);
        let merged = Merge { older: older.iter().peekable(), newer: newer.iter().peekable() };
        let alive = merged.filter(|entry| entry.as_ref().map_or(true, |(_, offset)| offset >= oldest));
        let steps: Vec<_> = older.steps.iter().chain(&newer.steps).copied().collect();
        Run::write(&self.folder, &span, &steps, (older.entries + newer.entries) as usize, alive).map(Written)
    }

    /// The runs of an earlier process that follow each other without a gap and end at or below `head`, if
    /// they reach back to `from`. What is of no use is removed. Blocks.
    pub(crate) fn recover(&self, from: Offset, head: Offset) -> Result<Vec<Written>, StorageError> {
        let mut runs: Vec<Run> = vec![];
        for path in self.files()? {
            match Run::open(&path)? {
                Some(run) if self.is_mine(&run, head) => runs.push(run),
                // of this partition by its name, and nothing that could be read
                _ => {
                    if let Err(error) = std::fs::remove_file(&path) {
                        tracing::warn!(path = %path.display(), %error, "a useless run of ids remains");
                    }
                }
            }
        }
        // of two that begin alike, the longer one was made of the shorter
        runs.sort_by_key(|run| (run.span.offsets.start, std::cmp::Reverse(run.span.offsets.end)));
        let mut chain: Vec<Run> = vec![];
        for run in runs {
            let reached = chain.last().map(|last| last.span.offsets.end);
            if reached.is_none_or(|reached| reached == run.span.offsets.start) {
                chain.push(run);
            } else {
                run.remove();
            }
        }
        let reaches = |(first, last): (&Run, &Run)| first.span.offsets.start <= from && from <= last.span.offsets.end;
        if !chain.first().zip(chain.last()).is_some_and(reaches) {
            chain.drain(..).for_each(|run| run.remove());
        }
        Ok(chain.into_iter().map(Written).collect())
    }

    fn is_mine(&self, run: &Run, head: Offset) -> bool {
        let Span { incarnation, partition, offsets } = &run.span;
        *incarnation == self.incarnation && *partition == self.partition && offsets.end <= head
    }

    fn files(&self) -> Result<Vec<PathBuf>, StorageError> {
        let listed = match std::fs::read_dir(&self.folder) {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(StorageError::io(format!("listing {}", self.folder.display()), error)),
        };
        let prefix = format!("{:05}-", self.partition);
        let mut files: Vec<PathBuf> = listed.filter_map(Result::ok).map(|entry| entry.path()).collect();
        files.retain(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix))
        });
        files.sort();
        Ok(files)
    }
}

struct Merge<A: Iterator, B: Iterator> {
    older: std::iter::Peekable<A>,
    newer: std::iter::Peekable<B>,
}

impl<A, B> Iterator for Merge<A, B>
where
    A: Iterator<Item = Result<Entry, StorageError>>,
    B: Iterator<Item = Result<Entry, StorageError>>,
{
    type Item = Result<Entry, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (Some(Ok(older)), Some(Ok(newer))) = (self.older.peek(), self.newer.peek()) else {
            // an error goes first; otherwise one side has ended
            return if matches!(self.older.peek(), Some(Err(_))) || self.newer.peek().is_none() {
                self.older.next()
            } else {
                self.newer.next()
            };
        };
        match order(older).cmp(&order(newer)) {
            std::cmp::Ordering::Less => self.older.next(),
            std::cmp::Ordering::Greater => self.newer.next(),
            std::cmp::Ordering::Equal => {
                self.older.next();
                self.newer.next()
            }
        }
    }
}
