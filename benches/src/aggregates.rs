//! The aggregates alone: nanoseconds a row and bytes a cell, beside DataFusion's own of the same name; and windows
//! that overlap beside windows that do not.
//!
//! Ours is a view's fold (with its evidence columns); DataFusion's is its partial aggregation of the same query
//! over the same batches. `count(*)` is in the list so that the cost of grouping can be taken off. What both say
//! of all groups together is compared before anything is measured.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow, bail, ensure};
use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Float64Type};
use clap::Args;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use operators::cells::CellTable;
use operators::{Folder, RowFinish, View, ViewSource, evidence};
use schemas::limits::CELL_VALUES_MAX;
use schemas::problem::SqlPosition;
use schemas::{ColumnDef, LatePolicy, OnBadData, SqlType, StreamDef};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::measure::{at_most, report};

const BATCH_ROWS: usize = 65_536;
const ROUNDS: usize = 3;

/// A call that is measured.
struct Call {
    name: &'static str,
    /// As a view writes it.
    ours: &'static str,
    /// As plain SQL does; none if plain SQL has no such thing.
    theirs: Option<&'static str>,
    /// How far the sum of all answers may be off, relative to theirs; none where answers are no numbers.
    off_max: Option<f64>,
    /// At most so many times their time: what the design asks for.
    goal: Option<f64>,
    /// True if a cell keeps every value: past its cap it keeps none, and there is nothing to compare.
    keeps_all: bool,
}

const EXACT: Option<f64> = Some(1e-9);

const fn call(name: &'static str, sql: &'static str, off_max: Option<f64>) -> Call {
    Call { name, ours: sql, theirs: Some(sql), off_max, goal: None, keeps_all: false }
}

const fn list(name: &'static str, sql: &'static str) -> Call {
    Call { keeps_all: true, ..call(name, sql, None) }
}

const CALLS: [Call; 36] = [
    call("count", "count(*)", EXACT),
    call("sum_int", "sum(n)", EXACT),
    call("sum_decimal", "sum(d)", EXACT),
    Call { goal: Some(1.6), ..call("sum_float", "sum(x)", EXACT) },
    call("avg_int", "avg(n)", EXACT),
    call("avg_decimal", "avg(d)", EXACT),
    Call { goal: Some(1.6), ..call("avg_float", "avg(x)", EXACT) },
    call("min_float", "min(x)", EXACT),
    call("max_int", "max(n)", EXACT),
    call("max_text", "max(s)", None),
    call("bool_and", "bool_and(b)", None),
    call("bit_xor", "bit_xor(small)", EXACT),
    call("var_samp", "var_samp(x)", Some(1e-6)),
    call("stddev", "stddev(x)", Some(1e-6)),
    call("covar_pop", "covar_pop(x, y)", Some(1e-3)),
    call("corr", "corr(x, y)", Some(1e-3)),
    call("regr_slope", "regr_slope(x, y)", Some(1e-3)),
    call("regr_r2", "regr_r2(x, y)", Some(1e-3)),
    Call { goal: Some(1.2), ..call("approx_distinct", "approx_distinct(n)", Some(0.05)) },
    Call { goal: Some(1.2), ..call("approx_distinct_text", "approx_distinct(s)", Some(0.05)) },
    Call {
        ours: "approx_percentile_cont(x, 0.9)",
        goal: Some(0.2),
        ..call("approx_percentile", "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY x)", Some(0.05))
    },
    Call { goal: Some(0.2), ..call("approx_median", "approx_median(x)", Some(0.05)) },
    call("count_distinct_int", "count(DISTINCT small)", EXACT),
    call("count_distinct_text", "count(DISTINCT s)", EXACT),
    call("sum_distinct", "sum(DISTINCT small)", EXACT),
    Call { ours: "median_exact(small)", ..call("median_exact", "median(small)", Some(1e-2)) },
    call("percentile_cont", "percentile_cont(0.9) WITHIN GROUP (ORDER BY small)", Some(1e-2)),
    Call { theirs: None, ..call("approx_top_k", "approx_top_k(s, 10)", None) },
    call("first_value", "first_value(x)", EXACT),
    call("first_value_by", "first_value(x ORDER BY y)", Some(1e-3)),
    call("last_value_by", "last_value(s ORDER BY y)", None),
    Call { theirs: None, ..call("arg_min", "arg_min(x, y)", None) },
    Call { theirs: None, ..call("arg_max", "arg_max(s, y)", None) },
    list("array_agg", "array_agg(n)"),
    list("array_agg_by", "array_agg(n ORDER BY y)"),
    list("string_agg_by", "string_agg(s, ',' ORDER BY y)"),
];

