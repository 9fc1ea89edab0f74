//! A disk that fails: who was not told "durable" finds nothing, and the log goes on where it can.

use super::*;

/// A log whose disk the test holds. Blocks all others of this thread until it is dropped.
fn faulty(folder: &Path) -> (Arc<EmbeddedLog>, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    CURRENT.set(Arc::clone(&faults));
    let log = open(folder, &small()).unwrap();
    CURRENT.take();
    (log, faults)
}

/// Good calls before the first failing one: 0 fails the write, 1 the sync.
#[rstest::rstest]
#[case::write(0)]
#[case::sync(1)]
#[tokio::test]
async fn failed_group_is_refused_as_a_whole_and_the_log_goes_on(#[case] good_calls: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = faulty(folder.path());
    append(&log, 0, 0, 5).await;
    faults.left.store(good_calls, Ordering::SeqCst);
    faults.is_armed.store(true, Ordering::SeqCst);
    let lost =
        log.append(log.epoch(), vec![(0, rows(900, 5).unwrap()), (1, rows(900, 5).unwrap())]).unwrap().durable().await;
    assert!(matches!(lost, Err(StorageError::Io { .. })));
    assert_eq!(log.head(), Cut(vec![5, 0, 0]));
    faults.is_armed.store(false, Ordering::SeqCst);
    append(&log, 0, 5, 5).await;
    drop(log);
    let log = open(folder.path(), &small()).unwrap();
    assert_eq!(read_all(&*log, 0, 0).await.unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(log.head(), Cut(vec![10, 0, 0]));
}

#[tokio::test]
async fn log_whose_file_cannot_be_cut_back_refuses_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (log, faults) = faulty(folder.path());
    append(&log, 0, 0, 5).await;
    faults.left.store(1, Ordering::SeqCst);
    faults.is_armed.store(true, Ordering::SeqCst);
    faults.cut_fails.store(true, Ordering::SeqCst);
    assert!(log.append(log.epoch(), vec![(0, rows(900, 5).unwrap())]).unwrap().durable().await.is_err());
    faults.is_armed.store(false, Ordering::SeqCst);
    let later = match log.append(log.epoch(), vec![(0, rows(5, 5).unwrap())]) {
        Ok(pending) => pending.durable().await.map(|_| ()),
        Err(refused) => Err(refused),
    };
    assert!(matches!(later, Err(StorageError::Io { .. })));
    assert_eq!(read_all(&*log, 0, 0).await.unwrap(), (0..5).collect::<Vec<_>>(), "what was durable is read");
}

#[tokio::test]
async fn full_queue_is_full_and_empties() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedLogConfig { queue_bytes_max: 20_000, ..EmbeddedLogConfig::default() };
    let log = open(folder.path(), &config).unwrap();
    let larger_than_the_bound = log.append(log.epoch(), vec![(0, rows(0, 2_000).unwrap())]).unwrap();
    let mut refused = 0;
    let mut pending = vec![];
    for step in 0..200 {
        match log.append(log.epoch(), vec![(0, rows(step, 100).unwrap())]) {
            Ok(one) => pending.push(one),
            Err(StorageError::Full { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0);
    larger_than_the_bound.durable().await.unwrap();
    let taken = pending.len() as u64;
    for one in pending {
        one.durable().await.unwrap();
    }
    // The room is given back just after the waiters are told.
    while log.queue.check(log.epoch()).is_err() {
        tokio::task::yield_now().await;
    }
    append(&log, 0, 0, 1).await;
    assert_eq!(log.head().offset(0), 2_000 + taken * 100 + 1);
}
