//! Receipts: what became of the records of a request that were not simply appended.
//!
//! ```text
//!  a request: accepted ──► the log                          its receipt: the log itself, by offset
//!             duplicates ┐
//!             bad ───────┼► one row per request and partition, durable before the 200
//!             replayed ──┘
//! ```
//!
//! A request whose records were all appended writes none, but for one row per partition and ten
//! minutes that says where they begin. So the ledger costs nothing where nothing is wrong, and is
//! a function of what was acknowledged (R-019, R-023, invariant I11).

mod book;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::documents::ledger::{BUCKET_US, bucket_of};
use schemas::{Cut, IntakeBucket, IntakeCounts, Offset, Partition};
use storage::StorageError;
use storage::log::Log;
use tokio::sync::RwLock;

use self::book::Book;
pub use self::rows::receipt_schema;
pub(crate) use self::rows::{Entry, Kind};
use crate::admission::{Admitted, AdmittedPart, append_time_at, first_since};

/// Rows after which the log of receipts is rolled up: one row per bucket instead of one per request.
const ROLL_UP_ROWS: u64 = 16_384;
/// Buckets of ten minutes that are left by a roll-up: those of older days become one a day.
const BUCKETS_MAX: usize = 131_072;
/// Rows read at once.
const READ_ROWS: usize = 65_536;

/// The receipts of one stream. Nobody else appends to their log.
#[derive(Debug)]
pub(crate) struct Receipts {
    records: Arc<dyn Log>,
    letters: Arc<dyn Log>,
    log: Arc<dyn Log>,
    /// None until read, and again when a receipt was not written: its records are in the log all the same.
    book: tokio::sync::Mutex<Option<Arc<Mutex<Book>>>>,
    /// Shared by whoever writes a receipt; alone, a roll-up and whoever forgets the book.
    writing: RwLock<()>,
}

impl Receipts {
    pub(crate) fn new(records: Arc<dyn Log>, letters: Arc<dyn Log>, log: Arc<dyn Log>) -> Self {
        Self { records, letters, log, book: tokio::sync::Mutex::default(), writing: RwLock::new(()) }
    }

    /// The same receipts, to be read anew: for what another one writes.
    pub(crate) fn reread(&self) -> Self {
        Self::new(Arc::clone(&self.records), Arc::clone(&self.letters), Arc::clone(&self.log))
    }

    /// What records leave behind besides themselves.
    ///
    /// # Errors
    /// The log failed.
    pub(crate) async fn of(&self, admitted: &Admitted) -> Result<Vec<Entry>, StorageError> {
        let mut entries = vec![];
        for AdmittedPart { partition, start, counts } in admitted.parts.iter().copied() {
            if counts.accepted > 0 {
                entries.extend(self.begin(partition, start, admitted.append_us).await?);
            }
            entries.extend(receipt(partition, admitted.append_us, counts));
        }
        Ok(entries)
    }

    /// What the receipts say, read once.
    async fn book(&self) -> Result<Arc<Mutex<Book>>, StorageError> {
        let mut known = self.book.lock().await;
        if let Some(book) = known.as_ref() {
            return Ok(Arc::clone(book));
        }
        let mut book = self.read().await?;
        self.fill_boundaries(&mut book).await?;
        let book = Arc::new(Mutex::new(book));
        *known = Some(Arc::clone(&book));
        Ok(book)
    }

    /// Writes receipts; returns when they are durable and counted.
    ///
    /// # Errors
    /// The log is full or failed: none of them is counted.
    pub(crate) async fn write(&self, entries: Vec<Entry>) -> Result<(), StorageError> {
        if entries.is_empty() {
            return Ok(());
        }
        match self.write_shared(&entries).await {
            Ok(rows_since) if rows_since > ROLL_UP_ROWS => self.roll_up(&*self.book().await?).await,
            Ok(_) => Ok(()),
            Err(error) => {
                let _alone = self.writing.write().await;
                *self.book.lock().await = None;
                Err(error)
            }
        }
    }

    /// Returns how many rows there are since the last summary.
    async fn write_shared(&self, entries: &[Entry]) -> Result<u64, StorageError> {
        let _shared = self.writing.read().await;
        let book = self.book().await?;
        // in one append with those that come after them: a boundary that is written has all before it
        let unsaved = std::mem::take(&mut book.lock().unsaved);
        let rows: Vec<Entry> = unsaved.into_iter().chain(entries.iter().copied()).collect();
        self.append(&rows).await?;
        let mut book = book.lock();
        for entry in entries {
            book.apply(entry);
        }
        Ok(book.rows_since_summary)
    }

    /// Notes that records of a partition were appended from `start` on. The first of ten minutes leaves a
    /// row to be written: where a bucket begins outlives the log.
    async fn begin(&self, partition: Partition, start: Offset, append_us: i64) -> Result<Option<Entry>, StorageError> {
        let bucket_us = bucket_of(append_us);
        let is_new = self.book().await?.lock().is_new(partition, bucket_us, start);
        Ok(is_new.then(|| Entry::boundary(partition, bucket_us, start)))
    }

