//! The comparison of the cells: new = old ⊕ Σ deltas, byte for byte, in key order, a chunk at a time.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::util::display::array_value_to_string;
use arrow_row::{RowConverter, Rows};
use operators::evidence::{COUNT, HASH_HI, HASH_LO};
use operators::{View, states};
use schemas::Problem;
use schemas::documents::certificate::{CellCheck, CellDifference};
use schemas::limits::DIFFERENCES_LISTED_MAX;

use super::Auditor;
use super::name::Namer;
use crate::internal;

/// Gives states in key order, each key once, chunk by chunk; none at the end.
pub type Sorted<'a> = &'a mut dyn FnMut() -> Result<Option<RecordBatch>, Problem>;

/// One comparison.
pub(super) struct Comparison<'a> {
    view: &'a Arc<View>,
    converter: RowConverter,
    /// The deltas, sorted, with how far each has been read.
    deltas: Vec<(RecordBatch, usize)>,
    check: CellCheck,
    namer: Namer<'a>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(auditor: &'a Auditor<'a>) -> Result<Self, Problem> {
        let mut deltas = Vec::new();
        for delta in auditor.deltas {
            let sorted = match delta.states.as_slice() {
                [] => continue,
                [only] if delta.sorted => only.clone(),
                parts => states::merge(auditor.view, parts)?,
            };
            deltas.push((sorted, 0));
        }
        Ok(Self {
            view: auditor.view,
            converter: states::key_converter(auditor.view)?,
            deltas,
            check: CellCheck { compared: 0, differing: 0, samples: vec![], skipped: None },
            namer: Namer::new(auditor),
        })
    }

    pub(super) fn run(mut self, new: Sorted<'_>, old: Sorted<'_>) -> Result<CellCheck, Problem> {
        let (mut new, mut old) = (Cursor::new(new), Cursor::new(old));
        while let Some(chunk) = new.next_divisible(&self.converter, self.view)? {
            let last = self.limit(&chunk)?;
            let mut parts = old.up_to(&self.converter, self.view, Some(&last))?;
            parts.extend(self.deltas_up_to(Some(&last))?);
            self.compare(&chunk, &parts)?;
        }
        // what comes after the last new cell is in what the run replaces alone
        loop {
            let mut parts = old.next_divisible(&self.converter, self.view)?.map_or(vec![], |chunk| vec![chunk]);
            let last = parts.first().map(|chunk| self.limit(chunk)).transpose()?;
            parts.extend(self.deltas_up_to(last.as_deref())?);
            if parts.is_empty() {
                return Ok(self.check);
            }
            self.compare(&RecordBatch::new_empty(Arc::clone(self.view.state_schema())), &parts)?;
        }
    }

    /// No key that has to be compared together with the last one of a chunk is above it.
    fn limit(&self, chunk: &RecordBatch) -> Result<Vec<u8>, Problem> {
        let key = key(&self.converter, self.view, chunk, chunk.num_rows() - 1)?;
        let mut limit = states::divisible(self.view, key.row(0).as_ref()).to_vec();
        if self.view.makes_sessions() {
            // above whatever a key can go on with: a point in time begins with 0 or 1
            limit.push(u8::MAX);
        }
        Ok(limit)
    }

    /// The unread rows of every delta up to a key; all of them without one.
    fn deltas_up_to(&mut self, last: Option<&[u8]>) -> Result<Vec<RecordBatch>, Problem> {
        let mut parts = Vec::new();
        for (states, read) in &mut self.deltas {
            let end = match last {
                Some(last) => first_above(&self.converter, self.view, states, *read, last)?,
                None => states.num_rows(),
            };
            if end > *read {
                parts.push(states.slice(*read, end - *read));
                *read = end;
            }
        }
        Ok(parts)
    }

    fn compare(&mut self, new: &RecordBatch, parts: &[RecordBatch]) -> Result<(), Problem> {
        let replaced = states::merge(self.view, parts)?;
        if same(new, &replaced) {
            self.check.compared += new.num_rows() as u64;
            return Ok(());
        }
        let (new_keys, old_keys) = (states::keys(self.view, new)?, states::keys(self.view, &replaced)?);
        let (mut i, mut j) = (0, 0);
        while i < new.num_rows() || j < replaced.num_rows() {
            let order = if i == new.num_rows() {
                std::cmp::Ordering::Greater
            } else if j == replaced.num_rows() {
                std::cmp::Ordering::Less
            } else {
                new_keys.row(i).cmp(&old_keys.row(j))
            };
            let batch = order.is_le().then_some((new, i));
            let speed = order.is_ge().then_some((&replaced, j));
            i += usize::from(batch.is_some());
            j += usize::from(speed.is_some());
            self.compare_cell(batch, speed);
        }
        Ok(())
    }

    fn compare_cell(&mut self, batch: Option<Cell<'_>>, speed: Option<Cell<'_>>) {
        self.check.compared += 1;
        let columns = differing_columns(self.view, batch, speed);
        if columns.is_empty() {
            return;
        }
        self.check.differing += 1;
        if self.check.samples.len() < DIFFERENCES_LISTED_MAX {
            let record = self.namer.record(evidence(batch), evidence(speed));
            self.check.samples.push(CellDifference {
                key: batch.or(speed).map(|cell| key_text(self.view, cell)).unwrap_or_default(),
                columns,
                batch_records: batch.map(|cell| evidence(Some(cell)).0),
                speed_records: speed.map(|cell| evidence(Some(cell)).0),
                record,
            });
        }
    }
}

