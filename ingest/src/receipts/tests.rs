use super::*;
use storage::log::MemoryLog;
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
