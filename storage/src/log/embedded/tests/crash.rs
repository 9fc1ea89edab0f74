//! Crashes: files that end anywhere, files with flipped bits.

use super::*;

const SEGMENT: u64 = 0;

/// A log of one segment with five appends of ten rows to alternating partitions, one more with rows
/// for two partitions; returns where each of the appends ends in the file.
async fn written(folder: &Path) -> Vec<u64> {
    let log = open(folder, &EmbeddedLogConfig::default()).unwrap();
    let path = segment::path_of(folder, SEGMENT);
    let mut ends = vec![path.metadata().unwrap().len()];
    for step in 0..5 {
        append(&log, (step % 2) as Partition, step * 10, 10).await;
        ends.push(path.metadata().unwrap().len());
    }
    log.append(log.epoch(), vec![(0, rows(50, 10).unwrap()), (1, rows(60, 10).unwrap())])
        .unwrap()
        .durable()
        .await
        .unwrap();
    ends.push(path.metadata().unwrap().len());
    ends
}

/// What partitions 0 and 1 hold after so many of the appends.
fn expected(appends: usize) -> [Vec<i64>; 2] {
    let of = |partition: usize| {
        let single = (0..5).filter(move |step| step % 2 == partition && *step < appends);
        let both = if appends > 5 { vec![5 + partition] } else { vec![] };
        single.chain(both).flat_map(|step| step as i64 * 10..step as i64 * 10 + 10).collect()
    };
    [of(0), of(1)]
}

async fn assert_holds(log: &EmbeddedLog, appends: usize, case: &str) {
    let [zero, one] = expected(appends);
    assert_eq!(read_all(log, 0, 0).await.unwrap(), zero, "{case}");
    assert_eq!(read_all(log, 1, 0).await.unwrap(), one, "{case}");
}

/// The file of a finished log, over and over again in a new folder.
struct Copy {
    bytes: Vec<u8>,
    ends: Vec<u64>,
}

impl Copy {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ends = written(folder.path()).await;
        Self { bytes: std::fs::read(segment::path_of(folder.path(), SEGMENT)).unwrap(), ends }
    }

    fn place(bytes: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(segment::path_of(folder.path(), SEGMENT), bytes).unwrap();
        folder
    }

    /// How many appends are whole in the first `length` bytes.
    fn whole(&self, length: usize) -> usize {
        self.ends.iter().filter(|end| **end <= length as u64).count() - 1
    }
}

#[tokio::test]
async fn file_cut_at_every_byte_of_its_last_frames_keeps_all_whole_appends() {
    let copy = Copy::new().await;
    let from = copy.ends[4] as usize;
    for length in from..copy.bytes.len() {
        let folder = Copy::place(&copy.bytes[..length]);
        let log = open(folder.path(), &small()).unwrap();
        let appends = copy.whole(length);
        if length % 16 == 0 || length + 1 == copy.bytes.len() {
            assert_holds(&log, appends, &format!("cut at {length}")).await;
            append(&log, 2, 7, 1).await;
            drop(log);
            let log = open(folder.path(), &small()).unwrap();
            assert_holds(&log, appends, &format!("cut at {length}, reopened")).await;
            assert_eq!(read_all(&*log, 2, 0).await.unwrap(), [7]);
        } else {
            let [zero, one] = expected(appends);
            assert_eq!(log.head(), Cut(vec![zero.len() as u64, one.len() as u64, 0]), "cut at {length}");
        }
    }
}

#[tokio::test]
async fn flipped_bit_in_the_last_group_is_a_torn_tail() {
    let copy = Copy::new().await;
    for at in (copy.ends[5] as usize..copy.bytes.len()).step_by(5) {
        let mut bytes = copy.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let folder = Copy::place(&bytes);
        let log = open(folder.path(), &small()).unwrap();
        assert_eq!(log.head(), Cut(vec![30, 20, 0]), "byte {at}: neither half of the last append is there");
    }
}

