//! One file of the master: what the Delta log says about it, both ways.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, MapBuilder, MapFieldNames, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use schemas::column::{APPEND_TIME, OFFSET, PARTITION};
use schemas::{Offset, Partition};
use serde_json::Value;

use crate::error::StorageError;

const MILLISECOND_US: i64 = 1_000;
/// Among a file's statistics in the table's log.
const CHECKSUMS: &str = "bifoldChecksums";
/// 0001-01-01: what every reader of the log can parse. Times outside go without statistics.
const STATISTICS_FROM_US: i64 = -62_135_596_800_000_000;
/// 9999-12-31.
const STATISTICS_TO_US: i64 = 253_402_214_400_000_000;

/// Records `[from, to)` of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterFile {
    /// As the Delta log has it: relative to the table's root.
    pub path: String,
    /// The partition.
    pub partition: Partition,
    /// Offset of its first record.
    pub from: Offset,
    /// First offset beyond.
    pub to: Offset,
    /// Records in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// No event time in it is earlier or later, microseconds; none if it has none, or the stream.
    pub event_time_us: Option<(i64, i64)>,
    /// XXH3-64 of every mebibyte of it, 16 hexadecimal digits each; empty if they are not known.
    pub checksums: String,
}

/// Smallest and largest value of a time column, and its nulls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeRange {
    bounds: Option<(i64, i64)>,
    nulls: u64,
}

impl TimeRange {
    /// Takes more values in.
    pub(super) fn add(&mut self, column: &ArrayRef) {
        self.nulls += column.null_count() as u64;
        let Some(times) = column.as_any().downcast_ref::<TimestampMicrosecondArray>() else { return };
        let (Some(min), Some(max)) = (arrow::compute::min(times), arrow::compute::max(times)) else { return };
        let (low, high) = self.bounds.unwrap_or((min, max));
        self.bounds = Some((low.min(min), high.max(max)));
    }

    /// In whole milliseconds, outwards: the Delta log has no finer ones.
    fn in_milliseconds(&self) -> Option<(i64, i64)> {
        let (min, max) = self.bounds?;
        if min < STATISTICS_FROM_US || max > STATISTICS_TO_US {
            return None;
        }
        let floor = min.div_euclid(MILLISECOND_US);
        let ceiling = max.div_euclid(MILLISECOND_US) + i64::from(max.rem_euclid(MILLISECOND_US) > 0);
        Some((floor * MILLISECOND_US, ceiling * MILLISECOND_US))
    }
}

/// A file that was written and is not in the table yet.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) file: MasterFile,
    /// Milliseconds since the epoch.
    pub(super) at_ms: i64,
    append_time: TimeRange,
    event_time: TimeRange,
}

impl Written {
    /// Completes `file`'s event time from what was seen.
    pub(super) fn new(file: MasterFile, at_ms: i64, append_time: TimeRange, event_time: TimeRange) -> Self {
        let file = MasterFile { event_time_us: event_time.in_milliseconds(), ..file };
        Self { file, at_ms, append_time, event_time }
    }
}

/// The rows of `add` actions, as the kernel wants them.
pub(super) fn add_actions(files: &[Written], time_column: Option<&str>) -> Result<RecordBatch, ArrowError> {
    let paths = StringArray::from_iter_values(files.iter().map(|w| &w.file.path));
    let sizes = Int64Array::from_iter_values(files.iter().map(|w| w.file.bytes as i64));
    let times = Int64Array::from_iter_values(files.iter().map(|w| w.at_ms));
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut partition_values = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for _ in files {
        partition_values.append(true)?;
    }
    let columns: [(&str, ArrayRef, bool); 5] = [
        ("path", Arc::new(paths), false),
        ("partitionValues", Arc::new(partition_values.finish()), false),
        ("size", Arc::new(sizes), false),
        ("modificationTime", Arc::new(times), false),
        ("stats", Arc::new(statistics(files, time_column)?), true),
    ];
    let fields: Vec<_> = columns.iter().map(|(n, a, null)| Field::new(*n, a.data_type().clone(), *null)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array, _)| array).collect())
}

