//! Which cells of an answer some states have a part in, and which stored cells those are made of: what a reader of
//! changes looks at, and nothing else.
//!
//! ```text
//!  states of a delta ──► their keys ──► the windows that these are in ──► everything that makes up these windows
//!                        (stored)       (answered)                       (stored)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::common::Result;
use schemas::Problem;
use schemas::limits::PANES_LOOKED_UP_MAX;

use crate::cells::compute_problem;
use crate::evidence;
use crate::states;
use crate::view::View;
use crate::windows::{ALL_WINDOWS, WindowSpec, Windows};

/// Stored cells by their encoded key: where they are in the states, how many records they have there, and how many of
/// these were late.
#[derive(Debug, Default)]
pub struct StoredCells {
    cells: BTreeMap<Box<[u8]>, StoredCell>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCell {
    batch: u32,
    row: u32,
    /// Records counted, over all states that were added.
    pub records: i64,
    /// Of these, records that were late.
    pub late: i64,
}

impl StoredCells {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Keys and what is in them, in order of the key.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &StoredCell)> {
        self.cells.iter().map(|(key, cell)| (&**key, cell))
    }

    /// Keeps those that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&[u8], &StoredCell) -> bool) {
        self.cells.retain(|key, cell| wanted(key, cell));
    }
}

/// The keys of cells of an answer, and the keys of all that they are made of.
#[derive(Debug)]
pub struct Touched {
    /// Keys of answered cells, each once, as columns of the key; of sessions without their bounds.
    pub answered: RecordBatch,
    /// Keys of stored cells, each once, likewise: everything stored that has one of them is needed.
    pub stored: RecordBatch,
}

impl View {
    /// The cells that are in these states, in the view's state schema.
    ///
    /// # Errors
    /// Keys cannot be encoded: our bug.
    pub fn stored_cells(&self, batches: &[RecordBatch]) -> Result<StoredCells, Problem> {
        let mut found = StoredCells::default();
        let column = |name: &str| self.state_schema().index_of(name).unwrap_or_default();
        let (count, late) = (column(evidence::COUNT), column(evidence::LATE));
        for (index, batch) in batches.iter().enumerate() {
            let keys = states::keys(self, batch)?;
            let counts = batch.column(count).as_primitive::<Int64Type>();
            let lates = batch.column(late).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let place = StoredCell { batch: index as u32, row: row as u32, records: 0, late: 0 };
                let cell = found.cells.entry(keys.row(row).as_ref().into()).or_insert(place);
                cell.records += counts.value(row);
                cell.late += lates.value(row);
            }
        }
        Ok(found)
    }

    /// What these stored cells, which were found in `batches`, are a part of; none if that would be more than
    /// `keys_max`, or if windows have so many panes that they are not looked up.
    ///
    /// # Errors
    /// Our bug.
    pub fn touched(
        &self,
        batches: &[RecordBatch],
        cells: &StoredCells,
        keys_max: usize,
    ) -> Result<Option<Touched>, Problem> {
        self.try_touched(batches, cells, keys_max).map_err(|e| compute_problem(&e))
    }

    fn try_touched(&self, batches: &[RecordBatch], cells: &StoredCells, keys_max: usize) -> Result<Option<Touched>> {
        if cells.len() > keys_max {
            return Ok(None);
        }
        let keys = self.keys_of(batches, cells)?;
        match &self.cells.windows {
            None => Ok(Some(Touched { stored: keys.clone(), answered: keys })),
            Some(Windows::Sessions { .. }) => {
                let beside: Vec<usize> = (0..self.key_columns() - 2).collect();
                let keys = distinct(&keys.project(&beside)?)?;
                Ok(Some(Touched { stored: keys.clone(), answered: keys }))
            }
            Some(Windows::Panes { key, spec }) => {
                let windows = spec.counts();
                if windows.1 > PANES_LOOKED_UP_MAX || cells.len() as i64 * windows.0.max(windows.1) > keys_max as i64 {
                    return Ok(None);
                }
                let answered = distinct(&expanded(&keys, *key, |pane| windows_with(spec, pane))?)?;
                let stored = distinct(&expanded(&keys, *key, |pane| panes_beside(spec, pane))?)?;
                Ok(Some(Touched { answered, stored }))
            }
        }
    }

    /// What these cells of an answer are made of; `answered` has their key columns.
    ///
    /// # Errors
    /// Our bug.
    pub fn made_of(&self, answered: &RecordBatch) -> Result<Touched, Problem> {
        self.try_made_of(answered).map_err(|e| compute_problem(&e))
    }

    fn try_made_of(&self, answered: &RecordBatch) -> Result<Touched> {
        let keys = distinct(answered)?;
        match &self.cells.windows {
            None => Ok(Touched { stored: keys.clone(), answered: keys }),
            Some(Windows::Sessions { .. }) => {
                let beside: Vec<usize> = (0..self.key_columns() - 2).collect();
                let keys = distinct(&keys.project(&beside)?)?;
                Ok(Touched { stored: keys.clone(), answered: keys })
            }
            Some(Windows::Panes { key, spec }) => {
                let panes = |bound: i64| {
                    let (first, end) = spec.panes_of(&(bound..=bound));
                    let next = |pane: &i64| pane.checked_add(spec.pane_us());
                    std::iter::successors(Some(first), next).take_while(|pane| *pane < end).collect()
                };
                Ok(Touched { stored: distinct(&expanded(&keys, *key, panes)?)?, answered: keys })
            }
        }
    }

    /// The key columns of the cells, in order of the key.
    fn keys_of(&self, batches: &[RecordBatch], cells: &StoredCells) -> Result<RecordBatch> {
        let columns: Vec<usize> = (0..self.key_columns()).collect();
        let schema = Arc::new(self.state_schema().project(&columns)?);
        let places: Vec<(usize, usize)> =
            cells.cells.values().map(|cell| (cell.batch as usize, cell.row as usize)).collect();
        let projected = batches.iter().map(|batch| Ok(batch.project(&columns)?)).collect::<Result<Vec<_>>>()?;
        if projected.is_empty() {
            return Ok(RecordBatch::new_empty(schema));
        }
        Ok(arrow::compute::interleave_record_batch(&projected.iter().collect::<Vec<_>>(), &places)?)
    }
}

