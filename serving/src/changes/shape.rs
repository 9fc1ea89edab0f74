//! By what the rows of a view are told apart, and how the rows of some of its cells are made.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use operators::cells::CellTable;
use operators::view::Touched;
use operators::{RowFinish, View, states};
use schemas::{Code, Problem};
use storage::batch_view::BatchViewReader;
use storage::snapshot::ViewSnapshot;
use xxhash_rust::xxh3::xxh3_128;

use crate::lookup::matching;

/// A sorted range is searched for each key if it has so many times as many cells as there are keys; otherwise it is
/// read once.
const SEARCH_RATIO: usize = 32;

/// The key of a row, encoded.
pub(super) type Key = Box<[u8]>;

/// A view whose changes can be told row by row.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) view: Arc<View>,
    /// None for a view without `GROUP BY`: it has one row.
    finish: Option<Arc<RowFinish>>,
    /// The output columns that are the key, in the key's order.
    pub(super) keys: Vec<usize>,
    pub(super) key_schema: SchemaRef,
    pub(super) key_rows: RowConverter,
    rows: RowConverter,
}

/// One key as columns of one row.
fn key_at(keys: &RecordBatch, row: usize) -> Vec<ArrayRef> {
    keys.columns().iter().map(|column| column.slice(row, 1)).collect()
}

fn internal(error: &arrow::error::ArrowError) -> Problem {
    Problem::new(Code::Internal, format!("rows do not compare: {error}"))
}

impl Shape {
    /// The shape of a view; `name` is for the message.
    pub(super) fn of(view: &Arc<View>, name: &str, finish: Option<Arc<RowFinish>>) -> Result<Self, Problem> {
        let refused = |why: &str, hint: &str| {
            let what = format!("view {name}: its changes cannot be told row by row: {why}");
            Problem::new(Code::Unsupported, what).with_hint(hint)
        };
        let schema = view.output_schema();
        let whole = "mode complete sends the whole view at each step";
        if view.is_of_rows() {
            let why = "it has no aggregate, so that no column of it tells its rows apart";
            return Err(refused(
                why,
                "give it an aggregate and GROUP BY; mode complete sends the whole view at each step",
            ));
        }
        if let Some(table) = view.dimension_table() {
            let why = format!(
                "table {table} is joined when the view is read: a new version of it changes rows without a record"
            );
            return Err(refused(&why, "create the table WITH (join = 'pinned'); or use mode complete"));
        }
        if !view.is_global() && finish.is_none() {
            return Err(refused("a row depends on other rows (LIMIT, a join behind the aggregate, …)", whole));
        }
        let outputs = view.output_keys();
        let mut keys = vec![];
        let key_columns = if view.is_global() { 0 } else { view.key_columns() };
        for key in 0..key_columns {
            let of_type =
                |index: &usize| schema.field(*index).data_type() == view.state_schema().field(key).data_type();
            let column = outputs.iter().position(|output| *output == Some(key)).filter(of_type);
            let hint = "put every column of GROUP BY into the SELECT; or use mode complete";
            keys.push(column.ok_or_else(|| refused("a column of GROUP BY is not in its SELECT", hint))?);
        }
        let key_schema = Arc::new(schema.project(&keys).map_err(|e| internal(&e))?);
        let converter = |schema: &SchemaRef| {
            let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
            RowConverter::new(fields.collect()).map_err(|e| internal(&e))
        };
        let (key_rows, rows) = (converter(&key_schema)?, converter(&schema)?);
        Ok(Self { view: Arc::clone(view), finish, keys, key_schema, key_rows, rows })
    }

    /// True if the view has one row.
    pub(super) fn is_one_row(&self) -> bool {
        self.finish.is_none()
    }

    /// Key and hash of each row, of rows in the view's schema.
    pub(super) fn hashed(&self, rows: &RecordBatch) -> Result<Vec<(Key, u128)>, Problem> {
        let keys: Vec<ArrayRef> = self.keys.iter().map(|key| Arc::clone(rows.column(*key))).collect();
        let values = self.rows.convert_columns(rows.columns()).map_err(|e| internal(&e))?;
        if keys.is_empty() {
            return Ok((0..rows.num_rows()).map(|row| (Box::default(), xxh3_128(values.row(row).as_ref()))).collect());
        }
        let keys = self.key_rows.convert_columns(&keys).map_err(|e| internal(&e))?;
        let hash = |row: usize| (keys.row(row).as_ref().into(), xxh3_128(values.row(row).as_ref()));
        Ok((0..rows.num_rows()).map(hash).collect())
    }

