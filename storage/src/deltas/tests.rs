use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray,
    StringViewArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::Int32Type;
use proptest::prelude::*;
use rstest::rstest;
use schemas::documents::delta::DeltaView;
use schemas::{Cut, LedgerCounts};

use super::*;
use crate::owner::testing::{bucket, next_owner};

fn header(first: u64, last: u64, from: u64, to: u64, views: usize) -> DeltaHeader {
    let view = |n: usize| DeltaView {
        view: Uuid::from_u128(n as u128),
        semantic_hash: format!("hash {n}"),
        from: Cut(vec![from]),
        cells: 0,
        ledger: vec![LedgerCounts { records: to - from, counted: to - from, ..LedgerCounts::default() }],
        bytes: 0,
    };
    DeltaHeader {
        format: 1,
        stream: Uuid::from_u128(77),
        incarnation: Uuid::from_u128(78),
        first_checkpoint: first,
        last_checkpoint: last,
        from: Cut(vec![from]),
        to: Cut(vec![to]),
        max_event_time_us: vec![Some(5), None],
        views: (0..views).map(view).collect(),
        failed: vec![],
        created_at_us: 1_000,
        as_of_us: None,
    }
}

fn states(keys: &[Option<String>]) -> RecordBatch {
    let n = keys.len() as i64;
    let lists = (0..n).map(|i| if i % 3 == 0 { None } else { Some(vec![Some(i as i32), None]) });
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("g0", Arc::new(StringViewArray::from_iter(keys.iter().map(Option::as_deref))), true),
        ("g1", Arc::new(TimestampMicrosecondArray::from_iter_values(0..n).with_timezone("UTC")), true),
        ("s0", Arc::new(Int64Array::from_iter((0..n).map(|i| if i % 2 == 0 { Some(i) } else { None }))), true),
        ("s1", Arc::new(Decimal128Array::from_iter_values((0..n).map(|i| i128::from(i) << 80))), true),
        ("s2", Arc::new(BinaryArray::from_iter(keys.iter().map(Option::as_deref))), true),
        ("s3", Arc::new(BinaryViewArray::from_iter(keys.iter().map(Option::as_deref))), true),
        ("s4", Arc::new(BooleanArray::from_iter((0..n).map(|i| Some(i % 5 == 0)))), true),
        ("s5", Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64 * -0.5))), true),
        ("s6", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)), true),
        ("_n", Arc::new(UInt64Array::from_iter_values(0..n as u64)), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn keys(n: usize) -> Vec<Option<String>> {
    (0..n).map(|i| if i % 4 == 3 { None } else { Some("key ".repeat(i % 9) + &i.to_string()) }).collect()
}

fn store() -> DeltaStore {
    DeltaStore::new(Store::in_memory())
}

async fn commit(store: &DeltaStore, first: u64, last: u64) -> Result<DeltaHeader, StorageError> {
    let header = header(first, last, first * 10, last * 10 + 10, 1);
    store.commit(&header, &[vec![states(&keys(last as usize + 1))]]).await
}

proptest! {
    #[test]
    fn delta_round_trips(
        keys in proptest::collection::vec(proptest::option::of("[a-zé]{0,40}"), 0..60),
        cut in 0usize..60,
    ) {
        let all = states(&keys);
        let cut = cut.min(keys.len());
        let parts = vec![all.slice(0, cut), all.slice(cut, keys.len() - cut)];
        let (header, bytes) = encode(&header(3, 4, 30, 50, 3), &[parts.clone(), vec![], vec![all.clone()]]).unwrap();
        let delta = decode("d", &bytes).unwrap();
        prop_assert_eq!(&delta.header, &header);
        prop_assert_eq!(header.views[0].cells, keys.len() as u64);
        prop_assert_eq!(&delta.states, &vec![parts, vec![], vec![all]]);
    }
}

/// I5: the bytes are those of the values, wherever the rows came from.
#[test]
fn same_states_give_the_same_bytes() {
    let keys = keys(300);
    let views = |rows: &RecordBatch| rows.project(&[0, 5]).unwrap();
    let encoded = |rows: RecordBatch| encode(&header(1, 1, 0, 9, 1), &[vec![rows]]).unwrap().1;
    let from_slice = encoded(views(&states(&keys).slice(100, 50)));
    assert_eq!(from_slice, encoded(views(&states(&keys[100..150]))), "a slice writes only itself");
    let once_read = decode("d", &from_slice).unwrap().states.remove(0).remove(0);
    assert_eq!(from_slice, encoded(once_read));
}

#[test]
fn any_flipped_or_missing_byte_is_damage() {
    let (_, bytes) = encode(&header(1, 1, 0, 9, 2), &[vec![states(&keys(9))], vec![]]).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x10;
        assert!(matches!(decode("d", &flipped), Err(StorageError::Damaged { .. })), "byte {at}");
        assert!(decode("d", &bytes[..at]).is_err(), "cut at {at}");
    }
}

