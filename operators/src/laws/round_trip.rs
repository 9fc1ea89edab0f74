//! States through the two file formats they are kept in.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::common::Result;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::call::States;

/// Writes and reads an Arrow IPC stream.
pub(crate) fn through_ipc(states: &States) -> Result<States> {
    let bytes = ipc_bytes(states.rows())?;
    let rows = StreamReader::try_new(bytes.as_slice(), None)?.collect::<Result<Vec<_>, _>>()?;
    States::of_parts(states.rows().schema_ref(), &rows)
}

/// The rows as an Arrow IPC stream.
pub(crate) fn ipc_bytes(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
    writer.write(rows)?;
    Ok(writer.into_inner()?)
}

/// Writes and reads a Parquet file, with the schema given on reading as the platform does.
pub(crate) fn through_parquet(states: &States) -> Result<States> {
    let schema = states.rows().schema();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None)?;
    writer.write(states.rows())?;
    let bytes = writer.into_inner()?;
    let options = ArrowReaderOptions::new().with_schema(schema.clone());
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes::Bytes::from(bytes), options)?.build()?;
    States::of_parts(&schema, &reader.collect::<Result<Vec<_>, _>>()?)
}
