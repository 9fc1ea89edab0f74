//! The batch fold of a view with every aggregate, over every kind of window: whatever the number of threads and
//! the rows that are read at once, the states are the same bytes as those of one fold.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use batch::recompute::{Each, Job, Progress, Records, Unit, scan, write_sorted};
use operators::{View, ViewSource};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use schemas::problem::SqlPosition;
use schemas::{Cut, LatePolicy, Problem};
use tokio_util::sync::CancellationToken;

use super::event::{Event, Flavor, Placed, place};
use super::fold::{Layout, check_bytes, fold_at_once, log_rows, stream};

const PARTITIONS: u32 = 3;
const EVENTS: usize = 240;
/// Records of a unit: enough units that each of four threads has several.
const UNIT_RECORDS: usize = 17;

/// Every aggregate in every way that a view keeps it.
const CALLS: [&str; 58] = [
    "count(*)",
    "count(k)",
    "count(DISTINCT x)",
    "count(DISTINCT k) FILTER (WHERE c > 0)",
    "sum(n)",
    "sum(d)",
    "sum(x)",
    "sum(DISTINCT c)",
    "avg(m)",
    "avg(d)",
    "avg(x)",
    "avg(DISTINCT y)",
    "min(k)",
    "max(x)",
    "min(at)",
    "max(DISTINCT d)",
    "bool_and(b)",
    "bool_or(b)",
    "bit_and(n)",
    "bit_or(m)",
    "bit_xor(m)",
    "bit_xor(DISTINCT m)",
    "approx_distinct(x)",
    "approx_distinct(k)",
    "approx_percentile_cont(x, 0.9)",
    "approx_median(y)",
    "median_exact(y)",
    "median_exact(DISTINCT c)",
    "percentile_cont(0.9) WITHIN GROUP (ORDER BY x)",
    "approx_top_k(k, 2)",
    "approx_top_k(x, 2)",
    "var_pop(y)",
    "var_samp(x)",
    "stddev_pop(y)",
    "stddev_samp(c)",
    "stddev_pop(DISTINCT y)",
    "covar_pop(y, c)",
    "covar_samp(y, x)",
    "corr(y, m)",
    "regr_slope(y, c)",
    "regr_intercept(y, c)",
    "regr_r2(y, c)",
    "regr_count(y, x)",
    "regr_avgx(y, c)",
    "regr_avgy(y, c)",
    "regr_sxx(y, c)",
    "regr_syy(y, c)",
    "regr_sxy(y, c)",
    "first_value(x)",
    "first_value(k ORDER BY x DESC, c)",
    "last_value(k ORDER BY at) FILTER (WHERE b)",
    "last_value(d ORDER BY k NULLS FIRST) IGNORE NULLS",
    "any_value(t)",
    "arg_min(k, x)",
    "arg_max(x, k)",
    "array_agg(x ORDER BY c DESC)",
    "array_agg(DISTINCT k)",
    "string_agg(k, '-' ORDER BY y)",
];

/// Every kind of window, and the ways to group without one: what is read, and what it is grouped by.
const GROUPS: [(&str, &str); 9] = [
    ("s", ""),
    ("s", "k, x"),
    ("s", "CUBE (k, b)"),
    ("s", "date_trunc('week', at, 'Europe/Berlin'), c"),
    ("TUMBLE(s, at, INTERVAL '1 hour', INTERVAL '17 minutes')", "window_start, k"),
    ("TUMBLE(s, at, INTERVAL '1 month', 'Europe/Berlin')", "window_end"),
    ("HOP(s, at, INTERVAL '20 minutes', INTERVAL '50 minutes')", "k, window_end"),
    ("CUMULATE(s, at, INTERVAL '1 hour', INTERVAL '6 hours')", "window_end, window_start"),
    ("SESSION(s, k, at, INTERVAL '90 minutes')", "k, window_start"),
];

fn view((over, by): (&str, &str), late: LatePolicy) -> Arc<View> {
    let calls: Vec<String> = CALLS.iter().enumerate().map(|(index, call)| format!("{call} AS o{index}")).collect();
    let group_by = if by.is_empty() { String::new() } else { format!(" GROUP BY {by}") };
    let sql = format!("SELECT {} FROM {over}{group_by}", calls.join(", "));
    let position = SqlPosition { line: 1, column: 1 };
    View::compile(&ViewSource { sql: &sql, position, stream: &stream(), tables: &[], late })
        .unwrap_or_else(|problem| panic!("{}", problem.text()))
}

/// Records in memory, in units, read so many rows at once.
struct InMemory {
    units: Vec<Unit>,
    rows: Vec<RecordBatch>,
    rows_at_once: usize,
}

