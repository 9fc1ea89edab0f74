//! A recomputation equals a naive fold, whatever the threads, the memory and the units.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use operators::cells::CellTable;
use operators::states;
use rstest::rstest;
use schemas::LatePolicy;

use super::*;
use crate::testing::{self, MemoryRecords, PARTITIONS, SECOND_US};

const BY_SHOP: &str = "SELECT shop, count(*) AS n, sum(price) AS total, min(price) AS least, max(price) AS most FROM events GROUP BY shop";
const BY_MINUTE: &str = "SELECT window_start, shop, count(*) AS n, sum(price) AS total, avg(weight) AS w, approx_distinct(id) AS ids \
    FROM TUMBLE(events, at, INTERVAL '1 minute') WHERE price % 3 <> 0 GROUP BY window_start, shop";
const HOPS: &str = "SELECT window_start, shop, sum(price) AS total \
    FROM HOP(events, at, INTERVAL '10 seconds', INTERVAL '1 minute') GROUP BY window_start, shop";
const SESSIONS: &str = "SELECT shop, window_start, count(*) AS n, sum(price) AS total \
    FROM SESSION(events, shop, at, INTERVAL '40 seconds') GROUP BY shop, window_start";
const ONE_SESSION: &str = "SELECT window_start, window_end, count(*) AS n \
    FROM SESSION(events, at, INTERVAL '1 second') GROUP BY window_start, window_end";
const GLOBAL: &str = "SELECT count(*) AS n, sum(price) AS total FROM events";

fn job(
    view: &Arc<View>,
    records: MemoryRecords,
    cut: &Cut,
    threads: usize,
    memory_bytes: usize,
    folder: &std::path::Path,
) -> Job {
    Job {
        view: Arc::clone(view),
        records: Arc::new(records),
        from: Cut::default(),
        base_cut: Cut(vec![100, 0, 37]),
        cut: cut.clone(),
        threads,
        memory_bytes,
        spill: folder.join("spill"),
        progress: Arc::default(),
        stop: CancellationToken::new(),
    }
}

/// Scan and merge; the states in one batch, the scan's ledgers, the bytes that were spilled.
fn recompute(job: &Job) -> (RecordBatch, Vec<LedgerCounts>, Vec<LedgerCounts>, u64) {
    let Scanned { ledger, since_base, states, .. } = scan(job).unwrap();
    let spilled = states.spilled_bytes();
    let parts = write_sorted(job, states, |_| Vec::new()).unwrap().concat();
    (concat_batches(job.view.state_schema(), &parts).unwrap(), ledger, since_base, spilled)
}

#[rstest]
#[case::text_key(BY_SHOP)]
#[case::window_and_text_key(BY_MINUTE)]
#[case::no_key(GLOBAL)]
#[case::panes(HOPS)]
#[case::sessions(SESSIONS)]
#[case::sessions_without_key(ONE_SESSION)]
fn bytes_do_not_depend_on_threads_memory_or_units(#[case] sql: &str) {
    let view = testing::view(sql, LatePolicy::Include);
    let cut = Cut(vec![5_000, 4_321, 6_007]);
    let folder = tempfile::tempdir().unwrap();
    let mut expected = None;
    for (threads, memory, frame) in [(1, 1 << 30, 10_000), (4, 1 << 30, 700), (1, 400_000, 900), (3, 60_000, 333)] {
        let records = MemoryRecords::new(testing::frames(&cut, 1_500, frame));
        let job = job(&view, records, &cut, threads, memory, folder.path());
        let (states, ledger, since_base, spilled) = recompute(&job);
        assert_eq!(states, states::sort(&view, &states).unwrap(), "in one order over all ranges");
        assert_eq!(spilled > 0, memory < 1_000_000 && !view.is_global(), "spills under pressure alone: {spilled}");
        assert_eq!(job.progress.rows(), cut.total());
        let expected = expected.get_or_insert((states.clone(), ledger.clone(), since_base.clone()));
        assert_eq!(
            (&states, &ledger, &since_base),
            (&expected.0, &expected.1, &expected.2),
            "{threads} threads, {memory} bytes"
        );
        assert!(!job.spill.exists(), "spilled states are removed");
    }
}

#[test]
fn equals_a_naive_fold() {
    let view = testing::view(BY_SHOP, LatePolicy::Include);
    let cut = Cut(vec![2_000, 1_500, 1_999]);
    let folder = tempfile::tempdir().unwrap();
    let records = MemoryRecords::new(testing::frames(&Cut(vec![2_400, 1_500, 2_100]), 300, 512));
    let (states, ledger, since_base, _) = recompute(&job(&view, records, &cut, 2, 90_000, folder.path()));

    let mut naive: BTreeMap<Option<String>, (i64, i64, i64, i64)> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for event in testing::events(partition, 0..cut.offset(partition), 300) {
            let cell = naive.entry(event.shop).or_insert((0, 0, i64::MAX, i64::MIN));
            *cell = (cell.0 + 1, cell.1 + event.price, cell.2.min(event.price), cell.3.max(event.price));
        }
    }
    let mut table = CellTable::new(&view).unwrap();
    table.merge(&states).unwrap();
    let answer = table.answer().unwrap();
    let (keys, first) = (answer.column(0).as_string_view(), answer.num_columns() - 4);
    let number = |column: usize, row: usize| {
        let column = arrow::compute::cast(answer.column(first + column), &arrow::datatypes::DataType::Int64).unwrap();
        column.as_primitive::<Int64Type>().value(row)
    };
    let found: BTreeMap<Option<String>, (i64, i64, i64, i64)> = (0..answer.num_rows())
        .map(|row| {
            let key = keys.is_valid(row).then(|| keys.value(row).to_owned());
            (key, (number(0, row), number(1, row), number(2, row), number(3, row)))
        })
        .collect();
    assert_eq!(found, naive);
    assert_eq!(LedgerCounts::sum(&ledger).counted, cut.total(), "I6");
    assert_eq!(LedgerCounts::sum(&ledger).balance(), 0, "I11");
    let since: Vec<u64> = since_base.iter().map(|part| part.records).collect();
    assert_eq!(since, [1_900, 1_500, 1_962]);
}

