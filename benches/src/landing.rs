//! Landing: rows into the master, beside `parquet`'s writer with the same settings on the same rows, as many threads,
//! files synced; and from the log on disk, as it happens.
//!
//! MB are of the rows in memory. What both have written is read back and compared with the rows.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use batch::Landing;
use batch::landing::LandingParts;
use clap::Args;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use schemas::{ColumnDef, Cut, LatePolicy, Limits, OnBadData, SqlType, StreamDef};
use serde_json::json;
use storage::clock::SystemClock;
use storage::log::{EmbeddedLog, EmbeddedLogConfig, Frame, Log, MemoryLog};
use storage::master::{Master, writer_properties};
use storage::store::Store;
use uuid::Uuid;

use crate::events::{body, push_event};
use crate::measure::{Clock, at_least, median, report_value};

/// Partitions: one thread each on both sides.
const PARTITIONS: u32 = 2;
/// Rows of a frame.
const FRAME_ROWS: u64 = 32_768;
/// What the goal asks for.
const RATIO_MIN: f64 = 0.8;

#[derive(Args)]
pub(crate) struct Options {
    /// A folder for what is written; emptied first.
    #[arg(long)]
    dir: PathBuf,
    /// Rows of 245-byte events.
    #[arg(long, default_value_t = 4_000_000)]
    rows: u64,
    /// How often each contestant writes them.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// What one way took.
#[derive(Default)]
struct Times {
    wall_s: Vec<f64>,
    cpu_s: Vec<f64>,
}

impl Times {
    fn add(&mut self, clock: &Clock) {
        let (wall_s, cpu_s) = clock.read();
        self.wall_s.push(wall_s);
        self.cpu_s.push(cpu_s);
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let stream = Arc::new(stream());
    let landings = frames(&stream, options.rows)?;
    let bytes: usize = landings.iter().flatten().map(|frame| bytes_of(&frame.rows)).sum();
    let (mut plain, mut master, mut from_log) = (Times::default(), Times::default(), Times::default());
    // one more, which warms memory and disk up, does not count
    for round in 0..=options.rounds {
        if round == 1 {
            (plain, master, from_log) = (Times::default(), Times::default(), Times::default());
        }
        empty(&options.dir)?;
        let (folder, rows, def) = (options.dir.join("plain"), landings.clone(), Arc::clone(&stream));
        std::fs::create_dir_all(&folder)?;
        let clock = Clock::start();
        tokio::task::spawn_blocking(move || write_plainly(&folder, &def, &rows)).await??;
        plain.add(&clock);
        check(&options.dir.join("plain"), &landings)?;
        land(&options.dir.join("memory"), &stream, &landings, &mut master).await?;
        land_from_log(&options.dir.join("log"), &stream, &landings, &mut from_log).await?;
    }
    empty(&options.dir)?;
    let megabytes = bytes as f64 / 1e6;
    let rate = |times: &Times| megabytes / median(times.wall_s.clone());
    let contestants =
        [("parquet writer", &plain), ("bifold landing", &master), ("bifold landing, from the log on disk", &from_log)];
    for (peer, times) in contestants {
        let mut result = json!({
            "w": "landing", "peer": peer, "rows": options.rows, "mb_per_s": rate(times).round(),
            "wall_s": median(times.wall_s.clone()), "cpu_s": median(times.cpu_s.clone()),
        });
        if peer.starts_with("bifold") {
            let what = format!("MB/s of {peer} beside a plain Parquet writer");
            result["goals"] = json!([at_least(&what, rate(times) / rate(&plain), RATIO_MIN)]);
        }
        report_value(&result);
    }
    Ok(())
}

fn empty(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(std::fs::create_dir_all(folder)?),
    }
}

fn stream() -> StreamDef {
    let text = |name: &str| ColumnDef { name: name.into(), sql_type: SqlType::Text, nullable: true };
    let mut columns: Vec<ColumnDef> = ["user_id", "page_id", "ad_id", "ad_type", "event_type"].map(text).into();
    columns.push(ColumnDef { name: "event_time".into(), sql_type: SqlType::TimestampTz, nullable: false });
    columns.push(text("ip_address"));
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "events".into(),
        columns,
        primary_key: vec![],
        time_column: Some("event_time".into()),
        watermark_delay_us: 5_000_000,
        partitions: PARTITIONS,
        dedup_horizon_us: 0,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: 0,
    }
}

