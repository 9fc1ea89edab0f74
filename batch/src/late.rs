//! The list of the events that a run left out as late: every one of them, as a Parquet file.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use schemas::column::{OFFSET, PARTITION};
use schemas::{Offset, Partition, Problem, StreamDef};

use crate::internal;
use crate::recompute::{Records, Unit};

/// Columns of the log schema that are listed: event time and primary key.
fn listed_columns(stream: &StreamDef) -> Vec<usize> {
    let time = stream.time_column.iter();
    let names = time.chain(stream.primary_key.iter());
    let mut columns: Vec<usize> = names.filter_map(|name| stream.column_index(name)).collect();
    let mut seen = std::collections::BTreeSet::new();
    columns.retain(|column| seen.insert(*column));
    columns
}

/// Reads the listed columns of the given positions, in order, and encodes them with partition and
/// offset. Only the units that hold one are read. Blocks.
///
/// # Errors
/// A unit cannot be read.
pub fn encode(records: &dyn Records, stream: &StreamDef, late: &[(Partition, Offset)]) -> Result<Vec<u8>, Problem> {
    let columns = listed_columns(stream);
    let schema = schema(stream, &columns)?;
    let mut file = Vec::new();
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(&mut file, Arc::clone(&schema), Some(properties)).map_err(internal)?;
    for (unit, offsets) in by_unit(records, late) {
        write_unit(records, &columns, unit, &offsets, &mut |rows| {
            writer.write(&with_positions(&schema, unit, rows)?).map_err(internal)
        })?;
    }
    writer.close().map_err(internal)?;
    Ok(file)
}

fn schema(stream: &StreamDef, columns: &[usize]) -> Result<SchemaRef, Problem> {
    let mut fields = vec![Field::new(PARTITION, DataType::Int32, false), Field::new(OFFSET, DataType::Int64, false)];
    let listed = stream.log_schema().project(columns).map_err(internal)?;
    fields.extend(listed.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)));
    Ok(Arc::new(Schema::new(fields)))
}

/// Units with the late offsets in them, by partition and offset.
fn by_unit<'a>(records: &'a dyn Records, late: &[(Partition, Offset)]) -> Vec<(&'a Unit, Vec<Offset>)> {
    let mut by_partition: BTreeMap<Partition, Vec<Offset>> = BTreeMap::new();
    for (partition, offset) in late {
        by_partition.entry(*partition).or_default().push(*offset);
    }
    let mut units: Vec<&Unit> = records.units().iter().collect();
    units.sort_by_key(|unit| (unit.partition, unit.offsets.start));
    let offsets_in = |unit: &Unit| -> Vec<Offset> {
        let offsets = by_partition.get(&unit.partition).map_or(&[][..], Vec::as_slice);
        let from = offsets.partition_point(|offset| *offset < unit.offsets.start);
        let to = offsets.partition_point(|offset| *offset < unit.offsets.end);
        offsets[from..to].to_vec()
    };
    units.into_iter().map(|unit| (unit, offsets_in(unit))).filter(|(_, offsets)| !offsets.is_empty()).collect()
}

type Chosen<'a> = (&'a [Offset], RecordBatch);

fn write_unit(
    records: &dyn Records,
    columns: &[usize],
    unit: &Unit,
    offsets: &[Offset],
    each: &mut dyn FnMut(Chosen<'_>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut start = unit.offsets.start;
    records.read(unit, columns, &mut |rows| {
        let end = start + rows.num_rows() as u64;
        let from = offsets.partition_point(|offset| *offset < start);
        let to = offsets.partition_point(|offset| *offset < end);
        let chosen = &offsets[from..to];
        if !chosen.is_empty() {
            let indices = UInt32Array::from_iter_values(chosen.iter().map(|offset| (offset - start) as u32));
            let rows = if columns.is_empty() {
                rows.slice(0, chosen.len())
            } else {
                take_record_batch(&rows, &indices).map_err(internal)?
            };
            each((chosen, rows))?;
        }
        start = end;
        Ok(())
    })
}

fn with_positions(schema: &SchemaRef, unit: &Unit, (offsets, rows): Chosen<'_>) -> Result<RecordBatch, Problem> {
    let partition: ArrayRef = Arc::new(Int32Array::from_value(unit.partition as i32, offsets.len()));
    let offset: ArrayRef = Arc::new(Int64Array::from_iter_values(offsets.iter().map(|offset| *offset as i64)));
    let columns = [partition, offset].into_iter().chain(rows.columns().iter().cloned()).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(internal)
}