#[test]
fn late_records_are_left_out_and_named() {
    let sql = "SELECT window_start, count(*) AS n FROM TUMBLE(events, at, INTERVAL '20 seconds') GROUP BY window_start";
    let view = testing::view(sql, LatePolicy::Drop);
    let cut = Cut(vec![900, 800, 700]);
    let folder = tempfile::tempdir().unwrap();
    let job = job(&view, MemoryRecords::new(testing::frames(&cut, 50, 128)), &cut, 3, 1 << 30, folder.path());
    let scanned = scan(&job).unwrap();
    let mut expected = vec![];
    for partition in 0..PARTITIONS {
        let mut max: Option<i64> = None;
        for (offset, event) in (0..).zip(testing::events(partition, 0..cut.offset(partition), 50)) {
            let window_end = event.at_us.div_euclid(20 * SECOND_US) * 20 * SECOND_US + 20 * SECOND_US;
            if max.is_some_and(|max| max - testing::stream().watermark_delay_us >= window_end) {
                expected.push((partition, offset));
            }
            max = max.max(Some(event.at_us));
        }
    }
    assert!(!expected.is_empty());
    assert_eq!(scanned.late, expected);
    let ledger = LedgerCounts::sum(&scanned.ledger);
    assert_eq!((ledger.late, ledger.balance()), (expected.len() as u64, 0));

    let file = crate::late::encode(job.records.as_ref(), &testing::stream(), &scanned.late).unwrap();
    let file = bytes_reader(file);
    let ids: Vec<i64> = file
        .iter()
        .flat_map(|rows| rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect();
    let expected: Vec<i64> =
        expected.iter().map(|(p, o): &(u32, u64)| i64::from(*p) * 1_000_000_000 + *o as i64).collect();
    assert_eq!(ids, expected, "every late event is listed by its key");
}

fn bytes_reader(file: Vec<u8>) -> Vec<RecordBatch> {
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file).unwrap();
    let file = std::fs::File::open(path.path()).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

#[rstest]
#[case::gap(vec![0, 2], "offset 700 is due")]
#[case::twice(vec![0, 1, 1, 2], "is due")]
#[case::short(vec![0, 1], "the run needs those below")]
fn records_that_are_not_there_once_are_refused(#[case] kept: Vec<usize>, #[case] says: &str) {
    let view = testing::view(GLOBAL, LatePolicy::Include);
    let cut = Cut(vec![2_000]);
    let all = testing::frames(&cut, 10, 700);
    let records = MemoryRecords::new(kept.into_iter().map(|index| all[index].clone()).collect());
    let folder = tempfile::tempdir().unwrap();
    let problem = scan(&job(&view, records, &cut, 2, 1 << 30, folder.path())).unwrap_err();
    assert!(problem.detail.contains(says), "{}", problem.detail);
}

#[test]
fn cancelled_job_ends_at_once() {
    let view = testing::view(GLOBAL, LatePolicy::Include);
    let cut = Cut(vec![2_000]);
    let folder = tempfile::tempdir().unwrap();
    let job = job(&view, MemoryRecords::new(testing::frames(&cut, 10, 700)), &cut, 2, 1 << 30, folder.path());
    job.stop.cancel();
    assert_eq!(scan(&job).unwrap_err().code, Code::Cancelled);
}

/// Records of which one file cannot be read.
struct Broken(MemoryRecords);

impl Records for Broken {
    fn units(&self) -> &[Unit] {
        self.0.units()
    }

    fn read(&self, unit: &Unit, columns: &[usize], each: Each<'_>) -> Result<(), Problem> {
        if unit.file == 11 {
            return Err(Problem::new(Code::StorageUnavailable, "file 11 is gone"));
        }
        self.0.read(unit, columns, each)
    }
}

#[test]
fn first_failure_is_what_is_reported() {
    let view = testing::view(GLOBAL, LatePolicy::Include);
    let cut = Cut(vec![2_000]);
    let folder = tempfile::tempdir().unwrap();
    let broken = Broken(MemoryRecords::new(testing::frames(&cut, 10, 50)));
    let empty = job(&view, MemoryRecords::new(vec![]), &cut, 4, 1 << 30, folder.path());
    let problem = scan(&Job { records: Arc::new(broken), ..empty }).unwrap_err();
    assert_eq!((problem.code, problem.detail.as_str()), (Code::StorageUnavailable, "file 11 is gone"));
}
