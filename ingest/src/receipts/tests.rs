use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use schemas::column::APPEND_TIME;
use storage::log::{Frame, MemoryLog};

use super::*;
use storage::log::memory::Disk;

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

/// A log of records or dead letters with these append times.
fn at_times(times_us: &[i64]) -> Arc<MemoryLog> {
    let log = log(1);
    append(&log, times_us);
    log
}

fn append(log: &MemoryLog, times_us: &[i64]) {
    for (base, time_us) in (0..).zip(times_us) {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![*time_us]).with_timezone("UTC"));
        let rows = RecordBatch::try_from_iter([(APPEND_TIME, times)]).unwrap();
        log.push(Frame { partition: 0, base, rows });
    }
}

/// A run may look between the append and its receipt: the first records of a partition count all the same.
#[tokio::test]
async fn first_records_count_before_their_receipt() {
    let records = log(1);
    let receipts = Receipts::new(Arc::clone(&records) as Arc<dyn Log>, log(1), log(1));
    assert_eq!(receipts.intake(&Cut::default()).await.unwrap(), [], "the book is read");
    append(&records, &[1, 2, BUCKET_US + 1]);
    let intake = receipts.intake(&Cut(vec![3])).await.unwrap();
    let found: Vec<_> = intake.iter().map(|bucket| (bucket.bucket_us, bucket.counts.accepted, bucket.landed)).collect();
    assert_eq!(found, [(0, 2, 2), (BUCKET_US, 1, 1)]);
    assert!(intake.iter().all(|bucket| bucket.counts.balance() == 0));
    assert!(receipts.begin(0, 0, 1).await.unwrap().is_some(), "the receipt is still written");
}

/// The process ended between a dead letter and its receipt: the ledger has it all the same, once.
#[tokio::test]
async fn letters_without_a_receipt_are_counted_once() {
    let (letters, rows) = (at_times(&[1, 2, 3, BUCKET_US + 1]), log(1));
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
