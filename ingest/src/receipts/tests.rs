use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use schemas::column::APPEND_TIME;
use schemas::documents::ledger::BUCKET_US;
use storage::log::memory::Disk;
use storage::log::{Frame, MemoryLog};

use super::*;
use crate::testing::{Content, log};

fn receipts() -> (Receipts, Arc<MemoryLog>) {
    let receipts = log(1);
    (Receipts::new(log(2), log(1), Arc::clone(&receipts) as Arc<dyn Log>), receipts)
}

fn counts(received: u64, duplicates: u64) -> IntakeCounts {
    IntakeCounts { received, accepted: received - duplicates, duplicates, ..IntakeCounts::default() }
}

#[tokio::test]
async fn a_receipt_counts_when_it_is_durable_and_not_before() {
    let (receipts, log) = receipts();
    log.set(Disk::Full);
    let entry = receipt(1, 5, counts(3, 2)).unwrap();
    assert!(receipts.write(vec![entry]).await.is_err());
    assert_eq!(receipts.intake(&Cut::default()).await.unwrap(), []);
    log.set(Disk::Quick);
    receipts.write(vec![entry]).await.unwrap();
    let intake = receipts.intake(&Cut::default()).await.unwrap();
    assert_eq!((intake.len(), intake[0].partition, intake[0].counts.duplicates), (1, Some(1), 2));
}

#[test]
fn a_request_that_was_all_appended_needs_none() {
    assert_eq!(receipt(0, 5, counts(3, 0)), None);
}

#[tokio::test]
async fn rolled_up_receipts_say_the_same() {
    let (receipts, log) = receipts();
    let mut entries = vec![Entry::replayed(4, 77), Entry::boundary(0, 0, 0)];
    for n in 0..ROLL_UP_ROWS as i64 {
        entries.extend(receipt((n % 2) as Partition, n % 3 * 600_000_000, counts(3, 1)));
    }
    let small = entries.split_off(ROLL_UP_ROWS as usize - 10);
    receipts.write(entries).await.unwrap();
    let before = log.head().offset(0);
    for entry in small {
        receipts.write(vec![entry]).await.unwrap();
    }
    let rows = log.rows(0).unwrap();
    let summary = rows::decode(&rows.slice(before as usize, rows.num_rows() - before as usize)).unwrap();
    assert!(summary.iter().any(|entry| entry.kind == Kind::Summary), "it was rolled up");
    let (intake, marks) = (receipts.intake(&Cut::default()).await.unwrap(), receipts.replayed().await.unwrap());
    let duplicates: u64 = intake.iter().map(|bucket| bucket.counts.duplicates).sum();
    assert_eq!((duplicates, intake.len(), &marks), (ROLL_UP_ROWS, 6, &[(4, 77)].into()));
    let again = Receipts::new(super::tests::log(2), super::tests::log(1), log);
    assert_eq!(again.intake(&Cut::default()).await.unwrap(), intake);
    assert_eq!(again.replayed().await.unwrap(), marks);
}

/// One record of partition 0.
fn push_record(records: &MemoryLog, append_us: i64) {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![append_us]).with_timezone("UTC"));
    let rows = RecordBatch::try_from_iter([(APPEND_TIME, times)]).unwrap();
    records.push(Frame { partition: 0, base: records.head().offset(0), rows });
}

/// Accepted records by bucket.
async fn accepted(receipts: &Receipts) -> Vec<(i64, u64)> {
    let intake = receipts.intake(&Cut::default()).await.unwrap();
    intake.iter().map(|bucket| (bucket.bucket_us / BUCKET_US, bucket.counts.accepted)).collect()
}

/// What is in the log is accepted, in its own ten minutes, whatever became of the receipt (I11). A ledger that
/// lacks it would block every run of the stream's views.
#[tokio::test]
async fn records_whose_receipt_was_not_written_are_counted_all_the_same() {
    let (records, rows) = (log(2), log(1));
    let open = || Receipts::new(Arc::clone(&records) as Arc<dyn Log>, log(1), Arc::clone(&rows) as Arc<dyn Log>);
    let receipts = open();
    // the very first one, one of the next bucket, one of a bucket whose later receipts are written
    for (append_us, fails) in [
        (1, true),
        (2, false),
        (BUCKET_US + 1, true),
        (2 * BUCKET_US + 1, false),
        (3 * BUCKET_US + 1, true),
        (3 * BUCKET_US + 2, false),
    ] {
        let start = records.head().offset(0);
        let begins = receipts.begin(0, start, append_us).await.unwrap();
        push_record(&records, append_us);
        rows.set(if fails { Disk::Full } else { Disk::Quick });
        let duplicate = receipt(0, append_us, counts(2, 1));
        let written = receipts.write(begins.into_iter().chain(duplicate).collect()).await;
        assert_eq!(written.is_err(), fails);
    }
    let right = [(0, 2), (1, 1), (2, 1), (3, 2)];
    assert_eq!(accepted(&receipts).await, right);
    assert_eq!(accepted(&open()).await, right, "after a restart");
    let balance: i128 = open().intake(&Cut::default()).await.unwrap().iter().map(|b| b.counts.balance()).sum();
    assert_eq!(balance, 0);
}