/// The rows as frames of both partitions, by landings of as many bytes as the platform's own.
fn frames(stream: &StreamDef, rows: u64) -> anyhow::Result<Vec<Vec<Frame>>> {
    let (mut landings, mut open, mut open_bytes) = (vec![], vec![], 0);
    let mut bases = [0; PARTITIONS as usize];
    for (index, from) in (0..rows).step_by(FRAME_ROWS as usize).enumerate() {
        let partition = index as u32 % PARTITIONS;
        let rows = rows_of(stream, from..(from + FRAME_ROWS).min(rows))?;
        let base = bases[partition as usize];
        bases[partition as usize] += rows.num_rows() as u64;
        open_bytes += bytes_of(&rows);
        open.push(Frame { partition, base, rows });
        if open_bytes >= Limits::default().landing_bytes && partition == PARTITIONS - 1 {
            landings.push(std::mem::take(&mut open));
            open_bytes = 0;
        }
    }
    landings.push(open);
    Ok(landings)
}

/// Rows as the log has them.
fn rows_of(stream: &StreamDef, numbers: std::ops::Range<u64>) -> anyhow::Result<RecordBatch> {
    let lines = body(numbers, push_event);
    let mut texts: [Vec<String>; 6] = Default::default();
    let mut times = vec![];
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: serde_json::Value = serde_json::from_slice(line)?;
        let names = ["user_id", "page_id", "ad_id", "ad_type", "event_type", "ip_address"];
        for (text, name) in texts.iter_mut().zip(names) {
            text.push(event[name].as_str().context("a text")?.to_owned());
        }
        times.push(event["event_time"].as_i64().context("a time")? * 1_000);
    }
    let mut columns: Vec<ArrayRef> =
        texts.iter().map(|text| Arc::new(StringViewArray::from_iter_values(text)) as ArrayRef).collect();
    let time = |times: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef;
    columns.insert(5, time(times.clone()));
    columns.push(time(vec![1_767_225_600_000_000; times.len()]));
    let largest = times.iter().scan(i64::MIN, |largest, time| {
        *largest = (*largest).max(*time);
        Some(*largest)
    });
    columns.push(time(largest.collect()));
    let schema = stream.log_schema();
    let typed = columns.iter().zip(schema.fields()).map(|(values, field)| cast(values, field.data_type()));
    Ok(RecordBatch::try_new(Arc::clone(&schema), typed.collect::<Result<_, _>>()?)?)
}

fn bytes_of(rows: &RecordBatch) -> usize {
    let bytes = |values: &ArrayRef| match values.as_any().downcast_ref::<StringViewArray>() {
        Some(texts) => texts.len() * 16 + texts.total_buffer_bytes_used(),
        None => values.to_data().get_slice_memory_size().unwrap_or_default(),
    };
    rows.columns().iter().map(bytes).sum()
}

/// What the master's files hold: the rows, their partition and their offsets.
fn record(stream: &StreamDef, frame: &Frame) -> anyhow::Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = frame.rows.columns().to_vec();
    columns.push(Arc::new(Int32Array::from_value(frame.partition as i32, frame.rows.num_rows())));
    columns.push(Arc::new(Int64Array::from_iter_values(frame.base as i64..frame.end() as i64)));
    Ok(RecordBatch::try_new(stream.record_schema(), columns)?)
}

/// One file a partition and landing, both partitions at the same time.
fn write_plainly(folder: &Path, stream: &StreamDef, landings: &[Vec<Frame>]) -> anyhow::Result<()> {
    for (number, frames) in landings.iter().enumerate() {
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..PARTITIONS)
                .map(|partition| {
                    let path = folder.join(format!("part-{partition:05}-{number:05}.parquet"));
                    scope.spawn(move || write_file(&path, stream, frames.iter().filter(|f| f.partition == partition)))
                })
                .collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().unwrap_or_else(|_| anyhow::bail!("a writer panicked")))
        })?;
    }
    Ok(())
}

fn write_file<'a>(path: &Path, stream: &StreamDef, frames: impl Iterator<Item = &'a Frame>) -> anyhow::Result<()> {
    let options = ArrowWriterOptions::new().with_properties(writer_properties(stream)?).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(File::create(path)?, stream.record_schema(), options)?;
    for frame in frames {
        writer.write(&record(stream, frame)?)?;
    }
    Ok(writer.into_inner()?.sync_all()?)
}

