use std::collections::BTreeSet;
use std::time::Instant;

use arrow::array::{BinaryArray, Int32Array, Int64Array, StringViewArray, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use futures::TryStreamExt;
use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// Key: text (nullable), time. States: count, an optional sketch of `wide` bytes.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("g0", DataType::Utf8View, true),
        Field::new("g1", schemas::column::timestamp_type(), true),
        Field::new("s0", DataType::Int64, false),
        Field::new("s1", DataType::Binary, true),
        Field::new("_n", DataType::UInt64, false),
    ]))
}

/// `names` × `times`, in key order: names padded so that they sort as their numbers, null first.
fn cells(names: usize, times: usize, wide: usize) -> RecordBatch {
    let n = names * times;
    let name = |i: usize| match i / times {
        0 => None,
        name => Some(format!("name {name:09} of a length that is not inlined")),
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter((0..n).map(name))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values((0..n).map(|i| (i % times) as i64 * 3_600))
                .with_timezone("UTC"),
        ),
        Arc::new(Int64Array::from_iter_values((0..n).map(|i| i as i64 * 7))),
        Arc::new(BinaryArray::from_iter((0..n).map(|i| if wide == 0 { None } else { Some(vec![i as u8; wide]) }))),
        Arc::new(UInt64Array::from_iter_values(0..n as u64)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn local() -> (Option<tempfile::TempDir>, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    (Some(folder), store)
}

/// Writes in batches of `batch` rows, as `files` files.
async fn write(store: &Store, rows: &RecordBatch, batch: usize, files: usize) -> Vec<BatchFile> {
    let mut written = vec![];
    let per_file = rows.num_rows().div_ceil(files).max(1);
    for part in 0..files {
        let path = crate::paths::batch_view_part(uuid::Uuid::nil(), 1, part as u32);
        let mut writer = BatchViewWriter::create(store, &path, schema(), 2);
        let end = rows.num_rows().min((part + 1) * per_file);
        for from in (part * per_file..end).step_by(batch) {
            writer.write(&rows.slice(from, batch.min(end - from))).unwrap();
        }
        written.push(writer.finish().await.unwrap());
    }
    written
}

fn prefix(rows: &RecordBatch, row: usize, columns: usize) -> Vec<ArrayRef> {
    rows.columns()[..columns].iter().map(|column| column.slice(row, 1)).collect()
}

fn joined(found: &[RecordBatch]) -> RecordBatch {
    concat_batches(&schema(), found).unwrap()
}

#[rstest]
#[case::local_small_batches(local(), 999, 1)]
#[case::local_large_batches_three_files(local(), 200_000, 3)]
#[case::memory((None, Store::in_memory()), 8_192, 2)]
#[tokio::test]
async fn every_prefix_is_found(
    #[case] place: (Option<tempfile::TempDir>, Store),
    #[case] batch: usize,
    #[case] files: usize,
) {
    let (names, times) = (1_500, 100);
    let rows = cells(names, times, 0);
    let written = write(&place.1, &rows, batch, files).await;
    let reader = BatchViewReader::open(&place.1, schema(), &written).await.unwrap();
    assert_eq!(reader.cells(), 150_000);
    let row_groups: usize = reader.parts.iter().map(|part| part.index.pages_with(&[], 0).len()).sum();
    assert!((150..=156).contains(&row_groups), "pages of 1,000 rows: {row_groups}");
    for row in [0, 1, 99, 100, 999, 1_000, 1_001, 130_999, 131_000, 131_001, 149_999] {
        let found = reader.rows_with_key_prefix(&prefix(&rows, row, 2)).await.unwrap();
        assert_eq!(joined(&found), rows.slice(row, 1), "row {row}");
        let found = reader.rows_with_key_prefix(&prefix(&rows, row, 1)).await.unwrap();
        assert_eq!(joined(&found), rows.slice(row / times * times, times), "name of row {row}");
    }
    let unknown: Vec<ArrayRef> = vec![Arc::new(StringViewArray::from(vec!["nobody"]))];
    assert!(reader.rows_with_key_prefix(&unknown).await.unwrap().is_empty());
    let scanned: Vec<RecordBatch> = reader.scan(10_000).try_collect().await.unwrap();
    assert_eq!(joined(&scanned), rows);
    assert_eq!(scanned[0].schema(), schema(), "views come back as views");
}

#[tokio::test]
async fn look_up_of_a_whole_key_reads_one_page() {
    let (_folder, store) = local();
    let rows = cells(100, 100, 0);
    let reader = BatchViewReader::open(&store, schema(), &write(&store, &rows, 10_000, 1).await).await.unwrap();
    for row in [0, 999, 1_000, 5_500] {
        reader.rows_with_key_prefix(&prefix(&rows, row, 2)).await.unwrap();
    }
    assert_eq!(reader.cache.pages_and_bytes().0, 3, "rows 0 and 999 are in one page");
    reader.rows_with_key_prefix(&prefix(&rows, 999, 2)).await.unwrap();
    assert_eq!(reader.cache.pages_and_bytes().0, 3);
}

#[tokio::test]
async fn wide_states_make_short_pages_and_the_cache_stays_bounded() {
    let (_folder, store) = local();
    let rows = cells(2, 5_000, 4_096);
    let mut reader = BatchViewReader::open(&store, schema(), &write(&store, &rows, 5_000, 1).await).await.unwrap();
    let pages = reader.parts[0].index.pages_with(&[], 0).len();
    assert!((150..=200).contains(&pages), "{pages}");
    reader.cache = Arc::new(PageCache::new(2_000_000));
    let found = reader.rows_with_key_prefix(&[]).await.unwrap();
    assert_eq!(joined(&found), rows);
    let (kept, bytes) = reader.cache.pages_and_bytes();
    assert!(kept > 1 && bytes <= 2_000_000, "{kept} pages, {bytes} bytes");
}

#[tokio::test]
async fn view_without_key_columns_and_view_without_cells() {
    let (_folder, store) = local();
    let schema = Arc::new(Schema::new(vec![Field::new("s0", DataType::Int32, true)]));
    let one = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int32Array::from(vec![Some(5)]))]).unwrap();
    let mut writer = BatchViewWriter::create(&store, "global.parquet", Arc::clone(&schema), 0);
    writer.write(&one).unwrap();
    let file = writer.finish().await.unwrap();
    let reader = BatchViewReader::open(&store, Arc::clone(&schema), &[file]).await.unwrap();
    assert_eq!(reader.rows_with_key_prefix(&[]).await.unwrap(), [one]);
    assert!(reader.rows_with_key_prefix(&[Arc::new(Int32Array::from(vec![1]))]).await.is_err(), "it has no key");

    let file = BatchViewWriter::create(&store, "empty.parquet", self::schema(), 2).finish().await.unwrap();
    assert_eq!(file.cells, 0);
    let reader = BatchViewReader::open(&store, self::schema(), &[file]).await.unwrap();
    assert!(reader.rows_with_key_prefix(&prefix(&cells(1, 1, 0), 0, 2)).await.unwrap().is_empty());
    assert!(reader.scan(10).try_collect::<Vec<_>>().await.unwrap().is_empty());
}

