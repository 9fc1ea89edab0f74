//! Segments of the embedded log: the frames that Kafka's log has in its records, too.
//!
//! An input is the bytes of the newest segment. Most mutations put the checksums right again: what is tried is what
//! comes behind them. What has to hold: the log opens or is damage with a reason; opened again it is the same; rows
//! that are read are appended to another log and read as the same; frames that nobody has touched become the same
//! bytes.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use schemas::Partition;
use storage::log::{EmbeddedLog, EmbeddedLogConfig, Frame, Log};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::Target;
use super::mutate::Mutator;

const PARTITIONS: u32 = 3;
const INCARNATION: Uuid = Uuid::from_u128(7);
const SEGMENT: &str = "00000000000000000000.log";
/// As in docs/adr/0001-log-frame.md: what is fixed of a segment's header and of a frame's.
const PROLOGUE: usize = 24;
const HEADER: usize = 32;
const ALIGNMENT: usize = 64;

pub(super) struct Segments {
    runtime: Runtime,
    /// In memory where there is such a folder: every opened log syncs.
    folder: TempDir,
    valid: Vec<Vec<u8>>,
    /// Of them the one whose appends have a frame each.
    one_by_one: Vec<u8>,
}

impl Segments {
    pub(super) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut segments = Self { runtime, folder: folder.unwrap(), valid: vec![], one_by_one: vec![] };
        segments.valid = vec![
            segments.written(&[]),
            segments.written(&[
                vec![(0, rows(0, 3))],
                vec![(2, rows(3, 7))],
                vec![(0, rows(10, 1))],
                vec![(1, rows(11, 9))],
            ]),
            segments.written(&[vec![(0, rows(0, 3)), (2, rows(3, 1))], vec![(1, rows(4, 20))], vec![(0, rows(24, 2))]]),
        ];
        segments.one_by_one = segments.valid[1].clone();
        segments
    }

    fn open(folder: &Path) -> Result<Arc<EmbeddedLog>, String> {
        EmbeddedLog::open(folder, schema(), INCARNATION, PARTITIONS, &EmbeddedLogConfig::default())
            .map_err(|error| error.to_string())
    }

    fn new_folder(&self) -> TempDir {
        tempfile::tempdir_in(self.folder.path()).unwrap()
    }

    /// The segment that these appends leave behind.
    fn written(&self, appends: &[Vec<(Partition, RecordBatch)>]) -> Vec<u8> {
        let folder = self.new_folder();
        let log = Self::open(folder.path()).unwrap();
        for append in appends {
            let pending = log.append(log.epoch(), append.clone()).unwrap();
            self.runtime.block_on(pending.durable()).unwrap();
        }
        self.runtime.block_on(log.close());
        drop(log);
        std::fs::read(folder.path().join(SEGMENT)).unwrap()
    }

    fn read(&self, folder: &Path) -> Result<Read, String> {
        let log = Self::open(folder)?;
        let mut read = Read { head: log.head().0, frames: vec![], refused: None };
        for partition in 0..PARTITIONS {
            let mut next = log.start().offset(partition);
            while next < log.head().offset(partition) {
                match self.runtime.block_on(log.read(partition, next, 10)) {
                    Ok(frames) if !frames.is_empty() => {
                        next = frames[frames.len() - 1].end();
                        read.frames.extend(frames);
                    }
                    Ok(_) => return Err(format!("partition {partition} has nothing at {next}, below its head")),
                    Err(refused) => {
                        read.refused = Some(refused.to_string());
                        break;
                    }
                }
            }
        }
        self.runtime.block_on(log.close());
        Ok(read)
    }

    /// A log that opens takes new rows, and they are read behind what was there.
    fn goes_on(&self, folder: &Path) -> Result<(), String> {
        let log = Self::open(folder)?;
        let from = log.head().offset(1);
        let appended = log.append(log.epoch(), vec![(1, rows(0, 2))]).map_err(|error| error.to_string())?;
        self.runtime.block_on(appended.durable()).map_err(|error| format!("opened, and not appended to: {error}"))?;
        let read = self.runtime.block_on(log.read(1, from, 10)).map_err(|error| error.to_string())?;
        self.runtime.block_on(log.close());
        if read.iter().map(|frame| frame.rows.num_rows()).sum::<usize>() == 2 {
            Ok(())
        } else {
            Err(format!("two rows were appended at {from}, and read as {read:?}"))
        }
    }
}

