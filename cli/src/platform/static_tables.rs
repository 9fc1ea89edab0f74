//! Static tables: rows read from CSV, kept as Parquet in the store.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use operators::StaticTable;
use operators::validity::with_ends;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::limits::TABLE_ROWS_MAX;
use schemas::{Code, ColumnDef, Problem, TableDef, TableJoin};
use storage::paths;
use storage::store::Store;

pub(crate) fn schema_of(columns: &[ColumnDef]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(ColumnDef::field).collect::<Vec<_>>()))
}

/// Reads CSV with a header line that names the declared columns, in any order; others are ignored.
pub(crate) fn parse_csv(def: &TableDef, text: &str) -> Result<RecordBatch, Problem> {
    let (name, columns) = (&def.name, &def.columns);
    let bad = |what: String| Problem::new(Code::BadRequest, format!("table {name}: {what}"));
    let header = text.lines().next().ok_or_else(|| bad("the file is empty".into()))?;
    let names: Vec<String> = header.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect();
    let mut projection = vec![];
    for column in columns {
        let index = names.iter().position(|known| *known == column.name);
        projection.push(index.ok_or_else(|| bad(format!("the header line has no column {}: {header}", column.name)))?);
    }
    // text is read as Utf8 and brought to the one string type afterwards
    let read_as = |index: usize, known: &str| match projection.iter().position(|p| *p == index) {
        Some(declared) if columns[declared].sql_type.arrow() != DataType::Utf8View => columns[declared].field(),
        _ => Field::new(known, DataType::Utf8, true),
    };
    let fields: Vec<Field> = names.iter().enumerate().map(|(index, known)| read_as(index, known)).collect();
    let reader = arrow::csv::ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_header(true)
        .with_projection(projection.clone())
        .build(Cursor::new(text.as_bytes()))
        .map_err(|e| bad(e.to_string()))?;
    let parts: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(|e| bad(e.to_string()))?;
    let schema = schema_of(columns);
    let mut typed = vec![];
    for rows in &parts {
        typed.push(in_order(rows, columns, &schema).map_err(|e| bad(e.to_string()))?);
    }
    let rows = concat_batches(&schema, &typed).map_err(|e| bad(e.to_string()))?;
    if rows.num_rows() > TABLE_ROWS_MAX {
        return Err(bad(format!("{} rows; at most {TABLE_ROWS_MAX}", rows.num_rows())));
    }
    Ok(rows)
}

fn in_order(
    rows: &RecordBatch,
    columns: &[ColumnDef],
    schema: &SchemaRef,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let values = columns.iter().map(|column| -> Result<ArrayRef, arrow::error::ArrowError> {
        let index = rows.schema().index_of(&column.name)?;
        cast(rows.column(index), &column.sql_type.arrow())
    });
    RecordBatch::try_new(Arc::clone(schema), values.collect::<Result<_, _>>()?)
}

/// Keeps a version of a table.
pub(crate) async fn save(store: &Store, def: &TableDef, rows: &RecordBatch) -> Result<(), Problem> {
    let internal = |e: parquet::errors::ParquetError| Problem::new(Code::Internal, e.to_string());
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).map_err(internal)?;
    writer.write(rows).map_err(internal)?;
    writer.close().map_err(internal)?;
    let path = paths::table(def.id, def.version);
    if def.version > 1 {
        // a replacement that was cut short may have left it; the catalogue never named it
        store.delete(&path).await.map_err(|e| e.problem())?;
    }
    store.put_new(&path, bytes.into()).await.map_err(|e| e.problem())
}

/// Removes the version before `old`: a node that is behind may still be reading `old`.
pub(crate) async fn forget_before(store: &Store, old: &TableDef) {
    let Some(version) = old.version.checked_sub(1).filter(|version| *version > 0) else { return };
    if let Err(error) = store.delete(&paths::table(old.id, version)).await {
        tracing::warn!(table = %old.name, version, %error, "an old version of a table was not removed");
    }
}

/// Reads a version of a table.
pub(crate) async fn load(store: &Store, def: &TableDef) -> anyhow::Result<StaticTable> {
    let bytes = store.get(&paths::table(def.id, def.version)).await?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(TABLE_ROWS_MAX).build()?;
    let mut rows: Vec<RecordBatch> = reader.collect::<Result<_, _>>()?;
    let schema = schema_of(&def.columns);
    if rows.is_empty() {
        rows.push(RecordBatch::new_empty(Arc::clone(&schema)));
    }
    let rows = rows.iter().map(|part| in_order(part, &def.columns, &schema)).collect::<Result<_, _>>()?;
    table(def, rows).map_err(|problem| anyhow::anyhow!(problem.text()))
}

/// A table as views and queries read it.
///
/// # Errors
/// Its rows are valid at times that exclude each other.
pub(crate) fn table(def: &TableDef, rows: Vec<RecordBatch>) -> Result<StaticTable, Problem> {
    let is_late = def.join == TableJoin::Late;
    // what is joined after ⊕ is no part of what states mean: its version may change
    let identity = if is_late { def.id.to_string() } else { format!("{}/{}", def.id, def.version) };
    let Some(validity) = &def.validity else {
        return Ok(StaticTable { name: def.name.clone(), rows, identity, is_late, valid_from: None });
    };
    let schema = schema_of(&def.columns);
    let rows = concat_batches(&schema, &rows).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let rows = vec![with_ends(&def.name, &rows, validity)?];
    Ok(StaticTable { name: def.name.clone(), rows, identity, is_late, valid_from: Some(validity.from.clone()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{SqlType, TableSource};

    fn ads() -> TableDef {
        let column = |name: &str, sql_type| ColumnDef { name: name.into(), sql_type, nullable: true };
        TableDef {
            id: uuid::Uuid::nil(),
            name: "ads".into(),
            columns: vec![column("ad_id", SqlType::Text), column("n", SqlType::Int)],
            source: TableSource::File("ads.csv".into()),
            refresh_us: None,
            version: 1,
            join: TableJoin::Late,
            validity: None,
            rows: 0,
            created_at_us: 0,
        }
    }

    #[test]
    fn header_decides_the_order() {
        let rows = parse_csv(&ads(), "n,other,ad_id\n1,x,a\n2,y,\"b,c\"\n").unwrap();
        assert_eq!(rows.num_rows(), 2);
        assert_eq!(rows.schema(), schema_of(&ads().columns));
        let names = arrow::array::AsArray::as_string_view(rows.column(0));
        assert_eq!(names.value(1), "b,c");
    }

    #[test]
    fn bad_files_are_refused() {
        for (text, word) in [("", "empty"), ("ad_id\nx\n", "no column n"), ("ad_id,n\nx,seven\n", "seven")] {
            let problem = parse_csv(&ads(), text).unwrap_err();
            assert!(problem.detail.contains(word), "{}", problem.detail);
        }
    }
}
