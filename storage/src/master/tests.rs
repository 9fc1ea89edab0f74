//! The master: landing, exactly once, reading back.

#![allow(clippy::print_stdout, reason = "timings")]

mod flaky;

use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use schemas::column::{OFFSET, PARTITION};
use schemas::{ColumnDef, LatePolicy, OnBadData, SqlType};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::clock::SystemClock;
use crate::owner::testing::{bucket, next_owner};

const T0_US: i64 = 1_700_000_000_000_000;
const HOUR_US: i64 = 3_600_000_000;

fn column(name: &str, sql_type: SqlType) -> ColumnDef {
    ColumnDef { name: name.into(), sql_type, nullable: name != "id" && name != "event_time" }
}

fn stream(columns: Vec<ColumnDef>, partitions: u32) -> StreamDef {
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "s".into(),
        columns,
        primary_key: vec!["id".into()],
        time_column: Some("event_time".into()),
        watermark_delay_us: 0,
        partitions,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: 0,
    }
}

fn plain(partitions: u32) -> StreamDef {
    stream(vec![column("id", SqlType::Text), column("event_time", SqlType::TimestampTz)], partitions)
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// `rows` records of a plain stream; the id says where each one is.
fn frame(stream: &StreamDef, partition: u32, base: u64, rows: u64) -> Frame {
    let offsets = || base..base + rows;
    let ids = offsets().map(|o| format!("the identity of record {partition}/{o}"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(ids)),
        times(offsets().map(|o| T0_US + o as i64 * HOUR_US + 1)),
        times(offsets().map(|o| T0_US + o as i64)),
        times(offsets().map(|o| T0_US + o as i64 * HOUR_US)),
    ];
    Frame { partition, base, rows: RecordBatch::try_new(stream.log_schema(), columns).unwrap() }
}

fn place() -> (TempDir, Url) {
    let folder = tempfile::tempdir().unwrap();
    let url = Url::from_directory_path(folder.path().join("master/s")).unwrap();
    (folder, url)
}

async fn open(root: &Url, stream: &StreamDef) -> Arc<Master> {
    Master::open(root, stream, Arc::new(SystemClock)).await.unwrap()
}

async fn read(master: &Arc<Master>, columns: Vec<usize>) -> Vec<RecordBatch> {
    let master = master.clone();
    let read = move || {
        let mut all = Vec::new();
        for file in master.files().iter() {
            let reader = master.open_file(file).unwrap();
            all.extend(reader.read(&columns, 0..reader.row_groups(), 1_000).unwrap().map(Result::unwrap));
        }
        all
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Every record's id, sorted.
async fn ids(master: &Arc<Master>) -> Vec<String> {
    let rows = read(master, vec![0]).await;
    let text = |rows: &RecordBatch| -> Vec<String> {
        let ids = rows.column(0).as_any().downcast_ref::<StringViewArray>().unwrap().clone();
        ids.iter().map(|id| id.unwrap().to_string()).collect()
    };
    let mut ids: Vec<String> = rows.iter().flat_map(text).collect();
    ids.sort();
    ids
}

fn ids_below(cut: &[u64]) -> Vec<String> {
    let of = |(p, &end): (usize, &u64)| (0..end).map(move |o| format!("the identity of record {p}/{o}"));
    let mut ids: Vec<String> = cut.iter().enumerate().flat_map(of).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn landed_records_and_ranges_survive_reopening() {
    let (_folder, root) = place();
    let stream = plain(3);
    let master = open(&root, &stream).await;
    assert_eq!(master.landed(), Cut(vec![0, 0, 0]));
    let frames = vec![frame(&stream, 0, 0, 5), frame(&stream, 2, 0, 7), frame(&stream, 0, 5, 3)];
    let landed = master.land(frames).await.unwrap();
    assert_eq!((landed.version, &landed.to, landed.rows()), (1, &Cut(vec![8, 0, 7]), 15));
    master.land(vec![frame(&stream, 1, 0, 2), frame(&stream, 2, 7, 1)]).await.unwrap();
    let again = open(&root, &stream).await;
    for master in [&master, &again] {
        assert_eq!(master.landed(), Cut(vec![8, 2, 8]));
        let ranges: Vec<_> = master.files().iter().map(|f| (f.partition, f.from, f.to, f.rows)).collect();
        assert_eq!(ranges, [(0, 0, 8, 8), (1, 0, 2, 2), (2, 0, 7, 7), (2, 7, 8, 1)]);
        assert_eq!(ids(master).await, ids_below(&[8, 2, 8]));
    }
    assert_eq!(master.files(), again.files());
    let file = &again.files()[2];
    let times = (T0_US, T0_US + 6 * HOUR_US + 1_000);
    assert_eq!(file.event_time_us, Some(times), "in whole milliseconds, outwards");
    assert_eq!(file.bytes, std::fs::metadata(root.join(&file.path).unwrap().path()).unwrap().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn landing_that_does_not_start_at_the_recorded_end_is_refused() {
    let (_folder, root) = place();
    let stream = plain(2);
    let master = open(&root, &stream).await;
    master.land(vec![frame(&stream, 0, 0, 10)]).await.unwrap();
    let again = master.land(vec![frame(&stream, 1, 0, 1), frame(&stream, 0, 9, 5)]).await;
    assert!(matches!(again, Err(StorageError::Conflict { .. })), "{again:?}");
    let gap = master.land(vec![frame(&stream, 1, 0, 1), frame(&stream, 0, 11, 5)]).await;
    assert!(matches!(gap, Err(StorageError::Damaged { .. })), "{gap:?}");
    let torn = master.land(vec![frame(&stream, 0, 10, 5), frame(&stream, 0, 16, 5)]).await;
    assert!(matches!(torn, Err(StorageError::Damaged { .. })), "{torn:?}");
    let again = open(&root, &stream).await;
    assert_eq!((again.landed(), again.version()), (Cut(vec![10, 0]), 1));
    assert_eq!(ids(&again).await, ids_below(&[10, 0]));
    let empty = master.land(vec![frame(&stream, 0, 3, 0)]).await.unwrap();
    assert_eq!((empty.version, empty.files.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_incarnation_starts_at_zero() {
    let (_folder, root) = place();
    let stream = plain(1);
    open(&root, &stream).await.land(vec![frame(&stream, 0, 0, 10)]).await.unwrap();
    let anew = StreamDef { incarnation: Uuid::from_u128(3), ..stream };
    assert_eq!(open(&root, &anew).await.landed(), Cut(vec![0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_columns_are_refused() {
    let (_folder, root) = place();
    open(&root, &plain(1)).await;
    let mut other = plain(1);
    other.columns.push(column("more", SqlType::Int));
    let refused = Master::open(&root, &other, Arc::new(SystemClock)).await;
    assert!(matches!(refused, Err(StorageError::Damaged { .. })), "{refused:?}");
}

/// Lands `[landed, landed + step)` of every partition again and again, whoever else does.
async fn race(master: Arc<Master>, stream: StreamDef, end: u64, step: u64) -> (u64, u64) {
    let (mut won, mut lost) = (0, 0);
    loop {
        let cut = master.landed();
        let frames: Vec<Frame> = (0..stream.partitions)
            .filter(|&p| cut.offset(p) < end)
            .map(|p| frame(&stream, p, cut.offset(p), step.min(end - cut.offset(p))))
            .collect();
        if frames.is_empty() {
            return (won, lost);
        }
        match master.land(frames).await {
            Ok(_) => won += 1,
            Err(StorageError::Conflict { .. }) => lost += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_masters_one_wins_each_range() {
    let (_folder, root) = place();
    let stream = plain(2);
    let (a, b) = tokio::join!(open(&root, &stream), open(&root, &stream));
    let racers = [(a, 7), (b, 11)].map(|(m, step)| tokio::spawn(race(m, stream.clone(), 500, step)));
    let mut sum = (0, 0);
    for racer in racers {
        let (won, lost) = racer.await.unwrap();
        sum = (sum.0 + won, sum.1 + lost);
    }
    println!("won {} lost {}", sum.0, sum.1);
    let master = open(&root, &stream).await;
    assert_eq!((master.landed(), master.version()), (Cut(vec![500, 500]), sum.0));
    assert_eq!(ids(&master).await, ids_below(&[500, 500]));
    let files = std::fs::read_dir(root.path()).unwrap().count() - 1;
    assert_eq!(files, master.files().len(), "lost landings take their files back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn masters_of_different_partitions_do_not_hinder_each_other() {
    let (_folder, root) = place();
    let stream = plain(2);
    let (a, b) = tokio::join!(open(&root, &stream), open(&root, &stream));
    let land = |master: Arc<Master>, partition: u32| {
        let stream = stream.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                master.land(vec![frame(&stream, partition, n * 3, 3)]).await.unwrap();
            }
        })
    };
    let (a, b) = tokio::join!(land(a, 0), land(b, 1));
    a.and(b).unwrap();
    let master = open(&root, &stream).await;
    assert_eq!((master.landed(), master.version()), (Cut(vec![60, 60]), 40));
    assert_eq!(ids(&master).await, ids_below(&[60, 60]));
}

/// On one thread, where the kernel's own executors would wait for themselves.
#[tokio::test]
async fn checkpoint_keeps_everything() {
    let (_folder, root) = place();
    let stream = plain(2);
    let master = open(&root, &stream).await;
    let mut took = Vec::new();
    for n in 0..205u64 {
        let started = Instant::now();
        master.land(vec![frame(&stream, (n % 2) as u32, n / 2 * 4, 4)]).await.unwrap();
        took.push(started.elapsed());
    }
    took.sort();
    println!("landing p50 {:?} p99 {:?} max {:?}", took[102], took[202], took[204]);
    let log = std::path::PathBuf::from(root.path()).join("_delta_log");
    assert!(log.join("00000000000000000100.checkpoint.parquet").exists());
    assert!(log.join("00000000000000000200.checkpoint.parquet").exists());
    // A reader needs nothing from before the checkpoint.
    for version in 0..200 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let started = Instant::now();
    let again = open(&root, &stream).await;
    println!("reopening {:?}", started.elapsed());
    assert_eq!((again.landed(), again.version()), (Cut(vec![412, 408]), 205));
    assert_eq!(again.files(), master.files());
    assert_eq!(ids(&again).await, ids_below(&[412, 408]));
    again.land(vec![frame(&stream, 0, 412, 1)]).await.unwrap();
    master.refresh().await.unwrap();
    assert_eq!(master.landed(), Cut(vec![413, 408]));
}

/// Every SQL type, with nulls and extremes.
fn typed() -> (StreamDef, Frame) {
    let numeric = |precision, scale| SqlType::Numeric { precision, scale };
    let names = [
        ("id", SqlType::Text),
        ("event_time", SqlType::TimestampTz),
        ("a_bool", SqlType::Boolean),
        ("a_small", SqlType::SmallInt),
        ("an_int", SqlType::Int),
        ("a_big", SqlType::BigInt),
        ("a_real", SqlType::Real),
        ("a_double", SqlType::Double),
        ("a_short_numeric", numeric(9, 2)),
        ("a_long_numeric", numeric(18, 0)),
        ("a_huge_numeric", numeric(38, 10)),
        ("a_date", SqlType::Date),
        ("a_time", SqlType::TimestampTz),
        ("a.json", SqlType::Json),
    ];
    let stream = stream(names.iter().map(|(n, t)| column(n, *t)).collect(), 1);
    let decimals = |values: [Option<i128>; 3], precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
    };
    let some_times = |values: [Option<i64>; 3]| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from(vec!["", "short", "longer than twelve bytes: ünïcödé"])),
        some_times([Some(-1), Some(T0_US), Some(T0_US + 1)]),
        Arc::new(BooleanArray::from(vec![None, Some(true), Some(false)])),
        Arc::new(Int16Array::from(vec![None, Some(i16::MIN), Some(i16::MAX)])),
        Arc::new(Int32Array::from(vec![None, Some(i32::MIN), Some(i32::MAX)])),
        Arc::new(Int64Array::from(vec![None, Some(i64::MIN), Some(i64::MAX)])),
        Arc::new(Float32Array::from(vec![None, Some(-0.0), Some(f32::MAX)])),
        Arc::new(Float64Array::from(vec![None, Some(f64::NEG_INFINITY), Some(f64::MIN_POSITIVE)])),
        decimals([None, Some(-999_999_999), Some(1)], 9, 2),
        decimals([None, Some(-999_999_999_999_999_999), Some(1)], 18, 0),
        decimals([None, Some(-99_999_999_999_999_999_999_999_999_999_999_999_999), Some(1)], 38, 10),
        Arc::new(Date32Array::from(vec![None, Some(-1), Some(20_000)])),
        some_times([None, Some(i64::MIN), Some(i64::MAX)]),
        Arc::new(StringViewArray::from(vec![None, Some("{}"), Some(r#"{"a":[1,2,3],"b":"ü"}"#)])),
        times([T0_US, T0_US, T0_US + 1].into_iter()),
        some_times([None, Some(-1), Some(T0_US)]),
    ];
    let rows = RecordBatch::try_new(stream.log_schema(), columns).unwrap();
    (stream, Frame { partition: 0, base: 0, rows })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_round_trips() {
    let (_folder, root) = place();
    let (stream, frame) = typed();
    let master = open(&root, &stream).await;
    master.land(vec![frame.clone()]).await.unwrap();
    let again = open(&root, &stream).await;
    let schema = stream.record_schema();
    let all = read(&again, (0..schema.fields().len()).collect()).await;
    assert_eq!(all[0].schema(), schema);
    for (index, column) in frame.rows.columns().iter().enumerate() {
        assert_eq!(all[0].column(index), column, "{}", schema.field(index).name());
    }
    assert_eq!(all[0].column_by_name(OFFSET).unwrap().as_ref(), &Int64Array::from(vec![0, 1, 2]));
    assert_eq!(all[0].column_by_name(PARTITION).unwrap().as_ref(), &Int32Array::from(vec![0, 0, 0]));
    assert_eq!(again.files()[0].event_time_us, Some((-1_000, T0_US + 1_000)));
}

/// Other programs take the table's word for which columns have bounds.
#[tokio::test(flavor = "multi_thread")]
async fn table_names_the_columns_with_statistics() {
    let (_folder, root) = place();
    let (stream, frame) = typed();
    open(&root, &stream).await.land(vec![frame]).await.unwrap();
    let log = |version| std::fs::read_to_string(root.join(&format!("_delta_log/{version:020}.json")).unwrap().path());
    let created = log(0).unwrap();
    assert!(created.contains(r#""delta.dataSkippingStatsColumns":"_partition,_offset,_append_time,event_time""#));
    assert!(created.contains(r#""delta.appendOnly":"true""#));
    let names = r#"\"minValues\":{\"_partition\":0,\"_offset\":0,\"_append_time\":"#;
    assert!(log(1).unwrap().contains(names), "{}", log(1).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_as_asked_for() {
    let (_folder, root) = place();
    let (stream, frame) = typed();
    let master = open(&root, &stream).await;
    master.land(vec![frame.clone()]).await.unwrap();
    let rows = &read(&master, vec![13, 0, 5, 0]).await[0];
    for (place, column) in [13, 0, 5, 0].into_iter().enumerate() {
        assert_eq!(rows.column(place), frame.rows.column(column));
    }
    assert_eq!(read(&master, vec![]).await[0].num_rows(), 3);
    let reader = master.open_file(&master.files()[0]).unwrap();
    assert!(reader.read(&[18], 0..1, 10).is_err());
    assert!(reader.read(&[0], 0..2, 10).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_are_read_apart_and_timings() {
    let (_folder, root) = place();
    let stream = plain(2);
    let frames: Vec<Frame> = (0..80).map(|n| frame(&stream, n % 2, u64::from(n / 2) * 15_000, 15_000)).collect();
    let memory: usize = frames.iter().map(|f| f.rows.get_array_memory_size()).sum();
    let master = open(&root, &stream).await;
    let started = Instant::now();
    let landed = master.land(frames).await.unwrap();
    println!("1.2 M rows, {memory} bytes landed as {} in {:?}", landed.bytes(), started.elapsed());
    let started = Instant::now();
    let file = master.files()[0].clone();
    let reader = master.open_file(&file).unwrap();
    assert_eq!((reader.row_groups(), reader.rows_of(0), reader.rows_of(1), reader.rows_of(2)), (2, 524_288, 75_712, 0));
    let second: Vec<_> = reader.read(&[3 + 2], 1..2, 50_000).unwrap().map(Result::unwrap).collect();
    assert_eq!(second.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [50_000, 25_712]);
    let offsets = concat_batches(&second[0].schema(), &second).unwrap();
    assert_eq!(offsets.column(0).as_ref(), &Int64Array::from_iter_values(524_288..600_000));
    assert_eq!(ids(&master).await.len(), 1_200_000);
    println!("read in {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn table_in_an_object_store_reads_the_same() {
    let store = Store::in_memory();
    let (stream, frame) = typed();
    let master = Master::open_in(&store, &stream, Arc::new(SystemClock)).await.unwrap();
    master.land(vec![frame.clone()]).await.unwrap();
    let again = Master::open_in(&store, &stream, Arc::new(SystemClock)).await.unwrap();
    assert_eq!(again.landed(), Cut(vec![3]));
    let rows = &read(&again, vec![0, 10]).await[0];
    assert_eq!((rows.column(0), rows.column(1)), (frame.rows.column(0), frame.rows.column(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_old_files_of_no_commit_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    let stream = plain(1);
    let clock = crate::clock::ManualClock::at(SystemClock.now_us());
    let master = Master::open_in(&store, &stream, Arc::new(clock.clone())).await.unwrap();
    master.land(vec![frame(&stream, 0, 0, 10)]).await.unwrap();
    let orphan = store.local_path(&paths::master(stream.id)).unwrap().join("part-00000-x.parquet");
    std::fs::write(&orphan, b"half a file").unwrap();
    assert_eq!(open(&master.table.place.root, &stream).await.landed(), Cut(vec![10]), "an orphan does no harm");
    assert_eq!(master.remove_orphans().await.unwrap(), 0, "it could be somebody's who is about to commit");
    clock.advance_us(ORPHAN_AGE_US + HOUR_US);
    assert_eq!(master.remove_orphans().await.unwrap(), 1);
    assert!(!orphan.exists());
    assert_eq!(ids(&master).await, ids_below(&[10]));
}

/// I9: what an overtaken owner was about to land is not in the table, and the new one's is, once.
#[tokio::test(flavor = "multi_thread")]
async fn overtaken_owner_lands_nothing() {
    let (bucket, stream) = (bucket(), plain(2));
    let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
    let old = Master::open_in(&next_owner(&bucket).await, &stream, clock()).await.unwrap();
    old.land(vec![frame(&stream, 0, 0, 5)]).await.unwrap();
    let new = Master::open_in(&next_owner(&bucket).await, &stream, clock()).await.unwrap();
    assert_eq!(new.landed(), Cut(vec![5, 0]));
    for _ in 0..2 {
        let refused = old.land(vec![frame(&stream, 0, 5, 3), frame(&stream, 1, 0, 2)]).await;
        assert!(matches!(refused, Err(StorageError::Fenced { owner: 2, mine: 1, .. })), "{refused:?}");
    }
    new.land(vec![frame(&stream, 0, 5, 4)]).await.unwrap();
    let reader = Master::open_in(&bucket, &stream, clock()).await.unwrap();
    assert_eq!(reader.landed(), Cut(vec![9, 0]));
    assert_eq!(ids(&reader).await, ids_below(&[9, 0]));
    let again = Master::open_in(&next_owner(&bucket).await, &stream, clock()).await.unwrap();
    again.land(vec![frame(&stream, 1, 0, 1)]).await.unwrap();
    assert_eq!(again.landed(), Cut(vec![9, 1]));
}

/// R-012, R-020: a bit that flips in a file of the master on a local disk is damage, whatever it is a bit of, and never
/// another record. An object store has checksums of its own.
#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_bit_of_a_landed_file_is_damage() {
    let (_folder, root) = place();
    let stream = plain(1);
    let master = open(&root, &stream).await;
    let landed = master.land(vec![frame(&stream, 0, 0, 3_000)]).await.unwrap();
    let file = &landed.files[0];
    assert_eq!(file.checksums.len(), 16 * (file.bytes as usize).div_ceil(1 << 20));
    let path = root.to_file_path().unwrap().join(&file.path);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len() as u64, file.bytes);
    let step = (whole.len() / 400).max(1);
    for at in (0..whole.len()).step_by(step).chain(whole.len().saturating_sub(300)..whole.len()) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, flipped).unwrap();
        // nothing is known of the file yet
        let again = open(&root, &stream).await;
        assert_eq!(*again.files(), landed.files, "the table's log has the checksums");
        let read = tokio::task::spawn_blocking(move || {
            let reader = again.open_file(&again.files()[0])?;
            reader.read(&[0, 1], 0..reader.row_groups(), 1_000)?.collect::<Result<Vec<_>, _>>()
        });
        let refused = read.await.unwrap();
        assert!(matches!(refused, Err(StorageError::Damaged { .. })), "byte {at}: {refused:?}");
    }
    std::fs::write(&path, whole).unwrap();
    assert_eq!(ids(&open(&root, &stream).await).await, ids_below(&[3_000]));
}
