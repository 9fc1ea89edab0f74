//! Look-ups by key: no SQL, no plan (DESIGN §18).
//!
//! ```text
//!  key prefix ──► batch view: one page per file         ┐
//!             ──► each sorted range: binary search       ├─► ⊕ ──► answer ──► finish
//!             ──► each unsorted range: compare all keys ┘
//! ```

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, DynComparator, UInt32Array, make_comparator};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::record_batch::RecordBatch;
use datafusion::scalar::ScalarValue;
use operators::cells::CellTable;
use operators::{RowFinish, View};
use parking_lot::Mutex;
use schemas::documents::manifest::Manifest;
use schemas::{Catalog, Code, Problem};
use storage::batch_view::BatchViewReader;
use storage::footprint::bytes_of;
use storage::snapshot::ViewSnapshot;
use storage::store::Store;
use uuid::Uuid;

use crate::engine::Covered;

/// What a look-up found.
#[derive(Debug)]
pub struct Found {
    /// Rows of the view.
    pub rows: RecordBatch,
    /// Cells compared or decoded on the way.
    pub cells_read: u64,
    /// Bytes of the cells found in files; pages that were decoded before are kept.
    pub bytes_read: u64,
}

/// Look-ups over all views, with what they keep between calls: open readers and finishes.
#[derive(Debug)]
pub struct Lookup {
    store: Store,
    open: Mutex<BTreeMap<Uuid, Open>>,
}

#[derive(Debug, Clone)]
struct Open {
    semantic_hash: String,
    finish: Option<Arc<RowFinish>>,
    reader: Option<(u64, Arc<BatchViewReader>)>,
}

impl Lookup {
    /// Nothing is open yet.
    pub fn new(store: Store) -> Self {
        Self { store, open: Mutex::default() }
    }

    /// The rows of a view whose leading key columns have these values; at least one value. None where this
    /// is no plain look-up: more values than key columns, another type, or a finish that needs a plan.
    ///
    /// The coverage of the view's parts was asserted before, and that their states can be merged with each other's.
    ///
    /// # Errors
    /// A batch view could not be read; a value could not be computed.
    pub(crate) async fn get(&self, parts: &[Covered], key: &[ScalarValue]) -> Result<Option<Found>, Problem> {
        let Some(view) = parts.first().map(|part| &part.view) else { return Ok(None) };
        let Some(wanted) = key_arrays(view, key) else { return Ok(None) };
        let Some(stored) = view.stored_keys(key) else { return Ok(None) };
        let stored: Option<Vec<_>> = stored.iter().map(|key| key_arrays(view, key)).collect();
        let Some(stored) = stored else { return Ok(None) };
        let mut search = Search { cells: CellTable::new(view)?, stored, cells_read: 0, bytes_read: 0 };
        let mut finish = None;
        for part in parts {
            let Some(own) = self.finish(&part.view, part.def.id) else { return Ok(None) };
            finish = finish.or(Some(own));
            if let Some(manifest) = part.snapshot.manifest.as_ref().filter(|manifest| !manifest.files.is_empty()) {
                let reader = self.reader(&part.view, part.def.id, manifest).await?;
                search.batch(&reader).await?;
            }
            search.ranges(&part.snapshot)?;
        }
        let Some(finish) = finish else { return Ok(None) };
        let Search { mut cells, cells_read, bytes_read, .. } = search;
        let mut answered = cells.answer_for(view, key)?;
        if view.makes_windows() {
            let (found, _) = matching(&answered, &wanted, false)?;
            answered = found.unwrap_or_else(|| answered.slice(0, 0));
        }
        Ok(Some(Found { rows: finish.apply(answered)?, cells_read, bytes_read }))
    }

    /// Forgets views that are not in the catalogue any more, and what was open for them.
    pub(crate) fn forget_dropped(&self, catalog: &Catalog) {
        let mut open = self.open.lock();
        if open.len() > catalog.views.len() {
            open.retain(|id, _| catalog.view_by_id(*id).is_some());
        }
    }

    pub(crate) fn finish(&self, view: &View, id: Uuid) -> Option<Arc<RowFinish>> {
        let mut open = self.open.lock();
        if let Some(known) = open.get(&id).filter(|known| known.semantic_hash == view.semantic_hash()) {
            return known.finish.clone();
        }
        let finish = RowFinish::of(view).map(Arc::new);
        let semantic_hash = view.semantic_hash().to_owned();
        open.insert(id, Open { semantic_hash, finish: finish.clone(), reader: None });
        finish
    }

    pub(crate) async fn reader(
        &self,
        view: &View,
        id: Uuid,
        manifest: &Arc<Manifest>,
    ) -> Result<Arc<BatchViewReader>, Problem> {
        let known = self.open.lock().get(&id).and_then(|open| open.reader.clone());
        if let Some((_, reader)) = known.filter(|(sequence, _)| *sequence == manifest.sequence) {
            return Ok(reader);
        }
        let reader = BatchViewReader::open(&self.store, Arc::clone(view.state_schema()), &manifest.files).await;
        let reader = Arc::new(reader.map_err(|e| e.problem())?);
        if let Some(open) = self.open.lock().get_mut(&id) {
            open.reader = Some((manifest.sequence, Arc::clone(&reader)));
        }
        Ok(reader)
    }
}

