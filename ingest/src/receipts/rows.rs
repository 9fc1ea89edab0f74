//! A receipt as a row. Stored: columns are added at the end, kinds keep their names.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use schemas::column::timestamp_type;
use schemas::documents::ledger::bucket_of;
use schemas::{IntakeCounts, Offset, Partition};

/// Rows of every log of receipts. It has one partition.
pub fn receipt_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields = vec![
            Field::new("kind", DataType::Utf8View, false),
            Field::new("partition", DataType::Int32, true),
            Field::new("at", timestamp_type(), false),
            Field::new("offset", DataType::Int64, true),
        ];
        fields.extend(COUNTS.map(|name| Field::new(name, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SCHEMA)
}

const COUNTS: [&str; 6] = ["received", "replayed", "accepted", "duplicates", "conflicts", "quarantined"];
/// Columns before the counts.
const FIXED: usize = 4;

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whatever stands before is in the rows that follow.
    Summary,
    /// Records of a partition and a bucket, by class.
    Counts,
    /// The first offset of a partition in a bucket.
    Boundary,
    /// A dead letter, by offset, that was replayed.
    Replayed,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Summary, Self::Counts, Self::Boundary, Self::Replayed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Counts => "counts",
            Self::Boundary => "boundary",
            Self::Replayed => "replayed",
        }
    }
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) partition: Option<Partition>,
    /// The bucket's start; of a replay, its time. Microseconds.
    pub(crate) at_us: i64,
    pub(crate) offset: Option<Offset>,
    pub(crate) counts: IntakeCounts,
}

impl Entry {
    pub(crate) fn summary() -> Self {
        Self { kind: Kind::Summary, partition: None, at_us: 0, offset: None, counts: IntakeCounts::default() }
    }

    pub(crate) fn counts(partition: Option<Partition>, bucket_us: i64, counts: IntakeCounts) -> Self {
        Self { kind: Kind::Counts, partition, at_us: bucket_us, offset: None, counts }
    }

    /// Records that were not let in.
    pub(crate) fn quarantined(append_us: i64, records: u64) -> Self {
        let counts = IntakeCounts { received: records, quarantined: records, ..IntakeCounts::default() };
        Self::counts(None, bucket_of(append_us), counts)
    }

    pub(crate) fn boundary(partition: Partition, bucket_us: i64, offset: Offset) -> Self {
        let (kind, counts) = (Kind::Boundary, IntakeCounts::default());
        Self { kind, partition: Some(partition), at_us: bucket_us, offset: Some(offset), counts }
    }

    pub(crate) fn replayed(letter: Offset, at_us: i64) -> Self {
        let (kind, counts) = (Kind::Replayed, IntakeCounts::default());
        Self { kind, partition: None, at_us, offset: Some(letter), counts }
    }
}

fn numbers(counts: &IntakeCounts) -> [u64; 6] {
    let IntakeCounts { received, replayed, accepted, duplicates, conflicts, quarantined } = *counts;
    [received, replayed, accepted, duplicates, conflicts, quarantined]
}

pub(super) fn encode(entries: &[Entry]) -> Result<RecordBatch, ArrowError> {
    let partitions = entries.iter().map(|entry| entry.partition.map(|partition| partition as i32));
    let times = TimestampMicrosecondArray::from_iter_values(entries.iter().map(|entry| entry.at_us));
    let offsets = entries.iter().map(|entry| entry.offset.map(|offset| offset as i64));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(entries.iter().map(|entry| Some(entry.kind.as_str())).collect::<StringViewArray>()),
        Arc::new(partitions.collect::<Int32Array>()),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(offsets.collect::<Int64Array>()),
    ];
    for index in 0..COUNTS.len() {
        let values = entries.iter().map(|entry| numbers(&entry.counts)[index] as i64);
        columns.push(Arc::new(Int64Array::from_iter_values(values)));
    }
    RecordBatch::try_new(receipt_schema(), columns)
}

/// The entries of a frame; none if it has not the columns or names a kind that this version does not know.
pub(super) fn decode(rows: &RecordBatch) -> Option<Vec<Entry>> {
    let kinds = rows.columns().first()?.as_string_view_opt()?;
    let partitions = rows.columns().get(1)?.as_primitive_opt::<Int32Type>()?;
    let times = rows.columns().get(2)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    let offsets = rows.columns().get(3)?.as_primitive_opt::<Int64Type>()?;
    let counts: Vec<&Int64Array> =
        (0..COUNTS.len()).map_while(|index| rows.columns().get(FIXED + index)?.as_primitive_opt()).collect();
    let mut entries = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let count = |index: usize| counts.get(index).map(|column| column.value(row) as u64);
        entries.push(Entry {
            kind: Kind::ALL.into_iter().find(|kind| kind.as_str() == kinds.value(row))?,
            partition: partitions.is_valid(row).then(|| partitions.value(row) as Partition),
            at_us: times.value(row),
            offset: offsets.is_valid(row).then(|| offsets.value(row) as Offset),
            counts: IntakeCounts {
                received: count(0)?,
                replayed: count(1)?,
                accepted: count(2)?,
                duplicates: count(3)?,
                conflicts: count(4)?,
                quarantined: count(5)?,
            },
        });
    }
    Some(entries)
}