/// A window of 60 panes, and one of the same size that has none.
const HOP: &str = "HOP(t, at, INTERVAL '1 second', INTERVAL '1 minute')";
const TUMBLE: &str = "TUMBLE(t, at, INTERVAL '1 minute')";
const HOP_GOAL: f64 = 1.3;
/// From one row's time to the next.
const ROW_US: i64 = 1_000;

#[derive(Args)]
pub(crate) struct Options {
    /// Rows of each measurement.
    #[arg(long, default_value_t = 2_000_000)]
    rows: usize,
    /// Numbers of groups.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 100_000])]
    groups: Vec<u64>,
    /// Only calls whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    for groups in &options.groups {
        let batches = batches(options.rows, *groups)?;
        for call in CALLS.iter().filter(|call| call.name.contains(&options.only)) {
            measure(&batches, *groups, call).await?;
        }
        if "hop".contains(&options.only) {
            measure_windows(&batches, *groups)?;
        }
    }
    Ok(())
}

async fn measure(batches: &[RecordBatch], groups: u64, call: &Call) -> anyhow::Result<()> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let is_past_cap = call.keeps_all && rows as u64 / groups > CELL_VALUES_MAX as u64 / 2;
    if let (Some(theirs), false) = (call.theirs, is_past_cap) {
        compare(batches, call, theirs).await?;
    }
    let sql = format!("SELECT k, {} AS o FROM t GROUP BY k", call.ours);
    let (own_ns, own_bytes) = best(|| fold(batches, &sql))?;
    let mut fields = Map::new();
    let what = format!("{}, {groups} groups", call.name);
    fields.insert("w".into(), "operators".into());
    fields.insert("peer".into(), what.as_str().into());
    fields.insert("ns_per_row".into(), rounded(own_ns));
    fields.insert("state_bytes_per_cell".into(), rounded(own_bytes));
    if is_past_cap {
        fields.insert("past_cap".into(), true.into());
    } else if let Some(theirs) = call.theirs {
        let (ns, bytes) = best_plain(batches, theirs).await?;
        fields.insert("datafusion_ns_per_row".into(), rounded(ns));
        fields.insert("datafusion_state_bytes_per_cell".into(), rounded(bytes));
        fields.insert("ratio".into(), rounded(own_ns / ns));
        if let Some(goal) = call.goal {
            let goal = at_most(&format!("{what}: time beside DataFusion's"), own_ns / ns, goal);
            fields.insert("goals".into(), json!([goal]));
        }
    }
    report(fields);
    Ok(())
}

/// The fold of windows that overlap, beside that of windows that do not.
fn measure_windows(batches: &[RecordBatch], groups: u64) -> anyhow::Result<()> {
    let over = |window: &str| format!("SELECT k, window_start, sum(n) AS o FROM {window} GROUP BY k, window_start");
    let (tumble_ns, _) = best(|| fold(batches, &over(TUMBLE)))?;
    let (hop_ns, bytes) = best(|| fold(batches, &over(HOP)))?;
    let mut fields = Map::new();
    let what = format!("HOP of 60 panes, {groups} groups");
    fields.insert("w".into(), "operators".into());
    fields.insert("peer".into(), what.as_str().into());
    fields.insert("ns_per_row".into(), rounded(hop_ns));
    fields.insert("state_bytes_per_cell".into(), rounded(bytes));
    fields.insert("tumble_ns_per_row".into(), rounded(tumble_ns));
    fields.insert("ratio".into(), rounded(hop_ns / tumble_ns));
    let goal = at_most(&format!("{what}: time of the fold beside TUMBLE"), hop_ns / tumble_ns, HOP_GOAL);
    fields.insert("goals".into(), json!([goal]));
    report(fields);
    Ok(())
}