/// Two requests under way together: the process ends before the first one's receipt, after the second one's.
#[tokio::test]
async fn bucket_begins_at_its_first_record_whichever_receipt_is_there() {
    let (records, rows) = (log(2), log(1));
    for append_us in [1, BUCKET_US, BUCKET_US + 1] {
        push_record(&records, append_us);
    }
    let open = || Receipts::new(Arc::clone(&records) as Arc<dyn Log>, log(1), Arc::clone(&rows) as Arc<dyn Log>);
    open().write(vec![Entry::boundary(0, 0, 0), Entry::boundary(0, BUCKET_US, 2)]).await.unwrap();
    assert_eq!(accepted(&open()).await, [(0, 1), (1, 2)]);
}

/// A run may look between the append and its receipt: the first records of a partition count all the same.
#[tokio::test]
async fn first_records_count_before_their_receipt() {
    let records = log(1);
    let receipts = Receipts::new(Arc::clone(&records) as Arc<dyn Log>, log(1), log(1));
    assert_eq!(receipts.intake(&Cut::default()).await.unwrap(), [], "the book is read");
    for append_us in [1, 2, BUCKET_US + 1] {
        push_record(&records, append_us);
    }
    let intake = receipts.intake(&Cut(vec![3])).await.unwrap();
    let found: Vec<_> = intake.iter().map(|bucket| (bucket.bucket_us, bucket.counts.accepted, bucket.landed)).collect();
    assert_eq!(found, [(0, 2, 2), (BUCKET_US, 1, 1)]);
    assert!(intake.iter().all(|bucket| bucket.counts.balance() == 0));
    assert!(receipts.begin(0, 0, 1).await.unwrap().is_some(), "the receipt is still written");
}

/// A log of dead letters with these append times.
fn letters(times_us: &[i64]) -> Arc<MemoryLog> {
    let letters = log(1);
    for append_us in times_us {
        push_record(&letters, *append_us);
    }
    letters
}

/// The process ended between a dead letter and its receipt: the ledger has it all the same, once.
#[tokio::test]
async fn letters_without_a_receipt_are_counted_once() {
    let (letters, rows) = (letters(&[1, 2, 3, BUCKET_US + 1]), log(1));
    let open = || Receipts::new(log(2), Arc::clone(&letters) as Arc<dyn Log>, Arc::clone(&rows) as Arc<dyn Log>);
    let first = open();
    first.write(vec![Entry::quarantined(1, 1)]).await.unwrap();
    for receipts in [&first, &first, &open()] {
        receipts.count_letters().await.unwrap();
        let intake = receipts.intake(&Cut::default()).await.unwrap();
        let found: Vec<_> = intake.iter().map(|bucket| (bucket.bucket_us, bucket.counts.quarantined)).collect();
        assert_eq!(found, [(0, 3), (BUCKET_US, 1)]);
        assert!(intake.iter().all(|bucket| bucket.counts.balance() == 0));
    }
}

/// the ledger in memory is bounded: old days become one bucket each, and every sum is what it was.
#[test]
fn old_days_are_added_up() {
    let day_us = 24 * 3_600 * 1_000_000_i64;
    let mut book = Book::default();
    for (bucket, offset) in (0..10 * 144_i64).zip((0..).step_by(5)) {
        let at_us = bucket * BUCKET_US;
        for partition in 0..2 {
            book.apply(&Entry::boundary(partition, at_us, offset));
            book.apply(&receipt(partition, at_us, counts(7, 3)).unwrap());
        }
        book.apply(&Entry::quarantined(at_us, 2));
    }
    let (head, landed) = (Cut(vec![7_200, 7_300]), Cut(vec![7_000, 100]));
    let by_day = |book: &Book| {
        let mut days: BTreeMap<(Option<Partition>, i64), (IntakeCounts, u64)> = BTreeMap::new();
        for bucket in book.intake(&head, &landed) {
            let day = days.entry((bucket.partition, bucket.bucket_us.div_euclid(day_us))).or_default();
            day.0.add(&bucket.counts);
            day.1 += bucket.landed;
        }
        days
    };
    let (before, whole) = (by_day(&book), book.intake(&head, &landed).len());
    assert_eq!((whole, before.len()), (3 * 10 * 144, 30));
    // five rows a bucket
    book.add_up_old_days(5 * 144 * 3);
    assert_eq!(by_day(&book), before);
    assert_eq!(book.intake(&head, &landed).len(), 3 * (6 + 4 * 144), "the newest days are as they were");
    assert_eq!(book.settled_boundary(0), Some((10 * 144 * BUCKET_US - 2 * BUCKET_US, 7_190)));
    book.add_up_old_days(5 * 144 * 3);
    assert_eq!(by_day(&book), before, "once more changes nothing");
    let mut again = Book::default();
    book.summary().iter().for_each(|entry| again.apply(entry));
    assert_eq!(again.intake(&head, &landed), book.intake(&head, &landed));
}
