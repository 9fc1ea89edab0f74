//! W2: 50 M rows of Parquet as the master of a stream → all states of a view, sorted, as an indexed batch view.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use batch::master_records::MasterRecords;
use batch::recompute::{Job, Progress, scan, write_sorted};
use clap::Args;
use operators::{StaticTable, View, ViewSource};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::documents::manifest::BatchFile;
use schemas::problem::SqlPosition;
use schemas::{ColumnDef, Cut, LatePolicy, OnBadData, SqlType, StreamDef};
use serde_json::json;
use storage::batch_view::BatchViewWriter;
use storage::clock::SystemClock;
use storage::log::Frame;
use storage::master::Master;
use storage::store::Store;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::measure::{Clock, peak_mb, report};

#[derive(Args)]
pub(crate) struct Options {
    /// a1, a2, b1 or b2: see benches/README.md
    #[arg(long)]
    query: String,
    /// The generated Parquet files.
    #[arg(long)]
    parquet: PathBuf,
    /// ads.parquet
    #[arg(long)]
    ads: PathBuf,
    /// Where the master is made, once.
    #[arg(long)]
    store: PathBuf,
    /// Where the answer is written for the comparison with the peers.
    #[arg(long)]
    out: PathBuf,
    /// Bytes for states.
    #[arg(long, default_value_t = 2_147_483_648)]
    memory: usize,
    /// Threads; 0 takes the cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let store = Store::open(options.store.to_str().context("store")?)?;
    let stream = stream();
    let master = Master::open_in(&store, &stream, Arc::new(SystemClock)).await?;
    if master.landed().total() == 0 {
        load(&master, &stream, &options.parquet).await?;
    }
    let view = view(&options, &stream)?;
    let cut = master.landed();
    let job = job(&options, &view, &master, &cut)?;
    let clock = Clock::start();
    let (target, query, merged) = (store.clone(), options.query.clone(), Arc::clone(&view));
    let open = move |part: u32| {
        let path = format!("views/{query}/part-{part:05}.parquet");
        BatchViewWriter::create(&target, &path, Arc::clone(merged.state_schema()), merged.key_columns())
    };
    let (writers, scan_s) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let begun = std::time::Instant::now();
        let scanned = scan(&job)?;
        let scan_s = begun.elapsed().as_secs_f64();
        Ok((write_sorted(&job, scanned.states, open)?, scan_s))
    })
    .await??;
    let mut files = vec![];
    for writer in writers {
        files.push(writer.finish().await?);
    }
    let (wall_s, cpu_s) = clock.read();
    let (cells, bytes) = files.iter().fold((0, 0), |(cells, bytes), file| (cells + file.cells, bytes + file.bytes));
    let peak = peak_mb();
    answer(&store, &files, &view, &options).await?;
    let result = json!({ "peer": format!("bifold {} memory={}MB", options.query, options.memory >> 20), "query": options.query,
        "wall_s": wall_s, "cpu_s": cpu_s, "scan_s": scan_s, "rows": cut.total(), "cells": cells, "bytes": bytes,
        "peak_mb": peak, "parquet": options.out });
    report(result.as_object().cloned().unwrap_or_default());
    Ok(())
}

fn job(options: &Options, view: &Arc<View>, master: &Arc<Master>, cut: &Cut) -> anyhow::Result<Job> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Job {
        view: Arc::clone(view),
        records: Arc::new(MasterRecords::new(master, &Cut::default(), cut)?),
        from: Cut::default(),
        base_cut: Cut::default(),
        cut: cut.clone(),
        threads: if options.threads == 0 { cores } else { options.threads },
        memory_bytes: options.memory,
        spill: options.store.join("spill"),
        progress: Arc::new(Progress::default()),
        stop: CancellationToken::new(),
    })
}

fn stream() -> StreamDef {
    let text = |name: &str| ColumnDef { name: name.into(), sql_type: SqlType::Text, nullable: true };
    let mut columns: Vec<ColumnDef> = ["user_id", "page_id", "ad_id", "ad_type", "event_type"].map(text).into();
    columns.push(ColumnDef { name: "event_time".into(), sql_type: SqlType::TimestampTz, nullable: false });
    columns.push(text("ip_address"));
    columns.push(ColumnDef { name: "price".into(), sql_type: SqlType::Double, nullable: true });
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "events".into(),
        columns,
        primary_key: vec![],
        time_column: Some("event_time".into()),
        watermark_delay_us: 5_000_000,
        partitions: 2,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: 0,
    }
}

/// Lands the generated files as they would have come in: one file of a partition after the other.
async fn load(master: &Arc<Master>, stream: &StreamDef, folder: &Path) -> anyhow::Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.sort();
    for (index, file) in files.iter().enumerate() {
        let partition = index as u32 % stream.partitions;
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.with_batch_size(65_536).build()?;
        let (mut frames, mut rows_open) = (vec![], 0_usize);
        let mut base = master.landed().offset(partition);
        let mut largest = None;
        for rows in reader {
            let rows = typed(&rows?, stream, &mut largest)?;
            rows_open += rows.num_rows();
            base += rows.num_rows() as u64;
            frames.push(Frame { partition, base: base - rows.num_rows() as u64, rows });
            if rows_open >= 2_000_000 {
                master.land(std::mem::take(&mut frames)).await?;
                rows_open = 0;
            }
        }
        if !frames.is_empty() {
            master.land(frames).await?;
        }
    }
    Ok(())
}