/// What a view and plain SQL say: as many groups, and, where the answers are numbers, the same sum of them.
async fn compare(batches: &[RecordBatch], call: &Call, theirs: &str) -> anyhow::Result<()> {
    let view = view(&format!("SELECT k, {} AS o FROM t GROUP BY k", call.ours))?;
    let mut cells = CellTable::new(&view).map_err(|problem| anyhow!(problem.text()))?;
    cells.merge(&states(&view, batches)?).map_err(|problem| anyhow!(problem.text()))?;
    let finish = RowFinish::of(&view).context("a plain view")?;
    let answer = cells.answer().and_then(|cells| finish.apply(cells)).map_err(|problem| anyhow!(problem.text()))?;
    let context = context(batches)?;
    let plain = context.sql(&format!("SELECT k, {theirs} AS o FROM t GROUP BY k")).await?.collect().await?;
    let groups: usize = plain.iter().map(RecordBatch::num_rows).sum();
    ensure!(answer.num_rows() == groups, "{}: {} groups, expected {groups}", call.name, answer.num_rows());
    let Some(off_max) = call.off_max else { return Ok(()) };
    let (own, other) = (total(&[answer])?, total(&plain)?);
    let off = (own - other).abs();
    ensure!(off <= off_max * other.abs().max(1.0), "{}: {own} in all, expected {other}", call.name);
    Ok(())
}

/// The sum of the column `o`.
fn total(answers: &[RecordBatch]) -> anyhow::Result<f64> {
    let mut total = 0.0;
    for answer in answers {
        let column = arrow::compute::cast(answer.column(1), &DataType::Float64)?;
        total += column.as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
    }
    Ok(total)
}

fn rounded(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}

