//! What is known of the topic, kept in step with its stored documents: which incarnations it has had,
//! and what of them is lost.

use schemas::documents::source::{Epoch, Hole, HoleReason, SourceDocument, SourcePosition};
use schemas::{Offset, Partition};
use storage::StorageError;
use storage::source::SourceStore;
use uuid::Uuid;

/// The document in force, its number, and what only this process knows.
#[derive(Debug)]
pub(super) struct Book {
    store: SourceStore,
    number: u64,
    document: SourceDocument,
    last_seen: Option<LastSeen>,
    /// As it was written last.
    pub(super) position: Option<SourcePosition>,
}

/// The topic at the last fetch that was of the topic for certain.
#[derive(Debug)]
struct LastSeen {
    epoch: u32,
    next: Vec<Offset>,
    /// Per partition: everything there was had been read.
    at_end: Vec<bool>,
}

impl Book {
    pub(super) async fn open(store: SourceStore, topic: &str) -> Result<Self, StorageError> {
        let empty = || SourceDocument { format: 1, topic: topic.to_owned(), epochs: vec![], holes: vec![] };
        let (number, document) = store.latest().await?.unwrap_or_else(|| (0, empty()));
        Ok(Self { store, number, document, last_seen: None, position: None })
    }

    /// Everything below `next` is let in, and was of this incarnation.
    pub(super) fn note_seen(&mut self, epoch: u32, next: Vec<Offset>, at_end: Vec<bool>) {
        self.last_seen = Some(LastSeen { epoch, next, at_end });
    }

    /// The topic is gone, and was read up to `next`: some of that may not have been let in.
    pub(super) fn note_gone(&mut self, next: &[Offset]) {
        let Some(seen) = &mut self.last_seen else { return };
        for ((at_end, before), after) in seen.at_end.iter_mut().zip(&seen.next).zip(next) {
            *at_end &= before == after;
        }
    }

    /// Whether a partition of an incarnation had been read to its end when it was seen last.
    pub(super) fn was_at_end(&self, epoch: u32, partition: Partition) -> bool {
        let seen = self.last_seen.as_ref().filter(|seen| seen.epoch == epoch);
        seen.and_then(|seen| seen.at_end.get(partition as usize)).copied().unwrap_or(false)
    }

    /// How many partitions an incarnation had when it was seen last; 0 if it was not.
    pub(super) fn partitions_seen(&self, epoch: u32) -> usize {
        self.last_seen.as_ref().filter(|seen| seen.epoch == epoch).map_or(0, |seen| seen.at_end.len())
    }

    /// The current incarnation; none before the first.
    pub(super) fn epoch(&self) -> Option<&Epoch> {
        self.document.epochs.last()
    }

    /// In the order in which they were found.
    pub(super) fn holes(&self) -> &[Hole] {
        &self.document.holes
    }

    /// Begins an incarnation, and with it notes what of the one before was not read: per partition where
    /// reading it ended, and where it ended itself, if that is known.
    pub(super) async fn begin(
        &mut self,
        topic_id: Uuid,
        starts: Vec<Offset>,
        letters_from: Offset,
        lost: Vec<(u32, Offset, Option<Offset>)>,
        now_us: i64,
    ) -> Result<(), StorageError> {
        let mut document = self.document.clone();
        if let Some(old) = self.epoch() {
            document.holes.extend(lost.into_iter().map(|(partition, from, to)| Hole {
                epoch: old.number,
                topic_id: old.topic_id,
                partition,
                from,
                to,
                reason: HoleReason::Recreated,
                found_at_us: now_us,
            }));
        }
        let number = self.epoch().map_or(0, |epoch| epoch.number + 1);
        document.epochs.push(Epoch { number, topic_id, starts, letters_from, began_at_us: now_us });
        self.write(document).await
    }

    /// Notes that the broker gave up `from..to` of a partition before it was read.
    pub(super) async fn lose(
        &mut self,
        partition: u32,
        range: std::ops::Range<Offset>,
        now_us: i64,
    ) -> Result<(), StorageError> {
        let Some(epoch) = self.epoch() else { return Ok(()) };
        let hole = Hole {
            epoch: epoch.number,
            topic_id: epoch.topic_id,
            partition,
            from: range.start,
            to: Some(range.end),
            reason: HoleReason::Retention,
            found_at_us: now_us,
        };
        if self.document.holes.iter().any(|known| Hole { found_at_us: now_us, ..known.clone() } == hole) {
            return Ok(());
        }
        let mut document = self.document.clone();
        document.holes.push(hole);
        self.write(document).await
    }

    /// Durable before it is known: nothing beyond a hole is read before the hole is on record.
    async fn write(&mut self, document: SourceDocument) -> Result<(), StorageError> {
        self.store.put_new(self.number + 1, &document).await?;
        self.number += 1;
        self.document = document;
        Ok(())
    }
}
