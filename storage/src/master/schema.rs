//! A stream's columns as Delta and Parquet have them.

use std::sync::Arc;

use delta_kernel::KernelResult;
use delta_kernel::schema::{ArrayType, DataType, SchemaRef, StructField, StructType};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use schemas::column::{APPEND_TIME, MAX_EVENT_TIME, OFFSET, PARTITION};
use schemas::{SqlType, StreamDef};

/// Rows of a row group: small enough that two cores can share one landing's file.
const ROW_GROUP_ROWS: usize = 524_288;
/// The fastest level: on random ids level 3 takes twice the time and saves nothing.
const ZSTD_LEVEL: i32 = 1;

/// The table's schema. Everything is nullable: a `NOT NULL` column of Delta is an invariant, which
/// not every reader accepts; that there are none is what ingest has checked.
pub(super) fn delta_schema(stream: &StreamDef) -> KernelResult<SchemaRef> {
    let mut fields = Vec::with_capacity(stream.columns.len() + 4);
    for column in &stream.columns {
        fields.push(StructField::nullable(&column.name, delta_type(column.sql_type)?));
    }
    fields.push(StructField::nullable(APPEND_TIME, DataType::TIMESTAMP));
    fields.push(StructField::nullable(MAX_EVENT_TIME, DataType::TIMESTAMP));
    fields.push(StructField::nullable(PARTITION, DataType::INTEGER));
    fields.push(StructField::nullable(OFFSET, DataType::LONG));
    Ok(Arc::new(StructType::try_new(fields)?))
}

/// The columns that files have statistics on, as the table says it. Unless it is said, delta-rs takes a
/// column without bounds for one without values, and its Arrow data set then finds no rows by it.
pub(super) fn statistics_columns(stream: &StreamDef) -> String {
    let names = [PARTITION, OFFSET, APPEND_TIME].into_iter().chain(stream.time_column.as_deref());
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let quoted =
        names.map(|name| if plain(name) { name.to_string() } else { format!("`{}`", name.replace('`', "``")) });
    quoted.collect::<Vec<_>>().join(",")
}

fn delta_type(sql_type: SqlType) -> KernelResult<DataType> {
    Ok(match sql_type {
        SqlType::Boolean => DataType::BOOLEAN,
        SqlType::SmallInt => DataType::SHORT,
        SqlType::Int => DataType::INTEGER,
        SqlType::BigInt => DataType::LONG,
        SqlType::Real => DataType::FLOAT,
        SqlType::Double => DataType::DOUBLE,
        // A scale below 0 is refused by Delta, and by `CREATE STREAM` before it.
        SqlType::Numeric { precision, scale } => DataType::decimal(precision, scale.unsigned_abs())?,
        SqlType::Text | SqlType::Json => DataType::STRING,
        SqlType::Date => DataType::DATE,
        SqlType::TimestampTz => DataType::TIMESTAMP,
        SqlType::Array(item) => ArrayType::new(delta_type(item.sql_type())?, true).into(),
    })
}

/// How the files are written: dictionaries where values repeat (Parquet falls back by itself),
/// differences for what rises, statistics for what readers prune by.
///
/// # Errors
/// Never for a stream that could be created.
pub fn writer_properties(stream: &StreamDef) -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_created_by("bifold".to_string())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(path(PARTITION), EnabledStatistics::Chunk);
    for column in &stream.columns {
        builder = match column.sql_type {
            SqlType::TimestampTz => rising(builder, &column.name),
            SqlType::SmallInt | SqlType::Int | SqlType::BigInt | SqlType::Date => {
                builder.set_column_encoding(path(&column.name), Encoding::DELTA_BINARY_PACKED)
            }
            _ => builder,
        };
    }
    builder = rising(builder, MAX_EVENT_TIME);
    for name in [APPEND_TIME, OFFSET].into_iter().chain(stream.time_column.as_deref()) {
        builder = rising(builder, name).set_column_statistics_enabled(path(name), EnabledStatistics::Chunk);
    }
    Ok(builder.build())
}

fn rising(builder: WriterPropertiesBuilder, name: &str) -> WriterPropertiesBuilder {
    builder
        .set_column_dictionary_enabled(path(name), false)
        .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED)
}

fn path(name: &str) -> ColumnPath {
    // One part: a dot in a name is no nesting.
    ColumnPath::new(vec![name.to_string()])
}
