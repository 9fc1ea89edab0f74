//! Values that are looked up in a table when a record comes in, and are stored with it (DESIGN §14 `FREEZE`, ADR 0022):
//! behind the log, they are the record's own.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use schemas::frozen::{FROZEN_VERSION, Frozen};
use schemas::{Code, ColumnDef, Problem, StreamDef};

use crate::decode::Decoded;

/// A version of a table, to look values up in.
#[derive(Debug)]
pub struct FrozenTable {
    version: i32,
    rows: RecordBatch,
    /// Row by key, as a text: values of one type are the same if their texts are.
    by_key: HashMap<Box<str>, u32>,
}

impl FrozenTable {
    /// The rows of a version by one of its columns. A row without a value there is never found.
    ///
    /// # Errors
    /// `bad_request`: two rows have the same value there.
    pub fn of(table: &str, version: u32, rows: &RecordBatch, key: &str) -> Result<Self, Problem> {
        let bad = |what: String| Problem::new(Code::BadRequest, format!("table {table}: {what}"));
        let keys = texts(rows, key).map_err(|error| bad(error.to_string()))?;
        let mut by_key = HashMap::with_capacity(rows.num_rows());
        for (row, text) in (0_u32..).zip(&keys) {
            let Some(text) = text else { continue };
            if by_key.insert(Box::from(text), row).is_some() {
                let problem = bad(format!("column {key}: {text:?} stands in two rows, and a stream looks it up"));
                return Err(problem.with_hint("keep one row of each value, so that each record finds one"));
            }
        }
        let version = i32::try_from(version).unwrap_or(i32::MAX);
        Ok(Self { version, rows: rows.clone(), by_key })
    }

    /// The number of the version.
    pub fn version(&self) -> u32 {
        u32::try_from(self.version).unwrap_or_default()
    }

    fn found(&self, keys: &StringViewArray) -> UInt32Array {
        keys.iter().map(|key| key.and_then(|key| self.by_key.get(key).copied())).collect()
    }
}

fn texts(rows: &RecordBatch, column: &str) -> Result<StringViewArray, ArrowError> {
    let column = rows.column(rows.schema().index_of(column)?);
    Ok(cast(column, &DataType::Utf8View)?.as_string_view().clone())
}

/// The version of a stream's table that there is now. Asked of `cli` for each request.
#[derive(Clone)]
pub struct Lookup(Arc<Ask>);

type Ask = dyn Fn(&StreamDef) -> Result<Arc<FrozenTable>, Problem> + Send + Sync;