#[tokio::test]
async fn unsorted_rows_are_refused_and_nothing_is_left() {
    let (folder, store) = local();
    let rows = cells(30, 100, 0);
    let mut writer = BatchViewWriter::create(&store, "views/x/part.parquet", schema(), 2);
    writer.write(&rows.slice(2_000, 1_000)).unwrap();
    assert!(writer.write(&rows.slice(0, 1_000)).is_err());
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.unwrap().path().join("views/x")).unwrap().count(), 0);
}

#[tokio::test]
async fn missing_damaged_and_foreign_files_are_told_apart() {
    let (_folder, store) = local();
    let open = |path: &str, bytes, cells| {
        let file = BatchFile { path: path.into(), bytes, cells, checksums: String::new() };
        let store = store.clone();
        async move { BatchViewReader::open(&store, schema(), &[file]).await }
    };
    assert!(matches!(open("no.parquet", 10, 0).await, Err(StorageError::NotFound { .. })));
    store.put("torn.parquet", bytes::Bytes::from_static(b"PAR1 and then nothing")).await.unwrap();
    assert!(matches!(open("torn.parquet", 20, 0).await, Err(StorageError::Damaged { .. })));
    let written = write(&store, &cells(3, 5, 0), 100, 1).await;
    assert!(
        matches!(open(&written[0].path, written[0].bytes, 14).await, Err(StorageError::Damaged { .. })),
        "the manifest says less"
    );
    assert!(open(&written[0].path, written[0].bytes, 15).await.is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Any sorted set of keys, nulls and empty strings included: what is found is what is there.
    #[test]
    fn any_keys_are_found(
        keys in proptest::collection::btree_set((proptest::option::of("[a-c]{0,3}"), proptest::option::of(0i64..4)), 0..200),
        wide in 0usize..30_000,
        batch in 1usize..100,
    ) {
        let keys: BTreeSet<(Option<String>, Option<i64>)> = keys;
        let n = keys.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter(keys.iter().map(|(name, _)| name.as_deref()))),
            Arc::new(TimestampMicrosecondArray::from_iter(keys.iter().map(|(_, time)| *time)).with_timezone("UTC")),
            Arc::new(Int64Array::from_iter_values(0..n as i64)),
            Arc::new(BinaryArray::from_iter_values((0..n).map(|i| vec![i as u8; wide]))),
            Arc::new(UInt64Array::from_iter_values(0..n as u64)),
        ];
        let rows = RecordBatch::try_new(schema(), columns).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Store::in_memory();
            let files = write(&store, &rows, batch, 1).await;
            let reader = BatchViewReader::open(&store, schema(), &files).await.unwrap();
            for (row, (name, _)) in keys.iter().enumerate() {
                let found = reader.rows_with_key_prefix(&prefix(&rows, row, 2)).await.unwrap();
                assert_eq!(joined(&found), rows.slice(row, 1));
                let found = reader.rows_with_key_prefix(&prefix(&rows, row, 1)).await.unwrap();
                let count = keys.iter().filter(|(other, _)| other == name).count();
                assert_eq!(joined(&found).num_rows(), count);
            }
        });
    }
}

/// The bound is loose, as this is a debug build on any machine; `benches` measures.
#[tokio::test]
async fn look_ups_are_quick() {
    let (_folder, store) = local();
    let rows = cells(10_000, 100, 0);
    let reader = BatchViewReader::open(&store, schema(), &write(&store, &rows, 100_000, 1).await).await.unwrap();
    let mut times = vec![];
    for step in 0..1_000 {
        let key = prefix(&rows, step * 7_919 % 1_000_000, 2);
        let began = Instant::now();
        assert_eq!(reader.rows_with_key_prefix(&key).await.unwrap().len(), 1);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    assert!(times[500].as_millis() < 20, "p50 {:?}, p99 {:?}", times[500], times[990]);
}
