//! The cache: bounded, and never wrong.

use rstest::rstest;

use super::*;

fn piece(length: usize) -> Piece {
    Piece { size: 9_999, bytes: (0..length).map(|at| at as u8).collect() }
}

#[test]
fn piece_is_what_was_put_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(folder.path(), 10_000).unwrap();
    assert_eq!(cache.get("a"), None);
    cache.put("a", &piece(100)).unwrap();
    cache.put("b", &piece(0)).unwrap();
    fs::write(folder.path().join("1-1.new"), "half").unwrap();
    let again = DiskCache::open(folder.path(), 10_000).unwrap();
    assert_eq!((again.get("a"), again.get("b"), again.get("c")), (Some(piece(100)), Some(piece(0)), None));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "what was unfinished is gone");
}

#[test]
fn least_recently_used_goes_first_and_the_bound_holds() {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(folder.path(), 1_000).unwrap();
    for key in ["a", "b", "c", "d"] {
        cache.put(key, &piece(200)).unwrap();
    }
    assert!(cache.get("a").is_some());
    cache.put("e", &piece(200)).unwrap();
    let here: Vec<bool> = ["a", "b", "c", "d", "e"].iter().map(|key| cache.get(key).is_some()).collect();
    assert_eq!(here, [true, false, true, true, true]);
    cache.put("large", &piece(500)).unwrap();
    assert_eq!(cache.get("large"), None, "it would take the place of too many");
    let on_disk: u64 = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk <= 1_000, "{on_disk}");
    let smaller = DiskCache::open(folder.path(), 500).unwrap();
    assert!(smaller.index.lock().bytes <= 500);
    assert!(fs::read_dir(folder.path()).unwrap().count() <= 2);
}

/// A torn or damaged file is read from the store again: never believed.
#[rstest]
#[case::torn(|file: &mut Vec<u8>| file.truncate(file.len() / 2))]
#[case::torn_by_a_byte(|file: &mut Vec<u8>| file.truncate(file.len() - 1))]
#[case::emptied(|file: &mut Vec<u8>| file.clear())]
#[case::a_bit_of_the_piece(|file: &mut Vec<u8>| { let at = file.len() - 9; file[at] ^= 1; })]
#[case::a_bit_of_the_size(|file: &mut Vec<u8>| file[14] ^= 1)]
#[case::too_long(|file: &mut Vec<u8>| file.push(0))]
fn damaged_file_is_a_miss(#[case] damage: fn(&mut Vec<u8>)) {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(folder.path(), 10_000).unwrap();
    cache.put("a", &piece(100)).unwrap();
    let path = cache.path(xxh3_128(b"a"));
    let mut file = fs::read(&path).unwrap();
    damage(&mut file);
    fs::write(&path, file).unwrap();
    assert_eq!(cache.get("a"), None);
    cache.put("a", &piece(100)).unwrap();
    assert_eq!(cache.get("a"), Some(piece(100)));
}

#[test]
fn file_of_another_key_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(folder.path(), 10_000).unwrap();
    cache.put("a", &piece(100)).unwrap();
    cache.put("b", &piece(100)).unwrap();
    fs::copy(cache.path(xxh3_128(b"b")), cache.path(xxh3_128(b"a"))).unwrap();
    assert_eq!(cache.get("a"), None, "as a collision of hashes would be");
}