impl Lookup {
    /// From whoever knows the tables.
    pub fn new(ask: impl Fn(&StreamDef) -> Result<Arc<FrozenTable>, Problem> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Decodes what was sent, and fills in what is looked up: all of it in one version.
    ///
    /// # Errors
    /// `decode`'s; the table is not there.
    pub(crate) fn decode(
        &self,
        stream: &StreamDef,
        decode: impl FnOnce(&StreamDef) -> Result<Decoded, Problem>,
    ) -> Result<Decoded, Problem> {
        let Some(frozen) = &stream.transport.frozen else { return decode(stream) };
        let table = (self.0)(stream)?;
        let Decoded { rows, bad } = decode(&as_sent(stream, frozen))?;
        let rows = fill(stream, frozen, &table, &rows)
            .map_err(|error| Problem::new(Code::Internal, format!("stream {}: frozen: {error}", stream.name)))?;
        Ok(Decoded { rows, bad })
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").finish_non_exhaustive()
    }
}

/// The stream as a record has it: a value that it has of its own in a column that is looked up means nothing.
fn as_sent(stream: &StreamDef, frozen: &Frozen) -> StreamDef {
    let is_sent = |column: &&ColumnDef| column.name != FROZEN_VERSION && frozen.source_of(&column.name).is_none();
    StreamDef { columns: stream.columns.iter().filter(is_sent).cloned().collect(), ..stream.clone() }
}

/// Rows as they were sent → the stream's event schema.
fn fill(
    stream: &StreamDef,
    frozen: &Frozen,
    table: &FrozenTable,
    rows: &RecordBatch,
) -> Result<RecordBatch, ArrowError> {
    let found = table.found(&texts(rows, &frozen.key)?);
    let column = |column: &ColumnDef| -> Result<ArrayRef, ArrowError> {
        if column.name == FROZEN_VERSION {
            return Ok(Arc::new(Int32Array::from_value(table.version, rows.num_rows())));
        }
        match frozen.source_of(&column.name) {
            Some(source) => {
                Ok(of_its_own(take(table.rows.column(table.rows.schema().index_of(source)?), &found, None)?))
            }
            None => Ok(Arc::clone(rows.column(rows.schema().index_of(&column.name)?))),
        }
    };
    let columns = stream.columns.iter().map(column).collect::<Result<_, _>>()?;
    RecordBatch::try_new(stream.event_schema(), columns)
}

/// Texts that were taken still lie in the table's buffers, which would be written to the log as a whole.
fn of_its_own(values: ArrayRef) -> ArrayRef {
    match values.as_string_view_opt() {
        Some(texts) => Arc::new(texts.iter().collect::<StringViewArray>()),
        None => values,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::buffer::Buffer;
    use schemas::frozen::version_column;
    use schemas::{SqlType, Transport};
    use uuid::Uuid;

    use super::*;
    use crate::testing::stream;

    fn table(version: u32, rows: &[(Option<&str>, Option<&str>, i64)]) -> Result<FrozenTable, Problem> {
        let rows = RecordBatch::try_from_iter([
            ("code", Arc::new(rows.iter().map(|row| row.0).collect::<StringViewArray>()) as ArrayRef),
            ("label", Arc::new(rows.iter().map(|row| row.1).collect::<StringViewArray>())),
            ("n", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
        ])
        .unwrap();
        FrozenTable::of("products", version, &rows, "code")
    }

    fn frozen_stream() -> StreamDef {
        let column = |name: &str, sql_type| ColumnDef { name: name.into(), sql_type, nullable: true };
        let frozen = Frozen {
            table: Uuid::nil(),
            name: "products".into(),
            key: "sku".into(),
            table_key: "code".into(),
            columns: vec![("category".into(), "label".into()), ("weight".into(), "n".into())],
        };
        let columns = vec![
            column("category", SqlType::Text),
            column("sku", SqlType::Text),
            column("weight", SqlType::BigInt),
            version_column(),
        ];
        let transport = Transport { frozen: Some(frozen), ..Transport::default() };
        StreamDef { columns, transport, ..stream("sales", 1) }
    }

    #[test]
    fn what_is_looked_up_is_of_one_version() {
        let stream = frozen_stream();
        let long = "a label that is too long to stand in its column";
        let table =
            table(7, &[(Some("p1"), Some(long), 3), (Some("p2"), None, 5), (None, Some("nobody's"), 9)]).unwrap();
        let skus = [Some("p2"), Some("p1"), None, Some("p3"), Some("p1")];
        let skus: ArrayRef = Arc::new(skus.into_iter().collect::<StringViewArray>());
        let sent = RecordBatch::try_from_iter([("sku", skus)]).unwrap();
        let rows = fill(&stream, stream.transport.frozen.as_ref().unwrap(), &table, &sent).unwrap();
        let category: Vec<_> = rows.column(0).as_string_view().iter().collect();
        assert_eq!(category, [None, Some(long), None, None, Some(long)]);
        let weight: Vec<_> = rows.column(2).as_primitive::<arrow::datatypes::Int64Type>().iter().collect();
        assert_eq!(weight, [Some(5), Some(3), None, None, Some(3)]);
        let versions = rows.column(3).as_primitive::<arrow::datatypes::Int32Type>().values().to_vec();
        assert_eq!(versions, [7; 5]);
        let bytes: usize = rows.column(0).as_string_view().data_buffers().iter().map(Buffer::len).sum();
        assert!(bytes <= 2 * long.len(), "only the texts that were found are written: {bytes}");
    }

    #[test]
    fn a_value_is_looked_up_in_one_row() {
        let problem = table(1, &[(Some("p1"), None, 1), (Some("p1"), None, 2)]).unwrap_err();
        assert!(problem.detail.contains("\"p1\" stands in two rows"), "{}", problem.detail);
        assert!(table(1, &[(None, None, 1), (None, None, 2)]).is_ok());
    }
}