async fn open_master(folder: &Path, stream: &StreamDef) -> anyhow::Result<Arc<Master>> {
    std::fs::create_dir_all(folder)?;
    let store = Store::open(folder.to_str().context("the folder's name")?)?;
    Ok(Master::open_in(&store, stream, Arc::new(SystemClock)).await?)
}

async fn land(folder: &Path, stream: &StreamDef, landings: &[Vec<Frame>], times: &mut Times) -> anyhow::Result<()> {
    let master = open_master(folder, stream).await?;
    let clock = Clock::start();
    for frames in landings {
        master.land(frames.clone()).await?;
    }
    times.add(&clock);
    check(&folder.join("master").join(stream.id.to_string()), landings)
}

/// As [`Landing`] does it: reads what is no longer in memory from the log's segments.
async fn land_from_log(
    folder: &Path,
    stream: &Arc<StreamDef>,
    landings: &[Vec<Frame>],
    times: &mut Times,
) -> anyhow::Result<()> {
    let master = open_master(folder, stream).await?;
    let config = EmbeddedLogConfig { tail_bytes_max: 1, ..EmbeddedLogConfig::default() };
    let log = EmbeddedLog::open(&folder.join("log"), stream.log_schema(), stream.incarnation, PARTITIONS, &config)?;
    for frame in landings.iter().flatten() {
        log.append(log.epoch(), vec![(frame.partition, frame.rows.clone())])?.durable().await?;
    }
    let head = log.head();
    let landing = Landing::new(LandingParts {
        stream: Arc::clone(stream),
        log: log as Arc<dyn Log>,
        dead_letters: MemoryLog::new(stream.incarnation, 1),
        master: Arc::clone(&master),
        durable: Arc::new(|| None::<Cut>),
        clock: Arc::new(SystemClock),
        limits: Limits::default(),
        at_once: Arc::new(tokio::sync::Semaphore::new(1)),
    });
    let clock = Clock::start();
    landing.land_to(&head).await.map_err(|problem| anyhow::anyhow!(problem.text()))?;
    times.add(&clock);
    check(&folder.join("master").join(stream.id.to_string()), landings)
}

/// The files of a folder hold exactly these rows, partition after partition, in order.
fn check(folder: &Path, landings: &[Vec<Frame>]) -> anyhow::Result<()> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|file| Ok(file?.path())).collect::<anyhow::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "parquet"));
    // the names begin with partition and first offset
    files.sort();
    let mut frames: Vec<&Frame> = landings.iter().flatten().collect();
    frames.sort_by_key(|frame| (frame.partition, frame.base));
    let mut wanted = frames.into_iter().map(|frame| frame.rows.clone());
    let mut open = wanted.next();
    for file in &files {
        for rows in ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.with_batch_size(65_536).build()? {
            let mut rows = rows?;
            while rows.num_rows() > 0 {
                let frame = open.take().filter(|frame| frame.num_rows() > 0).or_else(|| wanted.next());
                let frame = frame.with_context(|| format!("{}: more rows than were written", folder.display()))?;
                let common = frame.num_rows().min(rows.num_rows());
                ensure!(are_equal(&frame.slice(0, common), &rows.slice(0, common))?, "{}: other rows", file.display());
                rows = rows.slice(common, rows.num_rows() - common);
                open = Some(frame.slice(common, frame.num_rows() - common));
            }
        }
    }
    let rest = open.map_or(0, |rows| rows.num_rows()) + wanted.map(|rows| rows.num_rows()).sum::<usize>();
    ensure!(rest == 0, "{}: {rest} rows are missing", folder.display());
    Ok(())
}

/// The log's columns; a file has partition and offset behind them.
fn are_equal(frame: &RecordBatch, stored: &RecordBatch) -> anyhow::Result<bool> {
    for (values, field) in frame.columns().iter().zip(frame.schema().fields()) {
        let stored = stored.column_by_name(field.name()).with_context(|| field.name().clone())?;
        if cast(stored, field.data_type())?.as_ref() != values.as_ref() {
            return Ok(false);
        }
    }
    Ok(true)
}
