//! The aggregates alone: nanoseconds a row and bytes a cell, beside DataFusion's own of the same name.
//!
//! Ours is a view's fold (with its evidence columns); DataFusion's is its partial aggregation of the same query
//! over the same batches. `count(*)` is in the list so that the cost of grouping can be taken off.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use clap::Args;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use operators::{Folder, View, ViewSource};
use schemas::problem::SqlPosition;
use schemas::{ColumnDef, LatePolicy, OnBadData, SqlType, StreamDef};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::measure::report;

const BATCH_ROWS: usize = 65_536;
const ROUNDS: usize = 3;

/// A name, how a view writes it, and how plain SQL does; none if plain SQL has no such thing.
const CALLS: [(&str, &str, Option<&str>); 24] = [
    ("count", "count(*)", Some("count(*)")),
    ("sum_int", "sum(n)", Some("sum(n)")),
    ("sum_float", "sum(x)", Some("sum(x)")),
    ("avg_float", "avg(x)", Some("avg(x)")),
    ("min_max", "min(x)", Some("min(x)")),
    ("stddev", "stddev(x)", Some("stddev(x)")),
    ("covar_pop", "covar_pop(x, y)", Some("covar_pop(x, y)")),
    ("corr", "corr(x, y)", Some("corr(x, y)")),
    ("regr_slope", "regr_slope(x, y)", Some("regr_slope(x, y)")),
    ("approx_distinct", "approx_distinct(n)", Some("approx_distinct(n)")),
    ("approx_distinct_text", "approx_distinct(s)", Some("approx_distinct(s)")),
    (
        "approx_percentile",
        "approx_percentile_cont(x, 0.9)",
        Some("approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY x)"),
    ),
    ("count_distinct_int", "count(DISTINCT small)", Some("count(DISTINCT small)")),
    ("count_distinct_text", "count(DISTINCT s)", Some("count(DISTINCT s)")),
    ("sum_distinct", "sum(DISTINCT small)", Some("sum(DISTINCT small)")),
    ("median_exact", "median_exact(small)", Some("median(small)")),
    (
        "percentile_cont",
        "percentile_cont(0.9) WITHIN GROUP (ORDER BY small)",
        Some("percentile_cont(0.9) WITHIN GROUP (ORDER BY small)"),
    ),
    ("approx_top_k", "approx_top_k(s, 10)", None),
    ("first_value", "first_value(x)", Some("first_value(x)")),
    ("first_value_by", "first_value(x ORDER BY y)", Some("first_value(x ORDER BY y)")),
    ("last_value_by", "last_value(s ORDER BY y)", Some("last_value(s ORDER BY y)")),
    ("arg_max", "arg_max(s, y)", None),
    ("array_agg_by", "array_agg(n ORDER BY y)", Some("array_agg(n ORDER BY y)")),
    ("string_agg_by", "string_agg(s, ',' ORDER BY y)", Some("string_agg(s, ',' ORDER BY y)")),
];

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
        for (name, ours, theirs) in CALLS.iter().filter(|call| call.0.contains(&options.only)) {
            let (own_ns, own_bytes) = best(|| fold(&batches, ours))?;
            let mut fields = Map::new();
            fields.insert("work".into(), "operators".into());
            fields.insert("aggregate".into(), (*name).into());
            fields.insert("groups".into(), (*groups).into());
            fields.insert("ns_per_row".into(), rounded(own_ns));
            fields.insert("state_bytes_per_cell".into(), rounded(own_bytes));
            if let Some(theirs) = theirs {
                let (ns, bytes) = best_plain(&batches, theirs).await?;
                fields.insert("datafusion_ns_per_row".into(), rounded(ns));
                fields.insert("datafusion_state_bytes_per_cell".into(), rounded(bytes));
                fields.insert("ratio".into(), rounded(own_ns / ns));
            }
            report(fields);
        }
    }
    Ok(())
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
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0; range.len()]).with_timezone("UTC"));
        let columns = [
            ("k", numbers(1, groups)),
            ("n", numbers(2, 1 << 40)),
            ("small", numbers(3, 1_000)),
            ("x", floats(4)),
            ("y", floats(5)),
            ("s", Arc::new(texts.collect::<StringViewArray>()) as ArrayRef),
            ("at", time),
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

fn fold(batches: &[RecordBatch], call: &str) -> anyhow::Result<(f64, f64)> {
    let (stream, sql) = (stream(), format!("SELECT k, {call} AS o FROM t GROUP BY k"));
    let position = SqlPosition { line: 1, column: 1 };
    let source = ViewSource { sql: &sql, position, stream: &stream, tables: &[], late: LatePolicy::Include };
    let view = View::compile(&source).map_err(|problem| anyhow::anyhow!(problem.text()))?;
    let mut folder = Folder::new(&view).map_err(|problem| anyhow::anyhow!(problem.text()))?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let begun = Instant::now();
    let mut offset = 0;
    for batch in batches {
        let columns: Vec<ArrayRef> =
            view.input_columns().iter().map(|index| Arc::clone(batch.column(*index))).collect();
        let folded = folder.fold_columns(0, offset, &columns, batch.num_rows());
        folded.map_err(|problem| anyhow::anyhow!(problem.text()))?;
        offset += batch.num_rows() as u64;
    }
    let states = folder.take().map_err(|problem| anyhow::anyhow!(problem.text()))?.context("no cells")?;
    let ns = begun.elapsed().as_nanos() as f64 / rows as f64;
    let own = states.project(&(view.key_columns() + 4..states.num_columns()).collect::<Vec<_>>())?;
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

/// DataFusion's partial aggregation: rows in, states out.
async fn plain(batches: &[RecordBatch], call: &str) -> anyhow::Result<(f64, f64)> {
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    let context = SessionContext::new_with_config(config);
    context.remove_optimizer_rule("single_distinct_aggregation_to_group_by");
    let schema = batches.first().context("no rows")?.schema();
    context.register_table("t", Arc::new(MemTable::try_new(schema, vec![batches.to_vec()])?))?;
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