/// Pseudo-random rows: a key, numbers of many and of few values, a text.
fn batches(rows: usize, groups: u64) -> anyhow::Result<Vec<RecordBatch>> {
    let mix = |row: usize, salt: u64| {
        let mut z = (row as u64).wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let batch = |start: usize| -> anyhow::Result<RecordBatch> {
        let range = start..(start + BATCH_ROWS).min(rows);
        let numbers = |salt: u64, below: u64| -> ArrayRef {
            Arc::new(range.clone().map(|row| Some((mix(row, salt) % below) as i64)).collect::<Int64Array>())
        };
        let floats = |salt: u64| -> ArrayRef {
            Arc::new(
                range.clone().map(|row| Some((mix(row, salt) % 10_000_000) as f64 / 100.0)).collect::<Float64Array>(),
            )
        };
        let texts = range.clone().map(|row| Some(format!("customer number {}", mix(row, 9) % 1_000)));
        let times: TimestampMicrosecondArray = range.clone().map(|row| Some(row as i64 * ROW_US)).collect();
        let decimals: Decimal128Array = range.clone().map(|row| Some(i128::from(mix(row, 6) % 1_000_000))).collect();
        let booleans: BooleanArray = range.clone().map(|row| Some(mix(row, 7) % 2 == 0)).collect();
        let columns = [
            ("k", numbers(1, groups)),
            ("n", numbers(2, 1 << 40)),
            ("small", numbers(3, 1_000)),
            ("x", floats(4)),
            ("y", floats(5)),
            ("s", Arc::new(texts.collect::<StringViewArray>()) as ArrayRef),
            ("at", Arc::new(times.with_timezone("UTC")) as ArrayRef),
            ("d", Arc::new(decimals.with_precision_and_scale(18, 2)?) as ArrayRef),
            ("b", Arc::new(booleans) as ArrayRef),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    };
    (0..rows).step_by(BATCH_ROWS).map(batch).collect()
}

fn stream() -> StreamDef {
    let column = |name: &str, sql_type| ColumnDef { name: name.into(), sql_type, nullable: true };
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "t".into(),
        columns: vec![
            column("k", SqlType::BigInt),
            column("n", SqlType::BigInt),
            column("small", SqlType::BigInt),
            column("x", SqlType::Double),
            column("y", SqlType::Double),
            column("s", SqlType::Text),
            column("at", SqlType::TimestampTz),
            column("d", SqlType::Numeric { precision: 18, scale: 2 }),
            column("b", SqlType::Boolean),
        ],
        primary_key: vec![],
        time_column: None,
        watermark_delay_us: 0,
        partitions: 1,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: 0,
    }
}

/// The least of some rounds, in nanoseconds a row, and bytes a cell.
fn best(mut round: impl FnMut() -> anyhow::Result<(f64, f64)>) -> anyhow::Result<(f64, f64)> {
    let mut least = round()?;
    for _ in 1..ROUNDS {
        let next = round()?;
        least = if next.0 < least.0 { next } else { least };
    }
    Ok(least)
}

fn view(sql: &str) -> anyhow::Result<Arc<View>> {
    let (stream, position) = (stream(), SqlPosition { line: 1, column: 1 });
    let source = ViewSource { sql, position, stream: &stream, tables: &[], late: LatePolicy::Include };
    View::compile(&source).map_err(|problem| anyhow!(problem.text()))
}

fn states(view: &Arc<View>, batches: &[RecordBatch]) -> anyhow::Result<RecordBatch> {
    let mut folder = Folder::new(view).map_err(|problem| anyhow!(problem.text()))?;
    fold_into(&mut folder, view, batches)
}

fn fold_into(folder: &mut Folder, view: &View, batches: &[RecordBatch]) -> anyhow::Result<RecordBatch> {
    let mut offset = 0;
    for batch in batches {
        let columns: Vec<ArrayRef> =
            view.input_columns().iter().map(|index| Arc::clone(batch.column(*index))).collect();
        let folded = folder.fold_columns(0, offset, &columns, batch.num_rows());
        folded.map_err(|problem| anyhow!(problem.text()))?;
        offset += batch.num_rows() as u64;
    }
    folder.take().map_err(|problem| anyhow!(problem.text()))?.context("no cells")
}

/// The time of a fold, and the bytes of its states beside keys and evidence.
fn fold(batches: &[RecordBatch], sql: &str) -> anyhow::Result<(f64, f64)> {
    let view = view(sql)?;
    let mut folder = Folder::new(&view).map_err(|problem| anyhow!(problem.text()))?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let begun = Instant::now();
    let states = fold_into(&mut folder, &view, batches)?;
    let ns = begun.elapsed().as_nanos() as f64 / rows as f64;
    let evidence = evidence::COLUMNS.len();
    let own = states.project(&(view.key_columns() + evidence..states.num_columns()).collect::<Vec<_>>())?;
    Ok((ns, own.get_array_memory_size() as f64 / states.num_rows() as f64))
}

async fn best_plain(batches: &[RecordBatch], call: &str) -> anyhow::Result<(f64, f64)> {
    let mut least = plain(batches, call).await?;
    for _ in 1..ROUNDS {
        let next = plain(batches, call).await?;
        least = if next.0 < least.0 { next } else { least };
    }
    Ok(least)
}

/// DataFusion over the same rows, with its own aggregates.
fn context(batches: &[RecordBatch]) -> anyhow::Result<SessionContext> {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    // it would hand rows on as they are where there are many groups, and aggregate nothing
    config.options_mut().execution.skip_partial_aggregation_probe_ratio_threshold = 2.0;
    let context = SessionContext::new_with_config(config);
    context.remove_optimizer_rule("single_distinct_aggregation_to_group_by");
    let schema = batches.first().context("no rows")?.schema();
    context.register_table("t", Arc::new(MemTable::try_new(schema, vec![batches.to_vec()])?))?;
    Ok(context)
}

/// DataFusion's partial aggregation: rows in, states out.
async fn plain(batches: &[RecordBatch], call: &str) -> anyhow::Result<(f64, f64)> {
    let context = context(batches)?;
    let plan = context.sql(&format!("SELECT k, {call} AS o FROM t GROUP BY k")).await?.create_physical_plan().await?;
    let partial = partial(&plan)?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let begun = Instant::now();
    let output = collect(partial, context.task_ctx()).await?;
    let elapsed = begun.elapsed();
    let (mut cells, mut bytes) = (0, 0);
    for states in output {
        cells += states.num_rows();
        bytes += states.project(&(1..states.num_columns()).collect::<Vec<_>>())?.get_array_memory_size();
    }
    Ok((elapsed.as_nanos() as f64 / rows as f64, bytes as f64 / cells as f64))
}

/// The aggregation of a plan as a partial one.
fn partial(plan: &Arc<dyn ExecutionPlan>) -> anyhow::Result<Arc<dyn ExecutionPlan>> {
    let known = plan.downcast_ref::<AggregateExec>();
    let Some(whole) = known.filter(|known| matches!(known.mode(), AggregateMode::Single | AggregateMode::Partial))
    else {
        let Some(input) = plan.children().first().copied() else { bail!("the query has no aggregation") };
        return partial(input);
    };
    Ok(Arc::new(AggregateExec::try_new(
        AggregateMode::Partial,
        whole.group_expr().clone(),
        whole.aggr_expr().to_vec(),
        whole.filter_expr().to_vec(),
        Arc::clone(whole.input()),
        whole.input_schema(),
    )?))
}
