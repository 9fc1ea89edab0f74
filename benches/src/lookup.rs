//! W3: one cell by key with ten deltas present, in process (no SQL) and over HTTP. The whole platform runs:
//! cells come in as events, a run makes the batch view, ten checkpoints make the deltas.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use bifold::config::Config;
use bifold::platform::Platform;
use clap::Args;
use datafusion::scalar::ScalarValue;
use hdrhistogram::Histogram;
use ingest::service::{IngestOptions, Payload};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use serving::engine::QueryRequest;

use crate::measure::{peak_mb, report};

/// Events in one body while loading.
const BODY_EVENTS: usize = 50_000;
/// Look-ups before the clock runs.
const WARM_UP: usize = 500;

#[derive(Args)]
pub(crate) struct Options {
    /// Folder with cells.parquet and delta-*.parquet.
    #[arg(long)]
    cells: PathBuf,
    /// A folder for the platform; emptied first.
    #[arg(long)]
    data_dir: PathBuf,
    /// The cells to ask for, lines `key,window`; the first 500 warm up.
    #[arg(long)]
    picks: PathBuf,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(&options.data_dir);
    let mut config = Config { data_dir: options.data_dir.clone(), ..Config::default() };
    config.listen.set_port(0);
    config.limits.checkpoint_interval_ms = 3_600_000;
    let platform = Platform::start(config).await?;
    let http = reqwest::Client::new();
    let client = Client { platform: &platform, http };
    client
        .sql(
            "CREATE STREAM events (key TEXT NOT NULL, w TIMESTAMPTZ NOT NULL, n BIGINT, total BIGINT, who BIGINT, \
        WATERMARK FOR w AS w) WITH (partitions = 2)",
        )
        .await?;
    client
        .sql(
            "CREATE MATERIALIZED VIEW cells AS SELECT key, w, sum(n) AS n, sum(total) AS total, \
        approx_distinct(who) AS users FROM events GROUP BY key, w",
        )
        .await?;
    let begun = Instant::now();
    let cells = load(&platform, &options.cells.join("cells.parquet")).await?;
    client.sql("REFRESH MATERIALIZED VIEW cells").await?;
    for delta in 0..10 {
        load(&platform, &options.cells.join(format!("delta-{delta}.parquet"))).await?;
        platform.checkpoint("events").await?;
    }
    let load_s = begun.elapsed().as_secs_f64();
    let picked = read_picks(&options.picks)?;
    let in_process = in_process(&platform, &picked).await?;
    let over_http = over_http(&client, &picked).await?;
    if in_process.check != over_http.check {
        bail!("in process {} and over HTTP {} answer differently", in_process.check, over_http.check);
    }
    for (name, timed) in [("in process", in_process), ("http", over_http)] {
        let result = json!({ "w": "w3", "peer": format!("bifold {name}, 10 deltas"), "cells": cells, "shape": "cell",
            "p50_ms": timed.quantile_ms(0.5), "p99_ms": timed.quantile_ms(0.99), "rows": timed.rows, "check": timed.check,
            "load_s": load_s, "peak_mb": peak_mb() });
        report(result.as_object().cloned().unwrap_or_default());
    }
    platform.stop().await
}

struct Client<'a> {
    platform: &'a Platform,
    http: reqwest::Client,
}

impl Client<'_> {
    async fn sql(&self, sql: &str) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}/v1/sql", self.platform.url())).bearer_auth(self.platform.token());
        let answer = request.json(&json!({ "sql": sql })).send().await?;
        let ok = answer.status().is_success();
        let body: Value = answer.json().await?;
        if ok { Ok(body) } else { bail!("{body}") }
    }
}

struct Timed {
    micros: Histogram<u64>,
    rows: u64,
    check: i64,
}

impl Timed {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { micros: Histogram::new(3)?, rows: 0, check: 0 })
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

async fn in_process(platform: &Platform, picked: &[(String, i64)]) -> anyhow::Result<Timed> {
    let mut timed = Timed::new()?;
    let request = QueryRequest::default();
    for (index, (key, window)) in picked.iter().enumerate() {
        let values = [
            ScalarValue::Utf8View(Some(key.clone())),
            ScalarValue::TimestampMicrosecond(Some(*window * 1_000), Some("UTC".into())),
        ];
        let begun = Instant::now();
        let answer = platform.engine().look_up("cells", &values, &request).await?;
        let micros = begun.elapsed().as_micros() as u64;
        if index >= WARM_UP {
            timed.micros.record(micros)?;
            for rows in &answer.context("the view cannot be looked up")?.rows {
                timed.rows += rows.num_rows() as u64;
                let column = |name: &str| -> anyhow::Result<i64> {
                    let values = rows.column_by_name(name).context("column")?;
                    Ok(values.as_primitive::<Int64Type>().values().iter().sum())
                };
                timed.check += column("n")? * 1_000_003 + column("total")?;
            }
        }
    }
    Ok(timed)
}

async fn over_http(client: &Client<'_>, picked: &[(String, i64)]) -> anyhow::Result<Timed> {
    let mut timed = Timed::new()?;
    for (index, (key, window)) in picked.iter().enumerate() {
        let time = chrono::DateTime::from_timestamp_millis(*window).context("time")?.format("%Y-%m-%dT%H:%M:%SZ");
        let url = format!("{}/v1/views/cells?key=eq.{key}&w=eq.{time}", client.platform.url());
        let begun = Instant::now();
        let answer = client.http.get(url).bearer_auth(client.platform.token()).send().await?;
        let body = answer.bytes().await?;
        let micros = begun.elapsed().as_micros() as u64;
        if index >= WARM_UP {
            timed.micros.record(micros)?;
            let body: Value = serde_json::from_slice(&body)?;
            for row in body["rows"].as_array().with_context(|| body.to_string())? {
                timed.rows += 1;
                timed.check += row[2].as_i64().unwrap_or(0) * 1_000_003 + row[3].as_i64().unwrap_or(0);
            }
        }
    }
    Ok(timed)
}

fn read_picks(file: &Path) -> anyhow::Result<Vec<(String, i64)>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let pick = |line: &str| -> anyhow::Result<(String, i64)> {
        let (key, window) = line.rsplit_once(',').with_context(|| format!("{line}: not key,window"))?;
        Ok((key.to_owned(), window.parse()?))
    };
    text.lines().map(pick).collect()
}

/// Sends the cells of a file as events; returns how many.
async fn load(platform: &Platform, file: &Path) -> anyhow::Result<u64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.with_batch_size(BODY_EVENTS).build()?;
    let mut cells = 0;
    for rows in reader {
        let rows = rows?;
        let number = |index: usize| rows.column(index).as_primitive::<Int64Type>();
        let windows = rows.column(1).as_primitive::<TimestampMillisecondType>();
        let names = rows.column(0).as_string::<i32>();
        let mut body = String::new();
        for row in 0..rows.num_rows() {
            let (key, w) = (names.value(row), windows.value(row));
            let (n, total, who) = (number(2).value(row), number(3).value(row), number(4).value(row));
            writeln!(body, r#"{{"key":"{key}","w":{w},"n":{n},"total":{total},"who":{who}}}"#)?;
            cells += 1;
        }
        let payload = Payload { bytes: body.into_bytes().into(), ..Payload::default() };
        let told = platform
            .ingest()
            .context("the platform takes in no events")?
            .ingest("events", payload, IngestOptions::default())
            .await?;
        if told.accepted != rows.num_rows() as u64 {
            bail!("{told:?}");
        }
    }
    Ok(cells)
}
