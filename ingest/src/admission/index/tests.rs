use xxhash_rust::xxh3::xxh3_128;

use super::*;

fn id(n: u64) -> Identity {
    xxh3_128(&n.to_le_bytes())
}

fn disk(folder: &tempfile::TempDir) -> Disk {
    Disk { folder: folder.path().join("ids"), incarnation: uuid::Uuid::from_u128(7), partition: 3 }
}

/// Keeps one id per offset from `from` on, at `now_us`.
fn fill(index: &mut Index, offsets: Range<Offset>, now_us: i64) {
    index.note_time(now_us, offsets.start);
    for offset in offsets {
        assert_eq!(index.find(id(offset)).unwrap(), None, "{offset}");
        assert_eq!(index.keep(id(offset), offset), None);
    }
}

fn spill(index: &mut Index, next: Offset) {
    let (frozen, disk) = index.freeze(next).unwrap();
    index.spilled(disk.write(&frozen).unwrap());
    while let Some((disk, pair)) = index.mergeable() {
        index.replace(disk.merge(&pair).unwrap());
    }
}

#[test]
fn an_identity_is_good_for_the_horizon_and_less_than_a_step_longer() {
    let mut index = Index::new(Horizon::new(1_024_000), 0, None);
    let kept_us = 5_000_500;
    index.note_time(kept_us, 0);
    assert_eq!(index.keep(id(7), 0), None);
    for (age_us, known) in [(0, true), (1_024_000, true), (1_024_499, true), (1_024_500, false), (9_000_000, false)] {
        index.expire(kept_us + age_us, 1);
        assert_eq!(index.find(id(7)).unwrap(), known.then_some(0), "after {age_us} µs");
    }
    assert_eq!(index.keep(id(7), 1), None);
}

#[test]
fn memory_is_given_back() {
    let mut index = Index::new(Horizon::new(100), 0, None);
    for offset in 0..1_000 {
        let now_us = offset as i64 * 10;
        index.expire(now_us, offset);
        fill(&mut index, offset..offset + 1, now_us);
        assert!(index.len() <= 24, "{}", index.len());
    }
    index.expire(100_000, 1_000);
    index.expire(200_000, 1_000);
    assert_eq!(index.len(), 0);
}

#[test]
fn what_is_taken_back_was_never_there() {
    let mut index = Index::new(Horizon::new(100), 0, None);
    assert_eq!(index.keep(id(7), 4), None);
    index.forget(id(7));
    assert_eq!(index.keep(id(7), 5), None);
    assert_eq!(index.keep(id(7), 6), Some(5));
}

#[test]
fn on_disk_nothing_is_lost_and_runs_stay_few() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = Index::new(Horizon::new(1_000_000), 0, Some(disk(&folder)));
    for batch in 0..32_u64 {
        fill(&mut index, batch * 500..(batch + 1) * 500, batch as i64);
        spill(&mut index, (batch + 1) * 500);
    }
    assert_eq!((index.in_memory(), index.len()), (0, 16_000));
    assert!(index.levels.len() <= 6, "{}", index.levels.len());
    let all: Vec<Identity> = (0..16_100).map(id).collect();
    let expected: Vec<(u32, Offset)> = (0..16_000).map(|n| (n, u64::from(n))).collect();
    assert_eq!(index.probe(&all).unwrap(), expected);
}

#[test]
fn runs_are_found_again_and_those_of_no_use_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(&folder);
    let mut index = Index::new(Horizon::new(1_000_000), 0, Some(disk.clone()));
    for batch in 0..3_u64 {
        fill(&mut index, batch * 1_000..(batch + 1) * 1_000, batch as i64 * 2_000);
        let (frozen, disk) = index.freeze((batch + 1) * 1_000).unwrap();
        index.spilled(disk.write(&frozen).unwrap());
    }
    std::fs::write(disk.folder.join("00003-00000000000000000000-00000000000000000009.ids"), "torn").unwrap();
    std::fs::write(disk.folder.join("00003-00000000000000000000-00000000000000000009.new"), "half").unwrap();
    std::fs::write(disk.folder.join("00004-00000000000000000000-00000000000000000009.ids"), "another's").unwrap();
    let spans = |head, from| {
        let runs = disk.recover(from, head).unwrap();
        runs.iter().map(|run| (run.0.span.offsets.clone(), run.0.steps.clone())).collect::<Vec<_>>()
    };
    let step = |us| Horizon::new(1_000_000).step(us);
    let all = [(0..1_000, vec![(step(0), 0)]), (1_000..2_000, vec![(step(2_000), 1_000)])];
    // the last one ends beyond the head: it is of another log
    assert_eq!(spans(2_500, 0), all);
    assert_eq!(std::fs::read_dir(&disk.folder).unwrap().count(), 3);
    assert_eq!(spans(2_500, 2_400), [], "they do not reach what is needed");
    assert_eq!(std::fs::read_dir(&disk.folder).unwrap().count(), 1);
}

#[test]
fn a_damaged_page_is_an_error_once_and_its_run_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(&folder);
    let mut index = Index::new(Horizon::new(1_000_000), 0, Some(disk.clone()));
    fill(&mut index, 0..1_000, 0);
    spill(&mut index, 1_000);
    let path = disk.folder.join("00003-00000000000000000000-00000000000000001000.ids");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    // the open file is the one that is written over
    std::fs::write(&path, bytes).unwrap();
    let all: Vec<Identity> = (0..1_000).map(id).collect();
    assert!(matches!(index.probe(&all), Err(StorageError::Damaged { .. })));
    assert!(!path.exists());
    assert!(disk.recover(0, 1_000).unwrap().is_empty());
}

#[test]
fn past_the_horizon_runs_are_dropped_with_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(&folder);
    let mut index = Index::new(Horizon::new(1_000), 0, Some(disk.clone()));
    fill(&mut index, 0..100, 0);
    spill(&mut index, 100);
    index.expire(500, 100);
    fill(&mut index, 100..200, 500);
    index.expire(1_200, 200);
    assert_eq!(index.find(id(5)).unwrap(), None);
    assert_eq!(index.find(id(105)).unwrap(), Some(105));
    assert_eq!(std::fs::read_dir(&disk.folder).unwrap().count(), 0);
}