fn statistics(files: &[Written], time_column: Option<&str>) -> Result<StructArray, ArrowError> {
    let partitions = || Arc::new(Int32Array::from_iter_values(files.iter().map(|w| w.file.partition as i32)));
    let offsets = |offset: fn(&MasterFile) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(files.iter().map(|w| offset(&w.file) as i64)))
    };
    let times = |range: fn(&Written) -> &TimeRange, pick: fn((i64, i64)) -> i64| -> ArrayRef {
        let values = files.iter().map(|w| range(w).in_milliseconds().map(pick));
        Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let counts = |count: fn(&Written) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(files.iter().map(|w| count(w) as i64)))
    };
    let mut minima: Vec<(&str, ArrayRef)> = vec![
        (PARTITION, partitions()),
        (OFFSET, offsets(|f| f.from)),
        (APPEND_TIME, times(|w| &w.append_time, |t| t.0)),
    ];
    let mut maxima: Vec<(&str, ArrayRef)> = vec![
        (PARTITION, partitions()),
        (OFFSET, offsets(|f| f.to - 1)),
        (APPEND_TIME, times(|w| &w.append_time, |t| t.1)),
    ];
    let mut nulls: Vec<(&str, ArrayRef)> =
        vec![(PARTITION, counts(|_| 0)), (OFFSET, counts(|_| 0)), (APPEND_TIME, counts(|w| w.append_time.nulls))];
    if let Some(name) = time_column {
        minima.push((name, times(|w| &w.event_time, |t| t.0)));
        maxima.push((name, times(|w| &w.event_time, |t| t.1)));
        nulls.push((name, counts(|w| w.event_time.nulls)));
    }
    structure(vec![
        ("numRecords", counts(|w| w.file.rows)),
        ("nullCount", Arc::new(structure(nulls)?)),
        ("minValues", Arc::new(structure(minima)?)),
        ("maxValues", Arc::new(structure(maxima)?)),
        ("tightBounds", Arc::new(BooleanArray::from(vec![true; files.len()]))),
        // nobody else's: other readers of the table pass it over
        (CHECKSUMS, Arc::new(StringArray::from_iter_values(files.iter().map(|w| &w.file.checksums)))),
    ])
}

fn structure(columns: Vec<(&str, ArrayRef)>) -> Result<StructArray, ArrowError> {
    let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    StructArray::try_new(fields.into(), columns.into_iter().map(|(_, array)| array).collect(), None)
}

/// Reads what [`add_actions`] has told the table about a file.
pub(super) fn from_log(
    path: &str,
    bytes: i64,
    stats: Option<&str>,
    time_column: Option<&str>,
) -> Result<MasterFile, StorageError> {
    let damaged = |reason: &str| StorageError::Damaged { path: path.to_string(), reason: reason.to_string() };
    let stats: Value = serde_json::from_str(stats.unwrap_or("null")).map_err(|e| damaged(&e.to_string()))?;
    let number = |side: &str, name: &str| {
        stats[side][name].as_u64().ok_or_else(|| damaged(&format!("the table's log lacks {side} of {name}")))
    };
    let partition = number("minValues", PARTITION)?;
    let (from, last) = (number("minValues", OFFSET)?, number("maxValues", OFFSET)?);
    let rows = stats["numRecords"].as_u64().ok_or_else(|| damaged("the table's log lacks its rows"))?;
    if number("maxValues", PARTITION)? != partition {
        return Err(damaged("it holds several partitions: another program has rewritten it"));
    }
    let time = |side: &str| {
        let text = stats[side][time_column?].as_str()?;
        chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
    };
    Ok(MasterFile {
        path: path.to_string(),
        partition: u32::try_from(partition).map_err(|_| damaged("its partition is no partition"))?,
        from,
        to: last + 1,
        rows,
        bytes: bytes.unsigned_abs(),
        event_time_us: time("minValues").zip(time("maxValues")),
        checksums: stats[CHECKSUMS].as_str().unwrap_or_default().to_string(),
    })
}

/// The columns of the kernel's list of files that [`from_log`] needs.
pub(super) fn files_of(
    rows: &RecordBatch,
    selected: &[bool],
    time_column: Option<&str>,
) -> Result<Vec<MasterFile>, StorageError> {
    let column = |name: &str| {
        rows.column_by_name(name)
            .ok_or_else(|| StorageError::io("reading the table's log", format!("no column {name}")))
    };
    let text = |name: &str| -> Result<StringArray, StorageError> {
        let cast = arrow::compute::cast(column(name)?, &DataType::Utf8);
        cast.map(|array| StringArray::from(array.to_data())).map_err(|e| StorageError::io("reading the table's log", e))
    };
    let (paths, stats) = (text("path")?, text("stats")?);
    let sizes = Int64Array::from(column("size")?.to_data());
    (0..rows.num_rows())
        // A selection that is too short selects the rest.
        .filter(|&row| selected.get(row).copied().unwrap_or(true) && paths.is_valid(row))
        .map(|row| {
            let stats = stats.is_valid(row).then(|| stats.value(row));
            from_log(paths.value(row), sizes.value(row), stats, time_column)
        })
        .collect()
}
