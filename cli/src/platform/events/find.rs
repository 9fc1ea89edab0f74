//! From an id to a record: by the index of duplicates, by reading the log's tail, by reading the master.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use arrow::record_batch::RecordBatch;
use ingest::decode::decode;
use ingest::identity::{Identity, identities, partition};
use schemas::{Code, Limits, Offset, Partition, Problem, SqlType, StreamDef};
use serde_json::{Map, Value};
use storage::StorageError;
use storage::log::Log;
use storage::master::{Master, MasterFile};

use super::OpenStream;

/// Rows read at once.
const READ_ROWS: usize = 65_536;

/// The primary key that an id spells.
#[derive(Debug, Clone)]
pub(super) struct EventKey {
    /// The stream with its key columns alone: whatever else is wrong with a record, it has an id.
    keys: StreamDef,
    limits: Limits,
    pub(super) identity: Identity,
    partition: Partition,
}

/// A record with its position, in the log's columns.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) row: RecordBatch,
    /// The file of the master that holds it; none while it is only in the log.
    pub(super) file: Option<String>,
}

impl EventKey {
    /// An id as it stands in a path: the value of the key's one column, or a JSON array of all of them.
    pub(super) fn parse(stream: &StreamDef, limits: &Limits, id: &str) -> Result<Self, Problem> {
        if stream.primary_key.is_empty() {
            let detail = format!("stream {}: has no primary key: its events have no id", stream.name);
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let columns = stream.columns.iter().filter(|column| stream.primary_key.contains(&column.name));
        let keys = StreamDef { columns: columns.cloned().collect(), time_column: None, ..stream.clone() };
        let values = values(&keys, id)?;
        let record = Value::Object(keys.primary_key.iter().cloned().zip(values).collect::<Map<_, _>>()).to_string();
        let identity = identity_of(&keys, limits, record.as_bytes())?;
        Ok(Self { partition: partition(identity, stream.partitions), limits: limits.clone(), keys, identity })
    }

    /// True if these bytes are a record with this key.
    pub(super) fn is_key_of(&self, raw: &[u8]) -> bool {
        identity_of(&self.keys, &self.limits, raw).is_ok_and(|identity| identity == self.identity)
    }

    /// The last row with this key; `rows` have the key columns, in order.
    fn last_in(&self, rows: &RecordBatch) -> Result<Option<usize>, Problem> {
        let found = identities(&self.keys, rows)?.unwrap_or_default();
        Ok(found.iter().rposition(|identity| *identity == self.identity))
    }

    /// Where the key columns are in the stream's schemas.
    fn columns_in(&self, stream: &StreamDef) -> Vec<usize> {
        self.keys.columns.iter().filter_map(|column| stream.column_index(&column.name)).collect()
    }
}

fn values(keys: &StreamDef, id: &str) -> Result<Vec<Value>, Problem> {
    if let [name] = keys.primary_key.as_slice() {
        let sql_type = keys.column_index(name).map(|index| keys.columns[index].sql_type);
        let text = || Value::String(id.to_owned());
        return Ok(vec![match sql_type {
            Some(SqlType::Text | SqlType::Date | SqlType::TimestampTz) | None => text(),
            Some(_) => serde_json::from_str(id).unwrap_or_else(|_| text()),
        }]);
    }
    match serde_json::from_str::<Vec<Value>>(id) {
        Ok(values) if values.len() == keys.primary_key.len() => Ok(values),
        _ => {
            let detail = format!("id: expected a JSON array of {}", keys.primary_key.join(", "));
            Err(Problem::new(Code::BadRequest, detail))
        }
    }
}

fn identity_of(keys: &StreamDef, limits: &Limits, record: &[u8]) -> Result<Identity, Problem> {
    let whole: Range<usize> = 0..record.len();
    let decoded = decode(keys, limits, record, std::slice::from_ref(&whole))?;
    if let Some(bad) = decoded.bad.into_iter().next() {
        return Err(Problem::new(Code::BadRequest, format!("id: {}", bad.error.message)));
    }
    let found = identities(keys, &decoded.rows)?.and_then(|found| found.first().copied());
    found.ok_or_else(|| Problem::new(Code::Internal, "an id without an identity"))
}

/// The record at a position.
pub(super) async fn record(open: &OpenStream, partition: Partition, offset: Offset) -> Result<Found, Problem> {
    let master = Arc::clone(open.landing.master());
    let holder = master.files().iter().find(|file| holds(file, partition, offset)).cloned();
    let file = holder.as_ref().map(|file| file.path.clone());
    if offset >= open.log.start().offset(partition) {
        let frames = open.log.read(partition, offset, 1).await.map_err(|error| error.problem())?;
        if let Some(frame) = frames.first().filter(|frame| frame.rows.num_rows() > 0) {
            return Ok(Found { partition, offset, row: frame.rows.slice(0, 1), file });
        }
    }
    let missing = || Problem::new(Code::Internal, format!("record {partition}:{offset} is neither in log nor master"));
    let holder = holder.ok_or_else(missing)?;
    let columns = open.def.log_schema().fields().len();
    let row = blocking(move || read_one(&master, &holder, columns, offset)).await?;
    Ok(Found { partition, offset, row: row.ok_or_else(missing)?, file })
}

fn holds(file: &MasterFile, partition: Partition, offset: Offset) -> bool {
    file.partition == partition && (file.from..file.to).contains(&offset)
}

fn read_one(
    master: &Master,
    file: &MasterFile,
    columns: usize,
    offset: Offset,
) -> Result<Option<RecordBatch>, StorageError> {
    let reader = master.open_file(file)?;
    let columns: Vec<usize> = (0..columns).collect();
    let mut from = file.from;
    for group in 0..reader.row_groups() {
        let end = from + reader.rows_of(group) as u64;
        if offset >= end {
            from = end;
            continue;
        }
        for rows in reader.read(&columns, group..group + 1, READ_ROWS)? {
            let rows = rows?;
            let end = from + rows.num_rows() as u64;
            if offset < end {
                return Ok(Some(rows.slice((offset - from) as usize, 1)));
            }
            from = end;
        }
    }
    Ok(None)
}

/// The newest record with a key, by reading the key columns of its partition.
pub(super) async fn search(open: &Arc<OpenStream>, key: &EventKey) -> Result<Option<Found>, Problem> {
    let partition = key.partition;
    if let Some(offset) = search_log(open, key).await? {
        return record(open, partition, offset).await.map(Some);
    }
    // the search ends with whoever waits for it
    let given_up = GivenUp(Arc::new(AtomicBool::new(false)));
    let (master, key, columns) = (Arc::clone(open.landing.master()), key.clone(), key.columns_in(&open.def));
    let stop = Arc::clone(&given_up.0);
    let found = blocking(move || Ok(search_master(&master, &key, &columns, &stop))).await??;
    match found {
        Some(offset) => record(open, partition, offset).await.map(Some),
        None => Ok(None),
    }
}

struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What has not landed yet.
async fn search_log(open: &OpenStream, key: &EventKey) -> Result<Option<Offset>, Problem> {
    let (partition, log): (Partition, &dyn Log) = (key.partition, open.log.as_ref());
    let columns = key.columns_in(&open.def);
    let landed = open.landing.master().landed().offset(partition);
    let (mut from, head) = (landed.max(log.start().offset(partition)), log.head().offset(partition));
    let mut found = None;
    while from < head {
        let frames = log.read(partition, from, READ_ROWS).await.map_err(|error| error.problem())?;
        for frame in &frames {
            let keys = frame.rows.project(&columns).map_err(|error| internal(&error))?;
            found = key.last_in(&keys)?.map(|row| frame.base + row as u64).or(found);
        }
        match frames.last() {
            Some(last) if last.end() > from => from = last.end(),
            _ => break,
        }
    }
    Ok(found)
}

/// The newest file first.
fn search_master(
    master: &Master,
    key: &EventKey,
    columns: &[usize],
    stop: &AtomicBool,
) -> Result<Option<Offset>, Problem> {
    let mut files: Vec<MasterFile> =
        master.files().iter().filter(|file| file.partition == key.partition).cloned().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.from));
    for file in files {
        let reader = master.open_file(&file).map_err(|error| error.problem())?;
        let (mut from, mut found) = (file.from, None);
        for rows in reader.read(columns, 0..reader.row_groups(), READ_ROWS).map_err(|error| error.problem())? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let rows = rows.map_err(|error| error.problem())?;
            found = key.last_in(&rows)?.map(|row| from + row as u64).or(found);
            from += rows.num_rows() as u64;
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await.context("a search for an event");
    done.map_err(|error| internal(&error))?.map_err(|error| error.problem())
}

fn internal(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, format!("looking for an event: {error:#}"))
}