struct Read {
    head: Vec<u64>,
    frames: Vec<Frame>,
    refused: Option<String>,
}

fn rows(from: i64, count: i64) -> RecordBatch {
    let ids = (from..from + count).map(|n| (n % 4 > 0).then(|| format!("an id that is not inlined {n}")));
    let columns: [ArrayRef; 2] =
        [Arc::new(ids.collect::<StringViewArray>()), Arc::new(Int64Array::from_iter_values(from..from + count))];
    RecordBatch::try_new(schema(), columns.to_vec()).unwrap()
}

fn schema() -> SchemaRef {
    use arrow::datatypes::{DataType, Field, Schema};
    Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8View, true), Field::new("n", DataType::Int64, false)]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Puts the checksums right of everything that has the shape of a header or a frame.
fn repair(bytes: &mut [u8]) {
    let Some(rest) = u32_at(bytes, 12).map(|rest| rest as usize) else { return };
    let Some(header) = bytes.get(PROLOGUE..PROLOGUE.saturating_add(rest)) else { return };
    let crc = crc32fast::hash(header);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    let mut at = PROLOGUE + rest;
    while let Some(length) = u32_at(bytes, at).map(|length| length as usize) {
        let Some(frame) = bytes.get(at + 8..at.saturating_add(length)) else { return };
        if length < HEADER {
            return;
        }
        let crc = crc32fast::hash(frame);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at += length.next_multiple_of(ALIGNMENT);
    }
}

impl Target for Segments {
    fn seeds(&self) -> Vec<Vec<u8>> {
        self.valid.clone()
    }

    fn mutate(&self, mutator: &mut Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = mutator.bytes(input, other, &[]);
        if !mutator.one_in(8) {
            repair(&mut bytes);
        }
        bytes
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        let folder = self.new_folder();
        std::fs::write(folder.path().join(SEGMENT), input).unwrap();
        let first = match self.read(folder.path()) {
            Ok(read) => read,
            Err(refused) => return Ok(refused),
        };
        let second = self.read(folder.path()).map_err(|error| format!("opened, and not again: {error}"))?;
        if first.head != second.head || first.frames.len() != second.frames.len() {
            return Err(format!("{:?} and then {:?}", first.head, second.head));
        }
        if self.valid.iter().any(|valid| valid == input) {
            let total: usize = first.frames.iter().map(|frame| frame.rows.num_rows()).sum();
            if first.refused.is_some() || total as u64 != first.head.iter().sum::<u64>() {
                return Err(format!("a whole segment is read as {total} rows, {:?}", first.refused));
            }
        }
        if *input == self.one_by_one {
            let mut frames = first.frames.clone();
            frames.sort_by_key(|frame| frame.rows.column(1).as_primitive::<Int64Type>().value(0));
            let appends: Vec<_> = frames.into_iter().map(|frame| vec![(frame.partition, frame.rows)]).collect();
            if self.written(&appends) != input {
                return Err("what was read of a segment is written as other bytes".into());
            }
        }
        self.same_in_another_log(&first)?;
        self.goes_on(folder.path())?;
        Ok(first.refused.unwrap_or_else(|| "read".into()))
    }
}

impl Segments {
    fn same_in_another_log(&self, read: &Read) -> Result<(), String> {
        let folder = self.new_folder();
        let log = Self::open(folder.path())?;
        for frame in &read.frames {
            let appended = log.append(log.epoch(), vec![(frame.partition, frame.rows.clone())]);
            let pending = appended.map_err(|error| format!("read, and not appended: {error}"))?;
            self.runtime.block_on(pending.durable()).map_err(|error| error.to_string())?;
        }
        self.runtime.block_on(log.close());
        drop(log);
        let again = self.read(folder.path())?;
        let of = |frames: &[Frame], partition| -> Vec<RecordBatch> {
            frames.iter().filter(|frame| frame.partition == partition).map(|frame| frame.rows.clone()).collect()
        };
        match (0..PARTITIONS).find(|partition| of(&read.frames, *partition) != of(&again.frames, *partition)) {
            Some(partition) => Err(format!("partition {partition} is read again as other rows")),
            None => Ok(()),
        }
    }
}