    /// The ledger by partition and bucket; `landed` is the master's end.
    pub(crate) async fn intake(&self, landed: &Cut) -> Result<Vec<IntakeBucket>, StorageError> {
        let book = self.book().await?;
        let head = self.records.head();
        let mut begun = {
            let book = book.lock();
            if book.knows_beginnings(&head) {
                return Ok(book.intake(&head, landed));
            }
            book.clone()
        };
        // a partition has just got its first records, and the receipt that says so is on its way
        self.fill_boundaries(&mut begun).await?;
        Ok(begun.intake(&head, landed))
    }

    /// Dead letters that were replayed, with the time.
    pub(crate) async fn replayed(&self) -> Result<BTreeMap<Offset, i64>, StorageError> {
        Ok(self.book().await?.lock().replayed.clone())
    }

    /// Counts dead letters that have no receipt: the process ended between the two. For a stream whose every dead
    /// letter came in once, and that nothing is let into at the moment.
    ///
    /// # Errors
    /// A log failed.
    pub(crate) async fn count_letters(&self) -> Result<(), StorageError> {
        let counted = self.book().await?.lock().quarantined();
        let (mut from, end) = (counted.max(self.letters.start().offset(0)), self.letters.head().offset(0));
        let mut entries = vec![];
        while from < end {
            let bucket_us = bucket_of(append_time_at(self.letters.as_ref(), 0, from).await?);
            let next = first_since(self.letters.as_ref(), 0, from..end, bucket_us + BUCKET_US).await?;
            entries.push(Entry::quarantined(bucket_us, next - from));
            from = next;
        }
        self.write(entries).await
    }

    async fn append(&self, entries: &[Entry]) -> Result<(), StorageError> {
        let rows = rows::encode(entries).map_err(|error| StorageError::io("writing receipts", error))?;
        self.log.append(self.log.epoch(), vec![(0, rows)])?.durable().await?;
        Ok(())
    }

    async fn read(&self) -> Result<Book, StorageError> {
        let mut book = Book::default();
        let (mut from, head) = (self.log.start().offset(0), self.log.head().offset(0));
        while from < head {
            let frames = self.log.read(0, from, READ_ROWS).await?;
            for frame in &frames {
                let entries = rows::decode(&frame.rows).ok_or_else(|| self.damaged(frame.base))?;
                for entry in &entries {
                    book.apply(entry);
                }
            }
            from = match frames.last() {
                Some(last) if last.end() > from => last.end(),
                _ => return Err(self.damaged(from)),
            };
        }
        Ok(book)
    }

    /// Buckets that began without a row that says so: the process ended between the append and its receipt, or
    /// the receipt was not written. Where the newest one begins is looked for too: of requests that were under
    /// way together the first may be the one that left no receipt.
    async fn fill_boundaries(&self, book: &mut Book) -> Result<(), StorageError> {
        let (start, head) = (self.records.start(), self.records.head());
        for (partition, to) in head.iter() {
            let known = book.settled_boundary(partition);
            let mut from = known.map_or(0, |(_, offset)| offset).max(start.offset(partition));
            let mut is_first = known.is_none();
            while from < to {
                let bucket_us = bucket_of(append_time_at(self.records.as_ref(), partition, from).await?);
                let begin = if is_first { 0 } else { from };
                book.fill(&Entry::boundary(partition, bucket_us, begin));
                is_first = false;
                let next_us = bucket_us + BUCKET_US;
                from = first_since(self.records.as_ref(), partition, from..to, next_us).await?;
            }
        }
        Ok(())
    }

    /// Replaces all rows by one per bucket, boundary and mark. One append: it is there as a whole or not.
    async fn roll_up(&self, book: &Mutex<Book>) -> Result<(), StorageError> {
        let _alone = self.writing.write().await;
        let entries = {
            let mut book = book.lock();
            // marks of dead letters that are no longer kept
            book.replayed = book.replayed.split_off(&self.letters.start().offset(0));
            book.add_up_old_days(BUCKETS_MAX);
            book.summary()
        };
        if book.lock().rows_since_summary <= ROLL_UP_ROWS.max(entries.len() as u64 * 2) {
            return Ok(());
        }
        let below = self.log.head();
        self.append(&entries).await?;
        book.lock().rows_since_summary = 0;
        self.log.truncate(&below).await
    }

    fn damaged(&self, offset: Offset) -> StorageError {
        StorageError::Damaged {
            path: format!("receipts of {}", self.log.incarnation()),
            reason: format!("nothing that can be read at offset {offset}"),
        }
    }
}

/// The receipt of one partition's part of a request; none if all of it was appended.
pub(crate) fn receipt(partition: Partition, append_us: i64, counts: IntakeCounts) -> Option<Entry> {
    let plain = IntakeCounts { received: counts.accepted, accepted: counts.accepted, ..IntakeCounts::default() };
    (counts != plain).then(|| Entry::counts(Some(partition), bucket_of(append_us), counts))
}