    /// Keys as columns, from their encodings.
    pub(super) fn decoded(&self, keys: &[Box<[u8]>]) -> Result<RecordBatch, Problem> {
        if keys.is_empty() || self.keys.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.key_schema)));
        }
        let parser = self.key_rows.parser();
        let rows = keys.iter().map(|key| parser.parse(key));
        let columns = self.key_rows.convert_rows(rows).map_err(|e| internal(&e))?;
        RecordBatch::try_new(Arc::clone(&self.key_schema), columns).map_err(|e| internal(&e))
    }

    /// The key columns of rows.
    pub(super) fn keys_of(&self, rows: &RecordBatch) -> Result<RecordBatch, Problem> {
        rows.project(&self.keys).map_err(|e| internal(&e))
    }

    /// Key columns under the names that they have in states.
    pub(super) fn as_stored(&self, keys: &RecordBatch) -> Result<RecordBatch, Problem> {
        let columns: Vec<usize> = (0..self.view.key_columns()).collect();
        let schema = self.view.state_schema().project(&columns).map_err(|e| internal(&e))?;
        RecordBatch::try_new(Arc::new(schema), keys.columns().to_vec()).map_err(|e| internal(&e))
    }

    /// The encodings of keys in the key's columns, or in the leading ones of them.
    pub(super) fn encoded(keys: &RecordBatch) -> Result<Vec<Key>, Problem> {
        if keys.num_columns() == 0 {
            return Ok(vec![Box::default(); keys.num_rows()]);
        }
        let fields = keys.schema_ref().fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(fields.collect()).map_err(|e| internal(&e))?;
        let rows = converter.convert_columns(keys.columns()).map_err(|e| internal(&e))?;
        Ok(rows.iter().map(|row| row.as_ref().into()).collect())
    }

    /// The rows that the view has, at this snapshot, of these cells. `reader` is of the snapshot's batch view.
    pub(super) async fn rows_of(
        &self,
        snapshot: &ViewSnapshot,
        reader: Option<&BatchViewReader>,
        touched: &Touched,
    ) -> Result<RecordBatch, Problem> {
        let Some(finish) = &self.finish else {
            return Err(Problem::new(Code::Internal, "a view without a key has no cells to look up"));
        };
        let mut cells = CellTable::new(&self.view)?;
        if let Some(reader) = reader {
            for row in 0..touched.stored.num_rows() {
                let key = key_at(&touched.stored, row);
                for states in reader.rows_with_key_prefix(&key).await.map_err(|e| e.problem())? {
                    cells.merge(&states)?;
                }
            }
        }
        let stored: BTreeSet<Box<[u8]>> = Self::encoded(&touched.stored)?.into_iter().collect();
        let ranges = snapshot.ranges.iter().flat_map(|range| range.states.iter().map(|states| (range.sorted, states)));
        for (is_sorted, states) in ranges.filter(|(_, states)| states.num_rows() > 0) {
            if is_sorted && touched.stored.num_rows().saturating_mul(SEARCH_RATIO) < states.num_rows() {
                for row in 0..touched.stored.num_rows() {
                    if let (Some(found), _) = matching(states, &key_at(&touched.stored, row), true)? {
                        cells.merge(&found)?;
                    }
                }
                continue;
            }
            let keys = states::keys(&self.view, states)?;
            let wanted: BooleanArray = (0..states.num_rows())
                .map(|row| Some(stored.contains(states::divisible(&self.view, keys.row(row).as_ref()))))
                .collect();
            if wanted.true_count() > 0 {
                cells.merge(&filter_record_batch(states, &wanted).map_err(|e| internal(&e))?)?;
            }
        }
        let answered = cells.answer()?;
        finish.apply(self.only(answered, touched)?)
    }

    /// Of answered cells those that are meant: beside them there may be windows that are not whole.
    fn only(&self, answered: RecordBatch, touched: &Touched) -> Result<RecordBatch, Problem> {
        if !self.view.makes_windows() {
            return Ok(answered);
        }
        let meant: BTreeSet<Box<[u8]>> = Self::encoded(&touched.answered)?.into_iter().collect();
        let columns: Vec<usize> = (0..self.view.key_columns()).collect();
        let keys = Self::encoded(&answered.project(&columns).map_err(|e| internal(&e))?)?;
        let is_meant = |key: &[u8]| Some(meant.contains(states::divisible(&self.view, key)));
        let wanted: BooleanArray = keys.iter().map(|key| is_meant(key)).collect();
        filter_record_batch(&answered, &wanted).map_err(|e| internal(&e))
    }
}