/// The cells with some keys, as they are found.
struct Search {
    cells: CellTable,
    stored: Vec<Vec<ArrayRef>>,
    cells_read: u64,
    bytes_read: u64,
}

impl Search {
    async fn batch(&mut self, reader: &BatchViewReader) -> Result<(), Problem> {
        for key in &self.stored {
            for states in reader.rows_with_key_prefix(key).await.map_err(|e| e.problem())? {
                self.cells_read += states.num_rows() as u64;
                self.bytes_read += bytes_of(&states) as u64;
                self.cells.merge(&states)?;
            }
        }
        Ok(())
    }

    fn ranges(&mut self, snapshot: &ViewSnapshot) -> Result<(), Problem> {
        for range in &snapshot.ranges {
            for states in range.states.iter().filter(|states| states.num_rows() > 0) {
                if !range.sorted {
                    self.cells_read += states.num_rows() as u64;
                    if let Some(found) = between(states, &self.stored)? {
                        self.cells.merge(&found)?;
                    }
                    continue;
                }
                for key in &self.stored {
                    let (found, compared) = matching(states, key, true)?;
                    self.cells_read += compared;
                    if let Some(found) = found {
                        self.cells.merge(&found)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The key as arrays of one row, of the key columns' types; none for no key, or one of another type.
pub(crate) fn key_arrays(view: &View, key: &[ScalarValue]) -> Option<Vec<ArrayRef>> {
    if key.is_empty() || key.len() > view.key_columns() {
        return None;
    }
    let fields = view.state_schema().fields();
    let one = |(value, field): (&ScalarValue, &Arc<arrow::datatypes::Field>)| {
        (value.data_type() == *field.data_type()).then(|| value.to_array().ok()).flatten()
    };
    key.iter().zip(fields.iter()).map(one).collect()
}

/// Rows of one batch of states whose leading key columns equal the key, and how many rows were compared.
pub(crate) fn matching(
    states: &RecordBatch,
    key: &[ArrayRef],
    sorted: bool,
) -> Result<(Option<RecordBatch>, u64), Problem> {
    let compare = comparators(states, key)?;
    let order = |row: usize| compare.iter().map(|column| column(row, 0)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal);
    if sorted {
        let (found, compared) = equal_range(states.num_rows(), order);
        let found = (!found.is_empty()).then(|| states.slice(found.start, found.len()));
        return Ok((found, compared));
    }
    let rows: Vec<u32> = (0..states.num_rows()).filter(|row| order(*row).is_eq()).map(|row| row as u32).collect();
    let compared = states.num_rows() as u64;
    if rows.is_empty() {
        return Ok((None, compared));
    }
    Ok((Some(take_record_batch(states, &UInt32Array::from(rows)).map_err(|e| not_comparable(&e))?), compared))
}

/// Rows of unsorted states whose leading keys lie between the first and the last of some keys, column by column:
/// exactly those with one of the keys, which differ in a row of panes and in nothing else.
fn between(states: &RecordBatch, keys: &[Vec<ArrayRef>]) -> Result<Option<RecordBatch>, Problem> {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(None) };
    let (first, last) = (comparators(states, first)?, comparators(states, last)?);
    let passes = |row: usize| {
        first.iter().all(|column| column(row, 0).is_ge()) && last.iter().all(|column| column(row, 0).is_le())
    };
    let rows: Vec<u32> = (0..states.num_rows()).filter(|row| passes(*row)).map(|row| row as u32).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    take_record_batch(states, &UInt32Array::from(rows)).map(Some).map_err(|e| not_comparable(&e))
}

fn not_comparable(error: &arrow::error::ArrowError) -> Problem {
    Problem::new(Code::Internal, format!("keys do not compare: {error}"))
}

/// Per column of a key, its order to the states'.
fn comparators(states: &RecordBatch, key: &[ArrayRef]) -> Result<Vec<DynComparator>, Problem> {
    let options = SortOptions { descending: false, nulls_first: true };
    let columns = key.iter().zip(states.columns());
    columns
        .map(|(key, column)| make_comparator(column, key, options))
        .collect::<Result<_, _>>()
        .map_err(|e| not_comparable(&e))
}

/// Where a sorted sequence equals the key: two binary searches, and how many rows they looked at.
fn equal_range(rows: usize, order: impl Fn(usize) -> Ordering) -> (Range<usize>, u64) {
    let mut compared = 0;
    let mut first = |mut from: usize, mut to: usize, goes_left: &dyn Fn(Ordering) -> bool| {
        while from < to {
            let middle = from + (to - from) / 2;
            compared += 1;
            if goes_left(order(middle)) { to = middle } else { from = middle + 1 }
        }
        from
    };
    let start = first(0, rows, &|o| o.is_ge());
    let end = first(start, rows, &|o| o.is_gt());
    (start..end, compared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, 0..0)]
    #[case(1, 0..1)]
    #[case(3, 1..4)]
    #[case(4, 4..4)]
    #[case(9, 4..5)]
    #[case(10, 5..5)]
    fn equal_range_is_exact(#[case] key: i32, #[case] expected: Range<usize>) {
        let rows = [1, 3, 3, 3, 9];
        let (found, compared) = equal_range(rows.len(), |row| rows[row].cmp(&key));
        assert_eq!(found, expected);
        assert!(compared <= 6);
    }
}