/// Read on all cores, it is the same delta, and no bit of it may differ.
#[tokio::test]
async fn delta_on_a_disk_is_read_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let store = DeltaStore::new(Store::open(folder.path().to_str().unwrap()).unwrap());
    let large = states(&keys(90_000));
    let written = store.commit(&header(2, 3, 20, 40, 3), &[vec![large.clone()], vec![], vec![states(&keys(9))]]).await;
    let written = written.unwrap();
    assert!(written.views[0].bytes > 8 << 20, "{}", written.views[0].bytes);
    let stream = Uuid::from_u128(77);
    let read = store.read(stream, 2, 3).await.unwrap();
    assert_eq!((read.header, &read.states[0]), (written, &vec![large]));
    assert_eq!(read.states[1..], [vec![], vec![states(&keys(9))]]);
    let file = folder.path().join(paths::delta(stream, 2, 3));
    let bytes = std::fs::read(&file).unwrap();
    let middle = (1..8).map(|eighth| bytes.len() * eighth / 8);
    for at in (0..40).chain(middle).chain(bytes.len() - 6..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        std::fs::write(&file, flipped).unwrap();
        assert!(matches!(store.read(stream, 2, 3).await, Err(StorageError::Damaged { .. })), "byte {at}");
    }
    for length in [0, 11, 15, 200, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&file, &bytes[..length]).unwrap();
        assert!(matches!(store.read(stream, 2, 3).await, Err(StorageError::Damaged { .. })), "cut at {length}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(store.read(stream, 2, 3).await, Err(StorageError::NotFound { .. })));
}

#[test]
fn states_of_another_number_of_views_are_refused() {
    assert!(encode(&header(1, 1, 0, 9, 2), &[vec![]]).is_err());
}

/// I2: of two writers of one checkpoint the second loses.
#[tokio::test]
async fn second_writer_is_fenced() {
    let store = store();
    commit(&store, 0, 0).await.unwrap();
    let mut theirs = header(0, 0, 0, 99, 1);
    theirs.created_at_us = 2_000;
    let lost = store.commit(&theirs, &[vec![]]).await;
    assert!(matches!(lost, Err(StorageError::Conflict { .. })));
}

#[tokio::test]
async fn chain_prefers_merged_objects_and_cleans_up() {
    let store = store();
    for checkpoint in 0..6 {
        commit(&store, checkpoint, checkpoint).await.unwrap();
    }
    commit(&store, 0, 3).await.unwrap();
    let stream = Uuid::from_u128(77);
    let names = |chain: &[Delta]| -> Vec<(u64, u64)> {
        chain.iter().map(|d| (d.header.first_checkpoint, d.header.last_checkpoint)).collect()
    };
    let chain = store.chain(stream, Some(0)).await.unwrap();
    assert_eq!(names(&chain), [(0, 3), (4, 4), (5, 5)]);
    assert_eq!(chain[0].states[0][0], states(&keys(4)));
    assert_eq!(names(&store.chain(stream, Some(4)).await.unwrap()), [(4, 4), (5, 5)]);
    assert!(store.chain(stream, Some(6)).await.unwrap().is_empty());
    store.remove_merged(stream, &[(0, 3), (4, 4), (5, 5)], None).await.unwrap();
    assert_eq!(store.names(stream).await.unwrap(), [(0, 3), (4, 4), (5, 5)]);
    store.remove_below(stream, 5, None).await.unwrap();
    assert_eq!(names(&store.chain(stream, None).await.unwrap()), [(5, 5)]);
    store.remove_all(stream).await.unwrap();
    assert!(store.chain(stream, None).await.unwrap().is_empty());
}

/// I1: cuts of neighbours have to meet.
#[tokio::test]
async fn neighbours_that_do_not_meet_are_damage() {
    let store = store();
    commit(&store, 0, 0).await.unwrap();
    store.commit(&header(1, 1, 11, 20, 1), &[vec![]]).await.unwrap();
    let broken = store.chain(Uuid::from_u128(77), None).await;
    assert!(matches!(broken, Err(StorageError::Damaged { .. })));
}

