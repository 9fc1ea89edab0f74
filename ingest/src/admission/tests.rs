use std::ops::Range;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use schemas::column::{APPEND_TIME, MAX_EVENT_TIME};
use storage::clock::ManualClock;
use storage::log::MemoryLog;
use storage::log::memory::Disk;

use super::*;
use crate::admission::parts::split;
use crate::identity::identities;
use crate::testing::{Content, HOUR_US, decode_lines, log, stream};

struct World {
    stream: Arc<StreamDef>,
    log: Arc<MemoryLog>,
    clock: ManualClock,
    admission: Arc<Admission>,
}

impl World {
    fn new(partitions: u32) -> Self {
        Self::on(log(partitions), partitions, 1_000 * HOUR_US, 1_000_000)
    }

    /// A process that starts on a log that is there.
    fn on(log: Arc<MemoryLog>, partitions: u32, now_us: i64, ids_max: usize) -> Self {
        Self::with(log, partitions, now_us, Memory { ids_in_memory_max: ids_max, ids_max, folder: None })
    }

    /// One that has room for two hundred ids in memory, and a folder.
    fn on_disk(log: Arc<MemoryLog>, folder: &tempfile::TempDir) -> Self {
        let folder = Some(folder.path().to_owned());
        Self::with(log, 2, 1_000 * HOUR_US, Memory { ids_in_memory_max: 200, ids_max: 100_000, folder })
    }

    fn with(log: Arc<MemoryLog>, partitions: u32, now_us: i64, memory: Memory) -> Self {
        let stream = Arc::new(stream("s", partitions));
        let clock = ManualClock::at(now_us);
        let shared = Arc::clone(&log) as Arc<dyn Log>;
        let admission = Arc::new(Admission::new(Arc::clone(&stream), shared, Arc::new(clock.clone()), memory));
        Self { stream, log, clock, admission }
    }