/// A row of states.
type Cell<'a> = (&'a RecordBatch, usize);

/// Count and hash of the positions of a cell; zeros for none.
fn evidence(cell: Option<Cell<'_>>) -> (u64, u64, u64) {
    let value = |name: &str| {
        let (states, row) = cell?;
        let column = states.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        column.is_valid(row).then(|| column.value(row) as u64)
    };
    (value(COUNT).unwrap_or(0), value(HASH_HI).unwrap_or(0), value(HASH_LO).unwrap_or(0))
}

fn differing_columns(view: &View, batch: Option<Cell<'_>>, speed: Option<Cell<'_>>) -> Vec<String> {
    let fields = view.state_schema().fields();
    let (Some((new, i)), Some((old, j))) = (batch, speed) else {
        return fields[view.key_columns()..].iter().map(|field| field.name().clone()).collect();
    };
    let differs =
        |column: &usize| !states::same_value(new.column(*column).as_ref(), i, old.column(*column).as_ref(), j);
    (view.key_columns()..fields.len()).filter(differs).map(|column| fields[column].name().clone()).collect()
}

fn key_text(view: &View, (states, row): Cell<'_>) -> Vec<String> {
    let text = |column: usize| {
        if states.column(column).is_null(row) {
            return "NULL".to_owned();
        }
        array_value_to_string(states.column(column), row).unwrap_or_else(|error| error.to_string())
    };
    (0..view.key_columns()).map(text).collect()
}

/// Byte for byte: same rows, same order, same nulls, in every column.
fn same(a: &RecordBatch, b: &RecordBatch) -> bool {
    a.num_rows() == b.num_rows() && a.columns().iter().zip(b.columns()).all(|(x, y)| x.to_data() == y.to_data())
}

fn key(converter: &RowConverter, view: &View, states: &RecordBatch, row: usize) -> Result<Rows, Problem> {
    let columns: Vec<_> = states.columns()[..view.key_columns()].iter().map(|column| column.slice(row, 1)).collect();
    converter.convert_columns(&columns).map_err(internal)
}

/// Index of the first row from `from` on whose key is above `last`, in sorted states.
fn first_above(
    converter: &RowConverter,
    view: &View,
    states: &RecordBatch,
    from: usize,
    last: &[u8],
) -> Result<usize, Problem> {
    let is_up_to = |row: usize| Ok(key(converter, view, states, from + row)?.row(0).as_ref() <= last);
    Ok(from + first_that_is_not(states.num_rows() - from, is_up_to)?)
}

/// Index of the first row that does not pass; all that do come before.
fn first_that_is_not(rows: usize, passes: impl Fn(usize) -> Result<bool, Problem>) -> Result<usize, Problem> {
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = usize::midpoint(low, high);
        if passes(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Reads a sorted source up to given keys.
struct Cursor<'a> {
    source: Sorted<'a>,
    rest: Option<RecordBatch>,
    done: bool,
}

impl<'a> Cursor<'a> {
    fn new(source: Sorted<'a>) -> Self {
        Self { source, rest: None, done: false }
    }

    fn next_chunk(&mut self) -> Result<Option<RecordBatch>, Problem> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        while !self.done {
            match (self.source)()? {
                Some(chunk) if chunk.num_rows() == 0 => {}
                Some(chunk) => return Ok(Some(chunk)),
                None => self.done = true,
            }
        }
        Ok(None)
    }

    /// The next chunk, without cells at its end that have to be compared together with later ones.
    fn next_divisible(&mut self, converter: &RowConverter, view: &View) -> Result<Option<RecordBatch>, Problem> {
        let Some(mut chunk) = self.next_chunk()? else { return Ok(None) };
        if !view.makes_sessions() {
            return Ok(Some(chunk));
        }
        loop {
            let last_key = key(converter, view, &chunk, chunk.num_rows() - 1)?;
            let last = states::divisible(view, last_key.row(0).data());
            let is_below =
                |row: usize| Ok(states::divisible(view, key(converter, view, &chunk, row)?.row(0).as_ref()) < last);
            let start = first_that_is_not(chunk.num_rows(), is_below)?;
            if start > 0 {
                self.rest = Some(chunk.slice(start, chunk.num_rows() - start));
                return Ok(Some(chunk.slice(0, start)));
            }
            let Some(more) = self.next_chunk()? else { return Ok(Some(chunk)) };
            chunk = concat_batches(&chunk.schema(), [&chunk, &more]).map_err(internal)?;
        }
    }

    /// The unread rows up to a key.
    fn up_to(
        &mut self,
        converter: &RowConverter,
        view: &View,
        last: Option<&[u8]>,
    ) -> Result<Vec<RecordBatch>, Problem> {
        let mut parts = Vec::new();
        while let Some(chunk) = self.next_chunk()? {
            let end = match last {
                Some(last) => first_above(converter, view, &chunk, 0, last)?,
                None => chunk.num_rows(),
            };
            if end > 0 {
                parts.push(chunk.slice(0, end));
            }
            if end < chunk.num_rows() {
                self.rest = Some(chunk.slice(end, chunk.num_rows() - end));
                break;
            }
        }
        if parts.len() > 1 {
            let schema = parts[0].schema();
            return Ok(vec![concat_batches(&schema, &parts).map_err(internal)?]);
        }
        Ok(parts)
    }
}