/// Acknowledged frames are never dropped in silence.
#[tokio::test]
async fn flipped_bit_before_later_groups_is_damage() {
    let copy = Copy::new().await;
    for at in (0..copy.ends[5] as usize).step_by(5) {
        let mut bytes = copy.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let folder = Copy::place(&bytes);
        // Bytes 20 to 23 are of no meaning.
        if !(20..24).contains(&at) {
            let opened = open(folder.path(), &small());
            assert!(matches!(opened, Err(StorageError::Damaged { .. })), "byte {at}");
        }
        assert_eq!(std::fs::read(segment::path_of(folder.path(), SEGMENT)).unwrap(), bytes, "byte {at}: untouched");
    }
}

/// Without a sync, pages of one group reach the disk in any order.
#[tokio::test]
async fn hole_within_the_last_group_is_a_torn_tail() {
    let copy = Copy::new().await;
    let mut bytes = copy.bytes.clone();
    let start = copy.ends[5] as usize;
    bytes[start..start + 128].fill(0);
    let folder = Copy::place(&bytes);
    let log = open(folder.path(), &small()).unwrap();
    assert_holds(&log, 5, "the second frame of the group is whole, the first is not").await;
}

#[tokio::test]
async fn garbage_behind_the_last_frame_is_cut() {
    let copy = Copy::new().await;
    for garbage in [vec![0; 4_096], vec![0xa5; 100], vec![1]] {
        let mut bytes = copy.bytes.clone();
        bytes.extend(&garbage);
        let folder = Copy::place(&bytes);
        let log = open(folder.path(), &small()).unwrap();
        assert_holds(&log, 6, "all appends").await;
        assert_eq!(segment::path_of(folder.path(), SEGMENT).metadata().unwrap().len(), copy.bytes.len() as u64);
    }
}

#[tokio::test]
async fn damage_in_an_older_segment_is_found_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &EmbeddedLogConfig { tail_bytes_max: 0, ..small() }).unwrap();
    for step in 0..40 {
        append(&log, 0, step * 5, 5).await;
    }
    drop(log);
    let path = segment::path_of(folder.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 70;
    bytes[at] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let log = open(folder.path(), &small()).unwrap();
    assert!(matches!(read_all(&*log, 0, 0).await, Err(StorageError::Damaged { .. })));
    drop(log);
    std::fs::write(&path, &bytes[..bytes.len() - 64]).unwrap();
    assert!(matches!(open(folder.path(), &small()), Err(StorageError::Damaged { .. })), "only the newest may be torn");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(open(folder.path(), &small()), Err(StorageError::Damaged { .. })), "a segment is missing");
}

/// Every frame of partitions 0 and 1 is gone with the older segments; their offsets are not.
#[tokio::test]
async fn start_and_head_survive_when_all_frames_of_a_partition_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &small()).unwrap();
    append(&log, 1, 0, 17).await;
    for step in 0..60 {
        append(&log, 0, step * 5, 5).await;
    }
    log.truncate(&log.head()).await.unwrap();
    let (start, head) = (log.start(), log.head());
    assert_eq!(start.offset(1), 17);
    drop(log);
    let log = open(folder.path(), &small()).unwrap();
    assert_eq!((log.start(), log.head()), (start, head));
    let placed = log.append(log.epoch(), vec![(1, rows(0, 1).unwrap())]).unwrap().durable().await.unwrap();
    assert_eq!(placed, [(1, 17..18)]);
}

#[tokio::test]
async fn half_made_segment_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), &small()).unwrap());
    let half = segment::path_of(folder.path(), 1).with_extension("new");
    std::fs::write(&half, b"BFLOG").unwrap();
    open(folder.path(), &small()).unwrap();
    assert!(!half.exists());
}

#[tokio::test]
async fn frozen_example_of_version_1_is_read() {
    let frozen = concat!(env!("CARGO_MANIFEST_DIR"), "/frozen/log-v1.log");
    let folder = Copy::place(&std::fs::read(frozen).unwrap());
    let log = open(folder.path(), &small()).unwrap();
    assert_holds(&log, 6, "frozen").await;
}