    fn parts(&self, events: &[(&str, &str, i64)]) -> Vec<Part> {
        let lines: Vec<String> = events
            .iter()
            .map(|(id, repo, ms)| format!(r#"{{"id":"{id}","repo":"{repo}","event_time":{ms}}}"#))
            .collect();
        let rows = decode_lines(&self.stream, &lines.join("\n"));
        let ids = identities(&self.stream, &rows).unwrap().unwrap();
        split(&self.stream, rows, ids).unwrap()
    }

    async fn admit(&self, events: &[(&str, &str, i64)]) -> Result<(u64, u64), StorageError> {
        self.admission.admit(self.parts(events)).await.map(|a| a.counts()).map(|c| (c.accepted, c.duplicates))
    }

    fn spawn(&self, events: &[(&str, &str, i64)]) -> tokio::task::JoinHandle<Result<Admitted, StorageError>> {
        let (admission, parts) = (Arc::clone(&self.admission), self.parts(events));
        tokio::spawn(async move { admission.admit(parts).await })
    }

    fn times(&self, column: &str) -> Vec<Option<i64>> {
        let rows = self.log.rows(0).unwrap();
        rows.column_by_name(column).unwrap().as_primitive::<TimestampMicrosecondType>().iter().collect()
    }
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn numbered(range: Range<u32>) -> Vec<(String, i64)> {
    range.map(|i| (format!("e{i}"), i64::from(i))).collect()
}

fn borrowed(events: &[(String, i64)]) -> Vec<(&str, &str, i64)> {
    events.iter().map(|(id, ms)| (id.as_str(), "r", *ms)).collect()
}

#[tokio::test]
async fn the_first_of_an_id_wins_within_and_across_requests() {
    let world = World::new(4);
    let first = [("a", "one", 1), ("b", "one", 2), ("a", "two", 3)];
    assert_eq!(world.admit(&first).await.unwrap(), (2, 1));
    assert_eq!(world.admit(&[("b", "three", 4), ("c", "three", 5)]).await.unwrap(), (1, 1));
    assert_eq!(world.admit(&first).await.unwrap(), (0, 3));
    assert_eq!(world.log.texts("id"), ["a", "b", "c"]);
    assert_eq!(world.log.texts("repo"), ["one", "one", "three"]);
}

#[tokio::test]
async fn the_cut_covers_what_is_new_and_the_originals_of_duplicates() {
    let world = World::new(4);
    let events = numbered(0..100);
    let admitted = world.admission.admit(world.parts(&borrowed(&events))).await.unwrap();
    assert_eq!(admitted.cut, world.log.head());
    let again = world.admission.admit(world.parts(&borrowed(&events[..1]))).await.unwrap();
    let touched: Vec<u64> = again.cut.0.iter().copied().filter(|offset| *offset > 0).collect();
    assert_eq!((again.counts().duplicates, touched.len()), (1, 1));
    assert!(again.cut.is_at_most(&admitted.cut));
}

#[tokio::test]
async fn largest_event_time_is_that_of_the_records_before() {
    let world = World::new(1);
    world.admit(&[("a", "r", 5), ("a", "r", 99), ("b", "r", 3), ("c", "r", 8)]).await.unwrap();
    world.admit(&[("d", "r", 1), ("e", "r", 9)]).await.unwrap();
    let expected = [None, Some(5_000), Some(5_000), Some(8_000), Some(8_000)];
    assert_eq!(world.times(MAX_EVENT_TIME), expected);
    assert_eq!(world.log.rows(0).unwrap().schema(), world.stream.log_schema());
}

#[tokio::test]
async fn append_time_never_decreases_even_if_the_clock_does() {
    let world = World::new(1);
    world.admit(&[("a", "r", 1)]).await.unwrap();
    world.clock.advance_us(-500);
    world.admit(&[("b", "r", 1)]).await.unwrap();
    let earlier = World::on(Arc::clone(&world.log), 1, 7, 1_000);
    earlier.admit(&[("c", "r", 1)]).await.unwrap();
    assert_eq!(world.times(APPEND_TIME), [Some(1_000 * HOUR_US); 3]);
}

#[tokio::test]
async fn a_restart_remembers_ids_and_largest_event_time() {
    let first = World::new(4);
    let events = numbered(0..1_000);
    first.admit(&borrowed(&events)).await.unwrap();
    first.admit(&[("x", "r", 5_000)]).await.unwrap();
    let second = World::on(Arc::clone(&first.log), 4, 1_001 * HOUR_US, 1_000_000);
    assert_eq!(second.admit(&borrowed(&events)).await.unwrap(), (0, 1_000));
    let single = World::new(1);
    single.admit(&[("a", "r", 7), ("b", "r", 3)]).await.unwrap();
    let restarted = World::on(Arc::clone(&single.log), 1, 1_001 * HOUR_US, 1_000);
    restarted.admit(&[("c", "r", 1)]).await.unwrap();
    assert_eq!(restarted.times(MAX_EVENT_TIME), [None, Some(7_000), Some(7_000)]);
}

#[tokio::test]
async fn an_id_is_new_again_past_the_horizon_with_and_without_a_restart() {
    let world = World::new(1);
    world.admit(&[("old", "r", 1)]).await.unwrap();
    for i in 0..20 {
        world.clock.advance_us(HOUR_US / 2);
        world.admit(&[(&format!("i{i}"), "r", 1)]).await.unwrap();
    }
    world.clock.advance_us(15 * HOUR_US);
    // 25 hours after "old", 24.5 after "i0", 24 after "i1".
    let restarted = World::on(Arc::clone(&world.log), 1, 1_025 * HOUR_US, 1_000);
    assert_eq!(restarted.admit(&[("i1", "r", 1), ("i19", "r", 1)]).await.unwrap(), (0, 2));
    assert_eq!(restarted.admit(&[("old", "r", 1)]).await.unwrap(), (1, 0));
    assert_eq!(world.admit(&[("i1", "r", 1), ("i0", "r", 1)]).await.unwrap(), (1, 1));
}

#[tokio::test]
async fn a_duplicate_waits_for_its_original() {
    let world = World::new(4);
    world.log.set(Disk::Held);
    let original = world.spawn(&[("a", "one", 1)]);
    settle().await;
    let duplicate = world.spawn(&[("a", "two", 1)]);
    settle().await;
    assert_eq!(world.log.queued(), 1);
    assert!(!original.is_finished() && !duplicate.is_finished());
    world.log.flush(true);
    assert_eq!(original.await.unwrap().unwrap().counts().accepted, 1);
    assert_eq!(duplicate.await.unwrap().unwrap().counts().duplicates, 1);
}

#[tokio::test]
async fn nothing_is_acknowledged_when_the_disk_fails_and_all_may_be_sent_again() {
    let world = World::new(1);
    world.admit(&[("z", "r", 3)]).await.unwrap();
    world.log.set(Disk::Held);
    let original = world.spawn(&[("a", "r", 99)]);
    settle().await;
    let (duplicate, follower) = (world.spawn(&[("a", "r", 99)]), world.spawn(&[("b", "r", 1)]));
    settle().await;
    world.log.flush(false);
    settle().await;
    for request in [original, duplicate, follower] {
        assert!(request.await.unwrap().is_err());
    }
    world.log.set(Disk::Quick);
    assert_eq!(world.admit(&[("a", "r", 7), ("b", "r", 1), ("z", "r", 3)]).await.unwrap(), (2, 1));
    assert_eq!(world.times(MAX_EVENT_TIME), [None, Some(3_000), Some(7_000)]);
}

#[tokio::test]
async fn a_duplicate_of_a_lost_event_is_no_duplicate() {
    let world = World::new(1);
    world.log.set(Disk::Held);
    let original = world.spawn(&[("a", "r", 1)]);
    settle().await;
    let duplicate = world.spawn(&[("a", "r", 1)]);
    settle().await;
    let (other, mixed) = (world.spawn(&[("b", "r", 1)]), world.spawn(&[("a", "r", 1), ("c", "r", 1)]));
    settle().await;
    assert_eq!(world.log.queued(), 3);
    // The group of the original fails; nothing takes the place where it would have been.
    world.log.flush_first(1, false);
    for request in [original, duplicate, other, mixed] {
        let error = request.await.unwrap().unwrap_err();
        assert_eq!(error.problem().code, schemas::Code::StorageUnavailable);
    }
    world.log.set(Disk::Quick);
    assert_eq!(world.admit(&[("a", "r", 1), ("b", "r", 1), ("c", "r", 1)]).await.unwrap(), (3, 0));
}

/// The append fails before its sender has heard of it: what is decided meanwhile counts rows that never
/// came to be, so it is decided again.
#[tokio::test]
async fn what_is_decided_before_a_failure_is_known_is_decided_again() {
    let world = World::new(1);
    world.admit(&[("z", "r", 3)]).await.unwrap();
    world.log.set(Disk::Held);
    let lost = world.spawn(&[("a", "r", 99)]);
    settle().await;
    world.log.flush(false);
    world.log.set(Disk::Quick);
    // of all tasks this one goes first: the state still has the lost event, and its largest event time
    assert!(world.admission.state.lock().is_some());
    let parts: Arc<[Part]> = world.parts(&[("a", "r", 5), ("b", "r", 1)]).into();
    assert!(world.admission.decide(&parts, None).unwrap().is_none(), "the log refuses what is of an ended epoch");
    assert!(lost.await.unwrap().is_err());
    assert_eq!(world.admit(&[("a", "r", 5), ("b", "r", 1)]).await.unwrap(), (2, 0));
    assert_eq!(world.times(MAX_EVENT_TIME), [None, Some(3_000), Some(5_000)]);
}

#[tokio::test]
async fn a_full_queue_leaves_no_trace() {
    let world = World::new(1);
    world.admit(&[("z", "r", 3)]).await.unwrap();
    world.log.set(Disk::Full);
    let error = world.admit(&[("a", "r", 99), ("z", "r", 1)]).await.unwrap_err();
    assert_eq!(error.problem().code, schemas::Code::Overloaded);
    assert_eq!(world.admit(&[("z", "r", 3)]).await.unwrap(), (0, 1));
    world.log.set(Disk::Quick);
    assert_eq!(world.admit(&[("a", "r", 99), ("b", "r", 1)]).await.unwrap(), (2, 0));
    assert_eq!(world.times(MAX_EVENT_TIME), [None, Some(3_000), Some(99_000)]);
}

#[tokio::test]
async fn the_index_is_bounded_and_its_room_comes_back() {
    let world = World::on(log(1), 1, 1_000 * HOUR_US, 3);
    world.admit(&[("a", "r", 1), ("b", "r", 1)]).await.unwrap();
    let error = world.admit(&[("c", "r", 1), ("d", "r", 1)]).await.unwrap_err();
    assert!(error.to_string().contains("dedup_horizon"), "{error}");
    assert_eq!(world.admit(&[("c", "r", 1)]).await.unwrap(), (1, 0));
    world.clock.advance_us(49 * HOUR_US);
    assert_eq!(world.admit(&[("d", "r", 1), ("a", "r", 1)]).await.unwrap(), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_overlapping_requests_each_id_is_kept_once() {
    let world = World::new(4);
    let events = numbered(0..640);
    let requests: Vec<_> = (0..64).map(|i| world.spawn(&borrowed(&events[i * 9..(i * 9 + 64).min(640)]))).collect();
    let mut accepted = 0;
    for request in requests {
        let admitted = request.await.unwrap().unwrap();
        assert!(admitted.cut.is_at_most(&world.log.head()));
        accepted += admitted.counts().accepted;
    }
    let mut expected: Vec<String> = events[..63 * 9 + 64].iter().map(|(id, _)| id.clone()).collect();
    expected.sort();
    assert_eq!(accepted as usize, expected.len());
    assert_eq!(world.log.texts("id"), expected);
}

/// Sends events again until there is room: tables are on their way to disk.
async fn admit_when_there_is_room(world: &World, events: &[(&str, &str, i64)]) -> (u64, u64) {
    loop {
        match world.admit(events).await {
            Ok(counts) => return counts,
            Err(error) => assert!(matches!(error, StorageError::Full { .. }), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_memory_has_no_room_for_are_found_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let events = numbered(0..2_000);
    let world = World::on_disk(log(2), &folder);
    for part in events.chunks(100) {
        assert_eq!(admit_when_there_is_room(&world, &borrowed(part)).await, (100, 0));
    }
    for part in events.chunks(100).rev() {
        assert_eq!(admit_when_there_is_room(&world, &borrowed(part)).await, (0, 100));
    }
    world.admission.close().await;
    assert!(std::fs::read_dir(folder.path()).unwrap().count() > 0);
    let restarted = World::on_disk(Arc::clone(&world.log), &folder);
    for part in events.chunks(100) {
        assert_eq!(admit_when_there_is_room(&restarted, &borrowed(part)).await, (0, 100));
    }
    assert_eq!(restarted.log.texts("id").len(), 2_000);
}

/// The id of a lost record must not make its second attempt a duplicate, in this process or the next.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_a_lost_append_never_gets_to_disk() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::on_disk(log(2), &folder);
    let events = numbered(0..200);
    world.log.set(Disk::Held);
    let lost = world.spawn(&borrowed(&events));
    while world.log.queued() == 0 {
        tokio::task::yield_now().await;
    }
    world.log.flush(false);
    assert!(lost.await.unwrap().is_err());
    world.admission.close().await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    world.log.set(Disk::Quick);
    assert_eq!(world.admit(&borrowed(&events)).await.unwrap(), (200, 0));
}

#[tokio::test]
async fn another_payload_under_the_same_id_is_a_conflict() {
    let world = World::new(2);
    world.admit(&[("a", "one", 1), ("b", "one", 2)]).await.unwrap();
    let sent = [("a", "one", 1), ("b", "two", 2), ("c", "x", 3), ("c", "x", 3), ("c", "y", 3), ("a", "one", 9)];
    let admitted = world.admission.admit(world.parts(&sent)).await.unwrap();
    let counts = admitted.counts();
    assert_eq!((counts.accepted, counts.duplicates, counts.conflicts), (1, 5, 3));
}