#[rstest]
#[case::empty(&[], None, Some(&[][..]))]
#[case::one(&[(0, 0)], None, Some(&[(0, 0)][..]))]
#[case::longest(&[(0, 0), (0, 1), (1, 1), (2, 2)], Some(0), Some(&[(0, 1), (2, 2)][..]))]
#[case::longest_is_a_dead_end(&[(0, 0), (0, 1), (1, 2)], Some(0), Some(&[(0, 0), (1, 2)][..]))]
#[case::starts_inside_a_merged_one(&[(0, 3), (4, 4)], Some(2), Some(&[(0, 3), (4, 4)][..]))]
#[case::starts_at_its_own(&[(0, 3), (2, 2), (3, 3), (4, 4)], Some(4), Some(&[(4, 4)][..]))]
#[case::gap(&[(0, 0), (2, 2)], Some(0), None)]
#[case::missing_front(&[(3, 3)], Some(1), None)]
#[case::left_behind_before_a_gap(&[(0, 7), (4, 11), (12, 12)], None, Some(&[(4, 11), (12, 12)][..]))]
#[case::two_ways_to_merge(&[(0, 7), (4, 11), (8, 8), (9, 11), (12, 12)], None, Some(&[(0, 7), (8, 8), (9, 11), (12, 12)][..]))]
#[case::gap_where_it_is_needed(&[(0, 7), (4, 11), (12, 12)], Some(0), None)]
#[case::nothing_new(&[(0, 3)], Some(4), Some(&[][..]))]
fn chain_is_selected(
    #[case] names: &[(u64, u64)],
    #[case] first_needed: Option<u64>,
    #[case] expected: Option<&[(u64, u64)]>,
) {
    assert_eq!(select(names, first_needed).ok().as_deref(), expected);
}

#[tokio::test]
async fn frozen_example_of_version_1_is_read() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/frozen/delta-v1.delta")).unwrap();
    let delta = decode("delta-v1", &bytes).unwrap();
    let expected = header(7, 9, 70, 100, 2);
    assert_eq!((delta.header.first_checkpoint, delta.header.to.clone()), (7, expected.to.clone()));
    assert_eq!(delta.header.views[0].ledger, expected.views[0].ledger);
    assert_eq!(delta.states, [vec![states(&keys(12)), states(&keys(5))], vec![]]);
}

/// I9: an overtaken owner may write a merge of what the new one has read, and removes nothing that it stands for.
#[tokio::test]
async fn overtaken_owner_removes_no_deltas() {
    let bucket = bucket();
    let (old, stream) = (DeltaStore::new(next_owner(&bucket).await), Uuid::from_u128(77));
    for checkpoint in 0..3 {
        commit(&old, checkpoint, checkpoint).await.unwrap();
    }
    commit(&old, 0, 1).await.unwrap();
    let new = DeltaStore::new(next_owner(&bucket).await);
    let refused = old.remove_merged(stream, &[(0, 1), (2, 2)], None).await;
    assert!(matches!(refused, Err(StorageError::Fenced { owner: 2, mine: 1, .. })));
    assert_eq!(new.names(stream).await.unwrap(), [(0, 0), (0, 1), (1, 1), (2, 2)]);
    // what is merged beside the chain stands for none of its deltas
    commit(&old, 1, 2).await.unwrap();
    new.remove_merged(stream, &[(0, 1), (2, 2)], None).await.unwrap();
    assert_eq!(new.names(stream).await.unwrap(), [(0, 1), (1, 2), (2, 2)]);
    let chain = new.chain(stream, None).await.unwrap();
    assert_eq!(chain.iter().map(|delta| delta.header.last_checkpoint).collect::<Vec<_>>(), [1, 2]);
}

/// I9: the name of a claim is not given free again: an older owner's checkpoint of that number may still be on its way.
#[tokio::test]
async fn claim_outlives_what_is_retired() {
    let (store, stream) = (store(), Uuid::from_u128(77));
    for checkpoint in 0..6 {
        commit(&store, checkpoint, checkpoint).await.unwrap();
    }
    commit(&store, 0, 3).await.unwrap();
    store.remove_merged(stream, &[(0, 3), (4, 4), (5, 5)], Some(2)).await.unwrap();
    store.remove_below(stream, 5, Some(2)).await.unwrap();
    assert_eq!(store.names(stream).await.unwrap(), [(2, 2), (5, 5)]);
    assert!(matches!(commit(&store, 2, 2).await, Err(StorageError::Conflict { .. })));
    assert_eq!(store.chain(stream, None).await.unwrap().len(), 1, "it is no part of the chain");
}