impl InMemory {
    fn of(records: &[Placed], rows_at_once: usize) -> Self {
        let (mut units, mut rows) = (vec![], vec![]);
        for partition in 0..PARTITIONS {
            let records: Vec<&Placed> = records.iter().filter(|record| record.partition == partition).collect();
            for piece in records.chunks(UNIT_RECORDS) {
                let offsets: Range<u64> = piece[0].offset..piece[0].offset + piece.len() as u64;
                units.push(Unit { file: rows.len(), row_groups: 0..1, partition, offsets });
                rows.push(log_rows(piece, Layout::Plain));
            }
        }
        Self { units, rows, rows_at_once }
    }
}

impl Records for InMemory {
    fn units(&self) -> &[Unit] {
        &self.units
    }

    fn read(&self, unit: &Unit, columns: &[usize], each: Each<'_>) -> Result<(), Problem> {
        let rows = self.rows[unit.file].project(columns).unwrap();
        for from in (0..rows.num_rows()).step_by(self.rows_at_once) {
            each(rows.slice(from, self.rows_at_once.min(rows.num_rows() - from)))?;
        }
        Ok(())
    }
}

fn recomputed(view: &Arc<View>, records: &[Placed], (threads, rows_at_once): (usize, usize)) -> RecordBatch {
    let folder = tempfile::tempdir().unwrap();
    let end = |partition| records.iter().filter(|record| record.partition == partition).count() as u64;
    let job = Job {
        view: Arc::clone(view),
        records: Arc::new(InMemory::of(records, rows_at_once)),
        from: Cut::default(),
        base_cut: Cut::default(),
        cut: Cut((0..PARTITIONS).map(end).collect()),
        threads,
        memory_bytes: 1 << 30,
        spill: folder.path().join("spill"),
        progress: Arc::<Progress>::default(),
        stop: CancellationToken::new(),
    };
    let states = scan(&job).unwrap().states;
    let parts = write_sorted(&job, states, |_| Vec::new()).unwrap().concat();
    concat_batches(view.state_schema(), &parts).unwrap()
}

fn records() -> Vec<Placed> {
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let mut flavor = Flavor::random(&mut rng);
    flavor.far_times = false;
    let events: Vec<Event> = (0..EVENTS).map(|number| Event::random(&mut rng, number, flavor)).collect();
    place(&events, PARTITIONS, |event| event.id().len() as u32 * 7 % PARTITIONS)
}

#[rstest]
fn threads_and_batch_sizes_make_no_difference(
    #[values(0, 1, 2, 3, 4, 5, 6, 7, 8)] group: usize,
    #[values(LatePolicy::Include, LatePolicy::Drop)] late: LatePolicy,
) {
    let (view, records) = (view(GROUPS[group], late), records());
    let (whole, _) = fold_at_once(&view, &records, PARTITIONS).unwrap();
    assert!(whole.num_rows() > 0);
    for threads in [1, 2, 4] {
        for rows_at_once in [1, 7, 8_192] {
            let states = recomputed(&view, &records, (threads, rows_at_once));
            let what = format!("{threads} threads, {rows_at_once} rows at once, by {:?}", GROUPS[group]);
            check_bytes(&states, &whole, &what).unwrap_or_else(|difference| panic!("{difference}"));
        }
    }
}

/// A fold that is called in a task ends, however often the task has called it without waiting for anything: more often
/// than tokio's cooperative budget lets streams go on (128 units). Whoever looks an event up folds it once a view.
#[test]
fn a_fold_in_a_task_ends() {
    const PATIENCE: Duration = Duration::from_mins(1);
    let (view, records) = (view(GROUPS[1], LatePolicy::Include), records());
    let (whole, _) = fold_at_once(&view, &records, PARTITIONS).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folding = runtime.spawn(async move {
        for _ in 0..100 {
            let (again, _) = fold_at_once(&view, &records, PARTITIONS).unwrap();
            check_bytes(&again, &whole, "in a task").unwrap();
        }
    });
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, folding).await });
    // the worker that folds for ever would be waited for
    runtime.shutdown_background();
    ended.expect("the fold waits for the task that it runs in").unwrap();
}

/// The list above is whole.
#[test]
fn every_aggregate_is_in_the_list() {
    let names: Vec<&str> = CALLS.iter().map(|call| call.split('(').next().unwrap()).collect();
    for aggregate in operators::aggregates::all() {
        let known = |name: &str| names.contains(&name);
        assert!(
            known(aggregate.name()) || aggregate.aliases().iter().any(|alias| known(alias)),
            "{}",
            aggregate.name()
        );
    }
}