fn typed(rows: &RecordBatch, stream: &StreamDef, largest: &mut Option<i64>) -> anyhow::Result<RecordBatch> {
    let schema = stream.log_schema();
    let mut columns: Vec<ArrayRef> = vec![];
    for column in &stream.columns {
        let values = rows.column_by_name(&column.name).with_context(|| column.name.clone())?;
        columns.push(cast(values, &column.sql_type.arrow())?);
    }
    let times = cast(&columns[5], &DataType::Int64)?;
    let Some(times) = times.as_any().downcast_ref::<Int64Array>() else { bail!("event_time") };
    let before: TimestampMicrosecondArray = times
        .values()
        .iter()
        .map(|time| {
            let before = *largest;
            *largest = Some(before.map_or(*time, |known| known.max(*time)));
            before
        })
        .collect();
    columns.push(cast(&columns[5], schema.field(schema.fields().len() - 2).data_type())?);
    columns.push(Arc::new(before.with_timezone("UTC")));
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn view(options: &Options, stream: &StreamDef) -> anyhow::Result<Arc<View>> {
    let ads = ParquetRecordBatchReaderBuilder::try_new(File::open(&options.ads)?)?.build()?;
    let ads: Vec<RecordBatch> = ads.collect::<Result<_, _>>()?;
    let text = |name: &str| ColumnDef { name: name.into(), sql_type: SqlType::Text, nullable: false }.field();
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![text("ad_id"), text("campaign_id")]));
    let ads = ads.iter().map(|rows| -> anyhow::Result<RecordBatch> {
        let columns = rows.columns().iter().map(|values| cast(values, &DataType::Utf8View));
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)?)
    });
    let tables = [StaticTable {
        name: "ads".into(),
        rows: ads.collect::<anyhow::Result<_>>()?,
        identity: "1".into(),
        is_late: false,
        valid_from: None,
    }];
    let by_campaign = "FROM TUMBLE(events, event_time, INTERVAL '10 seconds') AS e JOIN ads ON e.ad_id = ads.ad_id \
        WHERE event_type = 'view' GROUP BY campaign_id, window_start";
    let by_page = "FROM TUMBLE(events, event_time, INTERVAL '1 hour') GROUP BY page_id, window_start";
    let sql = match options.query.as_str() {
        "a1" => format!("SELECT campaign_id AS k, window_start AS w, count(*) AS n {by_campaign}"),
        "a2" => format!("SELECT campaign_id AS k, window_start AS w, count(*) AS n, sum(price) AS total {by_campaign}"),
        "b1" => format!("SELECT page_id AS k, window_start AS w, count(*) AS n, sum(price) AS total {by_page}"),
        "b2" => format!(
            "SELECT page_id AS k, window_start AS w, count(*) AS n, sum(price) AS total, approx_distinct(user_id) AS users {by_page}"
        ),
        other => bail!("no query {other}: a1, a2, b1 or b2"),
    };
    let position = SqlPosition { line: 1, column: 1 };
    Ok(View::compile(&ViewSource { sql: &sql, position, stream, tables: &tables, late: LatePolicy::Include })?)
}

/// The answer in the peers' form: k, w (epoch milliseconds), n, total, users, in order.
async fn answer(store: &Store, files: &[BatchFile], view: &Arc<View>, options: &Options) -> anyhow::Result<()> {
    let mut readers = vec![];
    for file in files {
        let bytes = store.get(&file.path).await?;
        readers.push(ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(65_536).build()?);
    }
    let mut writer: Option<parquet::arrow::ArrowWriter<File>> = None;
    for states in readers.into_iter().flatten() {
        let states = states?;
        let columns = states.columns().iter().zip(view.state_schema().fields());
        let columns = columns.map(|(values, field)| cast(values, field.data_type())).collect::<Result<Vec<_>, _>>()?;
        let states = RecordBatch::try_new(Arc::clone(view.state_schema()), columns)?;
        let mut cells = operators::cells::CellTable::new(view)?;
        cells.merge(&states)?;
        let cells = cells.answer()?;
        let w = cast(&cast(cells.column(1), &DataType::Int64)?, &DataType::Int64)?;
        let w = arrow::compute::kernels::numeric::div(&w, &Int64Array::new_scalar(1_000))?;
        let names = ["k", "w", "n", "total", "users"];
        let mut columns = vec![("k", cast(cells.column(0), &DataType::Utf8)?), ("w", w)];
        for (index, name) in names.iter().enumerate().skip(2) {
            if let Some(values) = cells.columns().get(index + 1) {
                columns.push((name, Arc::clone(values)));
            }
        }
        let rows = RecordBatch::try_from_iter(columns)?;
        if writer.is_none() {
            writer = Some(parquet::arrow::ArrowWriter::try_new(File::create(&options.out)?, rows.schema(), None)?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&rows)?;
        }
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    Ok(())
}