/// The windows that a pane belongs to, each by the bound that tells it apart.
fn windows_with(spec: &WindowSpec, pane_us: i64) -> Vec<i64> {
    spec.windows_of(pane_us, &ALL_WINDOWS).collect()
}

/// The panes of all windows that a pane belongs to. These windows overlap in it, so there is no gap between them.
fn panes_beside(spec: &WindowSpec, pane_us: i64) -> Vec<i64> {
    let windows = windows_with(spec, pane_us);
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return vec![] };
    let from = spec.panes_of(&(*first..=*first)).0.min(spec.panes_of(&(*last..=*last)).0);
    let to = spec.panes_of(&(*last..=*last)).1;
    let next = |pane: &i64| pane.checked_add(spec.pane_us());
    std::iter::successors(Some(from), next).take_while(|pane| *pane < to).collect()
}

/// Keys with other values in place of one column of times; one without a time stays.
fn expanded(keys: &RecordBatch, column: usize, of: impl Fn(i64) -> Vec<i64>) -> Result<RecordBatch> {
    let times = keys.column(column).as_primitive::<TimestampMicrosecondType>();
    let (mut rows, mut values) = (Vec::<u32>::new(), Vec::<Option<i64>>::new());
    for row in 0..keys.num_rows() {
        if times.is_null(row) {
            rows.push(row as u32);
            values.push(None);
            continue;
        }
        for value in of(times.value(row)) {
            rows.push(row as u32);
            values.push(Some(value));
        }
    }
    let taken = take_record_batch(keys, &UInt32Array::from(rows))?;
    let mut columns: Vec<ArrayRef> = taken.columns().to_vec();
    columns[column] = Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"));
    Ok(RecordBatch::try_new(keys.schema(), columns)?)
}

/// Each key once, in order. A key without columns is one key.
fn distinct(keys: &RecordBatch) -> Result<RecordBatch> {
    if keys.num_columns() == 0 {
        return Ok(keys.slice(0, keys.num_rows().min(1)));
    }
    let fields = keys.schema_ref().fields().iter();
    let fields = fields.map(|field| arrow_row::SortField::new(field.data_type().clone())).collect();
    let rows = arrow_row::RowConverter::new(fields)?.convert_columns(keys.columns())?;
    let mut order: Vec<u32> = (0..keys.num_rows() as u32).collect();
    order.sort_unstable_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    order.dedup_by(|a, b| rows.row(*a as usize) == rows.row(*b as usize));
    Ok(take_record_batch(keys, &UInt32Array::from(order))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop() -> WindowSpec {
        WindowSpec::Hop { slide_us: 10, size_us: 30, offset_us: 0 }
    }

    #[test]
    fn pane_touches_its_windows_and_all_that_these_are_made_of() {
        assert_eq!(windows_with(&hop(), 40), [20, 30, 40]);
        assert_eq!(panes_beside(&hop(), 40), [20, 30, 40, 50, 60]);
        let cumulate = WindowSpec::Cumulate { step_us: 10, size_us: 30, offset_us: 0 };
        assert_eq!(windows_with(&cumulate, 40), [50, 60]);
        assert_eq!(panes_beside(&cumulate, 40), [30, 40, 50]);
    }

    #[test]
    fn keys_are_each_once() {
        let times = TimestampMicrosecondArray::from(vec![Some(3), None, Some(3), None]).with_timezone("UTC");
        let keys = RecordBatch::try_from_iter([("g0", Arc::new(times) as ArrayRef)]).unwrap();
        assert_eq!(distinct(&keys).unwrap().num_rows(), 2);
        let moved = expanded(&keys.slice(0, 2), 0, |time| vec![time, time + 1]).unwrap();
        assert_eq!(moved.num_rows(), 3);
    }
}
