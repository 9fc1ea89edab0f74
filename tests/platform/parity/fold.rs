//! Parity of the core alone: no disk, no HTTP, many views. Whatever way the records are split, folded
//! and merged, the states are the same bytes, and the answer is the reference interpreter's.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use operators::cells::CellTable;
use operators::{Folder, Frontier, RowFinish, StateSource, StaticTable, View, ViewSource, merged, session, states};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use schemas::problem::SqlPosition;
use schemas::{ColumnDef, ItemType, LatePolicy, LedgerCounts, OnBadData, SqlType, StreamDef};
use uuid::Uuid;

use super::arrays::{array, ipc, over_garbage, rows};
use super::case::{check_and_shrink, seeds};
use super::compare::compare;
use super::event::{COLUMNS, D_SCALE, Event, Flavor, Placed, pick, place};
use super::generate::Generator;
use super::late::{Reached, check_late_counts, late_rows, reached, without_numbers};
use super::value::{Kind, Value};
use super::view::{Answer, DIMENSION, Late, ViewModel, WATERMARK_DELAY_US};
use super::window::Window;

fn column((name, sql, kind): &(&str, &str, Kind)) -> ColumnDef {
    let sql_type = match kind {
        Kind::Bool => SqlType::Boolean,
        Kind::Int if *sql == "INT" => SqlType::Int,
        Kind::Int => SqlType::BigInt,
        Kind::Decimal(_) => SqlType::Numeric { precision: 20, scale: D_SCALE as i8 },
        Kind::Float => SqlType::Double,
        Kind::Text => SqlType::Text,
        Kind::Time => SqlType::TimestampTz,
        Kind::List(Kind::Text) => SqlType::Array(ItemType::Text),
        Kind::List(_) | Kind::Ranks(_) => panic!("{kind:?} in a table"),
    };
    ColumnDef { name: (*name).into(), sql_type, nullable: !sql.ends_with("NOT NULL") }
}

pub(super) fn stream() -> StreamDef {
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "s".into(),
        columns: COLUMNS.iter().map(column).collect(),
        primary_key: vec!["id".into()],
        time_column: Some("at".into()),
        watermark_delay_us: WATERMARK_DELAY_US,
        partitions: 8,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: 0,
    }
}

pub(super) fn table(dimension: &[Vec<Value>]) -> StaticTable {
    let fields: Vec<Field> = DIMENSION.iter().map(|dimension| column(dimension).field()).collect();
    let arrays = fields
        .iter()
        .enumerate()
        .map(|(index, field)| array(field.data_type(), dimension.iter().map(|row| &row[index])));
    let columns = arrays.collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    StaticTable { name: "dim".into(), rows: vec![rows], identity: "dim/1".into(), is_late: false, valid_from: None }
}

fn compile(model: &ViewModel, dimension: &[Vec<Value>], texts: &DataType) -> Result<Arc<View>, String> {
    let late = match model.late {
        Late::Include => LatePolicy::Include,
        Late::Drop => LatePolicy::Drop,
        Late::Side => LatePolicy::Side,
    };
    compile_with(model, dimension, late, texts)
}

/// The same table with its texts in another encoding.
fn encoded(table: StaticTable, texts: &DataType) -> StaticTable {
    let encode = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => arrow::compute::cast(column, texts).unwrap(),
        _ => Arc::clone(column),
    };
    let rows = table.rows.iter().map(|rows| {
        let names = rows.schema_ref().fields().iter().map(|field| field.name().clone());
        RecordBatch::try_from_iter_with_nullable(
            names.zip(rows.columns()).map(|(name, column)| (name, encode(column), true)),
        )
        .unwrap()
    });
    StaticTable { rows: rows.collect(), ..table }
}

fn compile_with(
    model: &ViewModel,
    dimension: &[Vec<Value>],
    late: LatePolicy,
    texts: &DataType,
) -> Result<Arc<View>, String> {
    let table = StaticTable { is_late: model.joins_late(), ..encoded(table(dimension), texts) };
    let (sql, stream, tables) = (model.sql(), stream(), [table]);
    let position = SqlPosition { line: 1, column: 1 };
    let source = ViewSource { sql: &sql, position, stream: &stream, tables: &tables, late };
    View::compile(&source).map_err(|problem| format!("refused: {}", problem.text()))
}

/// How rows lie in memory, which is no part of what they are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Layout {
    /// Each array for itself.
    Plain,
    /// A part of longer arrays, which have other rows before and behind.
    Slice,
    /// Values of others in the places of nulls.
    OverGarbage,
}

/// Records of one partition, one after the other, in the log's schema.
pub(super) fn log_rows(records: &[&Placed], layout: Layout) -> RecordBatch {
    if let (Layout::Slice, [first, .., last] | [first @ last]) = (layout, records) {
        let longer: Vec<&Placed> = [*last].into_iter().chain(records.iter().copied()).chain([*first]).collect();
        return log_rows(&longer, Layout::Plain).slice(1, records.len());
    }
    let of: fn(&DataType, &[&Value]) -> ArrayRef = match layout {
        Layout::OverGarbage => over_garbage,
        Layout::Plain | Layout::Slice => {
            |data_type: &DataType, values: &[&Value]| array(data_type, values.iter().copied())
        }
    };
    let schema = stream().log_schema();
    let append_times: Vec<Value> = records.iter().map(|record| Value::Time(record.append_us)).collect();
    let time = |time_us: Option<i64>| time_us.map_or(Value::Null, Value::Time);
    let largest: Vec<Value> = records.iter().map(|record| time(record.largest_before)).collect();
    let columns = schema.fields().iter().enumerate().map(|(index, field)| {
        let values: Vec<&Value> = match index.checked_sub(COLUMNS.len()) {
            None => records.iter().map(|record| &record.event.0[index]).collect(),
            Some(0) => append_times.iter().collect(),
            Some(_) => largest.iter().collect(),
        };
        of(field.data_type(), &values)
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

/// Folds records in pieces of random size, in a random order of partitions, by several folders that
/// are emptied at random. Returns the parts and the ledger.
fn fold_in_pieces(
    view: &Arc<View>,
    records: &[Placed],
    partitions: u32,
    rng: &mut ChaCha8Rng,
) -> Result<(Vec<RecordBatch>, LedgerCounts), String> {
    let mut folders = vec![];
    for _ in 0..rng.random_range(1..4) {
        folders.push(Folder::new(view).map_err(|problem| problem.text())?);
    }
    let (mut parts, mut counts) = (vec![], LedgerCounts::default());
    let mut order: Vec<u32> = (0..partitions).collect();
    order.shuffle(rng);
    for partition in order {
        let records: Vec<&Placed> = records.iter().filter(|record| record.partition == partition).collect();
        let mut rest = records.as_slice();
        while let Some(first) = rest.first() {
            let (piece, later) = rest.split_at(pick(rng, &[1, 1, 7, 64, 8_192]).min(rest.len()));
            let folder = rng.random_range(0..folders.len());
            let rows = log_rows(piece, pick(rng, &[Layout::Plain, Layout::Slice, Layout::OverGarbage]));
            counts.add(&folders[folder].fold(partition, first.offset, &rows).map_err(|problem| problem.text())?);
            if rng.random_bool(0.3) {
                parts.extend(folders[folder].take().map_err(|problem| problem.text())?);
            }
            rest = later;
        }
    }
    for mut folder in folders {
        parts.extend(folder.take().map_err(|problem| problem.text())?);
    }
    parts.shuffle(rng);
    Ok((parts, counts))
}

/// Merges parts two by two, in a random tree.
fn merge_in_a_tree(view: &View, mut parts: Vec<RecordBatch>, rng: &mut ChaCha8Rng) -> Result<RecordBatch, String> {
    while parts.len() > 1 {
        let (a, b) = (parts.swap_remove(rng.random_range(0..parts.len())), parts.pop().unwrap());
        parts.push(states::merge(view, &[a, b]).map_err(|problem| problem.text())?);
        parts.shuffle(rng);
    }
    states::merge(view, &parts).map_err(|problem| problem.text())
}

/// The states of all records, folded by one folder in one piece per partition.
pub(super) fn fold_at_once(
    view: &Arc<View>,
    records: &[Placed],
    partitions: u32,
) -> Result<(RecordBatch, LedgerCounts), String> {
    let mut folder = Folder::new(view).map_err(|problem| problem.text())?;
    let mut counts = LedgerCounts::default();
    for partition in 0..partitions {
        let records: Vec<&Placed> = records.iter().filter(|record| record.partition == partition).collect();
        let rows = log_rows(&records, Layout::Plain);
        counts.add(&folder.fold(partition, 0, &rows).map_err(|problem| problem.text())?);
    }
    let parts: Vec<RecordBatch> = folder.take().map_err(|problem| problem.text())?.into_iter().collect();
    Ok((states::merge(view, &parts).map_err(|problem| problem.text())?, counts))
}

/// States in memory.
#[derive(Debug)]
struct Parts(Vec<RecordBatch>, Arc<View>);

#[async_trait]
impl StateSource for Parts {
    async fn scan(
        &self,
        _: &dyn Session,
        projection: &[usize],
        _: &[Expr],
    ) -> datafusion::common::Result<Vec<Arc<dyn ExecutionPlan>>> {
        let schema = Arc::clone(self.1.state_schema());
        let one = |part: &RecordBatch| -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
            let rows = [vec![part.clone()]];
            Ok(MemorySourceConfig::try_new_exec(&rows, Arc::clone(&schema), Some(projection.to_vec()))?)
        };
        self.0.iter().map(one).collect()
    }
}

static SESSIONS: LazyLock<[SessionState; 2]> = LazyLock::new(|| {
    [1, 3].map(|partitions| session::query_state(session::config().with_target_partitions(partitions), Arc::default()))
});

/// The answer of the view over states, as a query reads it.
fn answer(view: &Arc<View>, parts: Vec<RecordBatch>, session: usize) -> Result<Vec<Vec<Value>>, String> {
    let table = merged::table(view, "v", Arc::new(Parts(parts, Arc::clone(view)))).map_err(|e| e.to_string())?;
    read(table, session)
}

/// The same with `window_final` behind each row.
pub(super) fn answer_with_finality(
    view: &Arc<View>,
    parts: Vec<RecordBatch>,
    session: usize,
    reached: Reached,
) -> Result<Vec<Vec<Value>>, String> {
    let source = Arc::new(Parts(parts, Arc::clone(view)));
    let frontier = Frontier { watermark_us: reached.watermark_us, ends: reached.ends };
    let table = merged::table_with_finality(view, "v", source, &frontier).map_err(|e| e.to_string())?;
    read(table, session)
}

fn read(table: Arc<dyn TableProvider>, session: usize) -> Result<Vec<Vec<Value>>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let context = SessionContext::new_with_state(SESSIONS[session].clone());
    let read = async { context.read_table(table)?.collect().await };
    runtime.block_on(read).map(|answers| rows(&answers)).map_err(|e| format!("error: {e}"))
}

/// The answer of the view over states, as a look-up reads it: none if the view has a finish of another kind.
fn look_up(view: &Arc<View>, parts: &[RecordBatch]) -> Option<Result<Vec<Vec<Value>>, String>> {
    let finish = RowFinish::of(view)?;
    let look_up = || {
        let mut cells = CellTable::new(view)?;
        parts.iter().try_for_each(|part| cells.merge(part))?;
        finish.apply(cells.answer()?)
    };
    Some(look_up().map(|answer| rows(&[answer])).map_err(|problem| format!("error: {}", problem.text())))
}

fn check_answer(found: Result<Vec<Vec<Value>>, String>, expected: &Answer, what: &str) -> Result<(), String> {
    match (found, &expected.rows) {
        (Ok(found), Ok(expected)) => compare(&found, expected).map_err(|difference| format!("{what}: {difference}")),
        (Err(problem), Err(_)) if problem.contains("out of range") => Ok(()),
        (Err(problem), _) => Err(format!("{what}: {problem}")),
        (Ok(_), Err(_)) => Err(format!("{what}: a sum out of range went unnoticed")),
    }
}

pub(super) fn check_bytes(found: &RecordBatch, wanted: &RecordBatch, what: &str) -> Result<(), String> {
    if found.columns() == wanted.columns() && ipc(found) == ipc(wanted) {
        return Ok(());
    }
    let column = (0..wanted.num_columns()).find(|column| found.column(*column) != wanted.column(*column));
    let name = column.map(|column| wanted.schema().field(column).name().clone());
    Err(format!("{what}: states differ in {name:?}\nfound {found:?}\nwanted {wanted:?}"))
}

/// Records counted and records left out as late.
fn check_ledger(counts: &LedgerCounts, wanted: (u64, u64), records: usize) -> Result<(), String> {
    if (counts.counted, counts.late) == wanted && (counts.records, counts.balance()) == (records as u64, 0) {
        return Ok(());
    }
    Err(format!("ledger {counts:?}, expected {wanted:?} of {records}"))
}

/// One case: a view, a static table, and where its records go.
struct Case {
    seed: u64,
    model: ViewModel,
    dimension: Vec<Vec<Value>>,
    /// How the static table keeps its texts.
    texts: DataType,
    partitions: u32,
}

impl Case {
    fn random(seed: u64) -> (Self, Vec<Event>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut generator = Generator { rng: &mut rng, knows_log_time: true };
        let (mut model, dimension) = (generator.view(), generator.dimension());
        generator.join_late(&mut model);
        let flavor = Flavor::random(&mut rng);
        let count = pick(&mut rng, &[0, 1, 30, 100, 200, 200, 400]);
        let mut events: Vec<Event> = vec![];
        for number in 0..count {
            // one that was there already, as a stream without a key has it
            let again = !events.is_empty() && rng.random_bool(flavor.copies);
            let event = if again { pick(&mut rng, &events) } else { Event::random(&mut rng, number, flavor) };
            events.push(event);
        }
        let partitions = pick(&mut rng, &[1, 2, 3, 8]);
        let texts = pick(&mut rng, &[DataType::Utf8View, DataType::Utf8View, DataType::Utf8, DataType::LargeUtf8]);
        (Self { seed, model, dimension, texts, partitions }, events)
    }

    /// Skewed, and the same for the same event whatever others there are.
    fn partition(&self, event: &Event) -> u32 {
        let hash = event.id().bytes().fold(self.seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        if hash % 3 == 0 { 0 } else { (hash >> 8) as u32 % self.partitions }
    }

    fn check(&self, events: &[Event]) -> Result<(), String> {
        let view = compile(&self.model, &self.dimension, &self.texts)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0x5eed);
        let records = place(events, self.partitions, |event| self.partition(event));
        let expected = self.model.answer(&records, &self.dimension);
        // which records meet a row of a table that is joined when the view is read, is not known when they are folded
        let folded = self.model.joins_late().then(|| self.model.folded().answer(&records, &self.dimension));
        let ledger = folded.as_ref().unwrap_or(&expected);
        let ledger = (ledger.counted, ledger.late);
        let (whole, counts) = fold_at_once(&view, &records, self.partitions)?;
        check_ledger(&counts, ledger, records.len())?;
        check_answer(answer(&view, vec![whole.clone()], 0), &expected, "batch only")?;

        let (parts, counts) = fold_in_pieces(&view, &records, self.partitions, &mut rng)?;
        check_ledger(&counts, ledger, records.len())?;
        if let Some(found) = look_up(&view, &parts).filter(|_| self.model.limit.is_none()) {
            self.check_look_up(found, &records, &expected)?;
        }
        let session = rng.random_range(0..2);
        check_answer(answer(&view, parts.clone(), session), &expected, "speed only")?;
        check_bytes(&merge_in_a_tree(&view, parts, &mut rng)?, &whole, "speed only")?;
        check_late_counts(&self.model, &expected, &whole)?;
        if self.model.late == Late::Side {
            self.check_side(&records, ledger.1, &mut rng)?;
        }
        self.check_finality(&view, &records, &whole, &mut rng)?;
        self.check_at_a_cut(&view, &records, &whole, &mut rng)?;
        self.check_another_version(&view, &records, &whole, &mut rng)
    }

    /// A table that is joined when the view is read: a new version changes the answer, and no state.
    fn check_another_version(
        &self,
        view: &Arc<View>,
        records: &[Placed],
        whole: &RecordBatch,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), String> {
        if !self.model.joins_late() {
            return Ok(());
        }
        let dimension = Generator { rng, knows_log_time: true }.dimension();
        view.set_dimension(&StaticTable { is_late: true, ..encoded(table(&dimension), &self.texts) });
        let expected = self.model.answer(records, &dimension);
        check_answer(answer(view, vec![whole.clone()], 0), &expected, "another version of the table")
    }

    /// Batch below a cut, speed above it: at the cut the batch's answer is that of the records below,
    /// and both merged are the whole.
    fn check_at_a_cut(
        &self,
        view: &Arc<View>,
        records: &[Placed],
        whole: &RecordBatch,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), String> {
        let (below, above) = records.split_at(rng.random_range(0..=records.len()));
        let (batch, _) = fold_at_once(view, below, self.partitions)?;
        let expected = self.model.answer(below, &self.dimension);
        check_answer(answer(view, vec![batch.clone()], 0), &expected, "below a cut")?;
        let (mut parts, _) = fold_in_pieces(view, above, self.partitions, rng)?;
        parts.push(batch);
        check_bytes(&merge_in_a_tree(view, parts, rng)?, whole, "batch and speed")
    }

    /// A look-up answers the cells that it was asked for before it looks at `HAVING`: a sum that is out of range is seen
    /// in a group that `HAVING` leaves out, too.
    fn check_look_up(
        &self,
        found: Result<Vec<Vec<Value>>, String>,
        records: &[Placed],
        expected: &Answer,
    ) -> Result<(), String> {
        let is_out_of_range = found.as_ref().is_err_and(|problem| problem.contains("out of range"));
        if is_out_of_range && expected.rows.is_ok() {
            let all_groups = ViewModel { having: None, ..self.model.clone() };
            return check_answer(found, &all_groups.answer(records, &self.dimension), "a look-up of all groups");
        }
        check_answer(found, expected, "a look-up")
    }

    /// The view of the late events: each of them once, with all that the view's aggregate would have read of it.
    fn check_side(&self, records: &[Placed], late: u64, rng: &mut ChaCha8Rng) -> Result<(), String> {
        let view = compile_with(&self.model, &self.dimension, LatePolicy::Only, &self.texts)?;
        let (whole, counts) = fold_at_once(&view, records, self.partitions)?;
        if (counts.counted, counts.late, counts.balance()) != (late, 0, 0) {
            return Err(format!("the side counts {counts:?}, expected {late}"));
        }
        let (parts, _) = fold_in_pieces(&view, records, self.partitions, rng)?;
        let schema = view.output_schema();
        let mut names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut found = answer(&view, parts.clone(), rng.random_range(0..2))?;
        without_numbers(&mut found, &mut names).map_err(|e| format!("side: {e}"))?;
        let expected = late_rows(&self.model, records, &self.dimension, &names);
        compare(&found, &expected).map_err(|e| format!("side: {e}"))?;
        check_bytes(&merge_in_a_tree(&view, parts, rng)?, &whole, "the side")
    }

    /// At some position, which windows are final; what is final there is the same in the end, if late events are left
    /// out.
    fn check_finality(
        &self,
        view: &Arc<View>,
        records: &[Placed],
        whole: &RecordBatch,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), String> {
        if view.has_final_windows() != self.model.has_finality() {
            return Err(format!("has windows that can be final: {}", view.has_final_windows()));
        }
        if !view.has_final_windows() {
            return Ok(());
        }
        let below = &records[..rng.random_range(0..=records.len())];
        let reached = reached(below, self.partitions);
        let expected = self.model.answer_with(below, &self.dimension, Some(&reached));
        let (states, _) = fold_at_once(view, below, self.partitions)?;
        let found = answer_with_finality(view, vec![states], rng.random_range(0..2), reached);
        check_answer(found.clone(), &expected, "window_final")?;
        let (Ok(found), Ok(whole)) = (found, answer(view, vec![whole.clone()], 0)) else { return Ok(()) };
        let is_counted = self.model.window.as_ref().is_some_and(Window::is_counted);
        if !(self.model.leaves_out_late() || is_counted) || self.model.limit.is_some() {
            return Ok(());
        }
        let keys = |row: &[Value]| row.iter().map(Value::key).collect::<Vec<_>>();
        let whole: BTreeSet<_> = whole.iter().map(|row| keys(row)).collect();
        let changed = found.iter().find(|row| match row.split_last() {
            Some((Value::Bool(true), row)) => !whole.contains(&keys(row)),
            _ => false,
        });
        changed.map_or(Ok(()), |row| Err(format!("a final row changes: {row:?}")))
    }

    fn describe(&self) -> String {
        format!("{}\nlate {}, dim {:?} {}", self.model.sql(), self.model.late_sql(), self.dimension, self.texts)
    }
}

/// 10,000 views of fixed seeds and 160 of fresh ones, shared out to tests that run side by side.
#[rstest]
fn generated_views_equal_the_reference_interpreter(#[values(0, 1, 2, 3, 4, 5, 6, 7)] part: u64) {
    for seed in seeds(part, 8, 10_000, 160) {
        let (case, events) = Case::random(seed);
        check_and_shrink(seed, &events, || case.describe(), |events| case.check(events));
    }
}
