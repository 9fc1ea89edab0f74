//! Sessions of states: intervals of one key with at most the gap between them are one.
//!
//! ```text
//!  cells   (a, 0, 3) (a, 4, 10) (a, 17, 17) (b, 2, 2)      key, first event, last event
//!             └── gap 5 ──┘                                 0…3 and 4…10: 1 apart
//!  ⊕       (a, 0, 10)           (a, 17, 17) (b, 2, 2)
//! ```
//! Which events are connected depends on the events alone, and an interval never spans a gap that is too
//! long: so it makes no difference which intervals were made one first, and what comes out is canonical.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow_row::{RowConverter, Rows, SortField};
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

/// Makes intervals of one key that are near each other one; `keys` columns lead the states, the last two are
/// first and last event. The accumulators are those of the states, empty, and are left empty.
///
/// Each interval of a key occurs once in `states`. The order of the result is not defined.
pub(crate) fn coalesce(
    states: RecordBatch,
    keys: usize,
    gap_us: i64,
    accumulators: &mut [Box<dyn GroupsAccumulator>],
    widths: &[usize],
) -> Result<RecordBatch> {
    let prefixes = prefixes(&states, keys)?;
    let order = in_order(&states, keys, prefixes.as_ref());
    let sessions = Sessions::of(&states, keys, gap_us, &order, prefixes.as_ref());
    if sessions.first_row.len() == states.num_rows() {
        return Ok(states);
    }
    let sorted = take_record_batch(&states, &UInt32Array::from(order))?;
    let mut columns: Vec<ArrayRef> = vec![];
    let firsts = UInt32Array::from(sessions.first_row);
    for column in &sorted.columns()[..keys - 1] {
        columns.push(take(column, &firsts, None)?);
    }
    columns.push(Arc::new(TimestampMicrosecondArray::from(sessions.end).with_timezone("UTC")));
    let (count, mut first) = (firsts.len(), keys);
    for (accumulator, width) in accumulators.iter_mut().zip(widths) {
        accumulator.merge_batch(&sorted.columns()[first..first + width], &sessions.of_row, count)?;
        columns.extend(accumulator.state(EmitTo::All)?);
        first += width;
    }
    Ok(RecordBatch::try_new(states.schema(), columns)?)
}

fn bounds(states: &RecordBatch, keys: usize) -> (&TimestampMicrosecondArray, &TimestampMicrosecondArray) {
    let bound = |column: usize| states.column(column).as_primitive::<TimestampMicrosecondType>();
    (bound(keys - 2), bound(keys - 1))
}

/// The keys without the interval; none if there are none.
fn prefixes(states: &RecordBatch, keys: usize) -> Result<Option<Rows>> {
    if keys == 2 {
        return Ok(None);
    }
    let fields = states.schema_ref().fields()[..keys - 2].iter();
    let converter = RowConverter::new(fields.map(|field| SortField::new(field.data_type().clone())).collect())?;
    Ok(Some(converter.convert_columns(&states.columns()[..keys - 2])?))
}

/// Rows by key, then by the first event; those without a time first.
fn in_order(states: &RecordBatch, keys: usize, prefixes: Option<&Rows>) -> Vec<u32> {
    let (starts, ends) = bounds(states, keys);
    let time =
        |times: &TimestampMicrosecondArray, row: u32| times.is_valid(row as usize).then(|| times.value(row as usize));
    let mut order: Vec<u32> = (0..states.num_rows() as u32).collect();
    order.sort_unstable_by(|a, b| {
        let keys = prefixes.map(|rows| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        let times = || (time(starts, *a), time(ends, *a)).cmp(&(time(starts, *b), time(ends, *b)));
        keys.unwrap_or(std::cmp::Ordering::Equal).then_with(times)
    });
    order
}

/// Which of the ordered rows are one session.
struct Sessions {
    /// Of each row, the session that it is in.
    of_row: Vec<usize>,
    /// Of each session, its first row.
    first_row: Vec<u32>,
    /// Of each session, its last event.
    end: Vec<Option<i64>>,
}

impl Sessions {
    fn of(states: &RecordBatch, keys: usize, gap_us: i64, order: &[u32], prefixes: Option<&Rows>) -> Self {
        let (starts, ends) = bounds(states, keys);
        let mut sessions = Self { of_row: Vec::with_capacity(order.len()), first_row: vec![], end: vec![] };
        let mut before: Option<usize> = None;
        for (index, row) in (0u32..).zip(order) {
            let row = *row as usize;
            let same_key = before.is_some_and(|before| match prefixes {
                Some(rows) => rows.row(before) == rows.row(row),
                None => true,
            });
            let end = ends.is_valid(row).then(|| ends.value(row));
            match sessions.end.last_mut() {
                Some(Some(last)) if same_key && starts.value(row) <= last.saturating_add(gap_us) => {
                    *last = (*last).max(end.unwrap_or(i64::MIN));
                }
                _ => {
                    sessions.first_row.push(index);
                    sessions.end.push(end);
                }
            }
            sessions.of_row.push(sessions.first_row.len() - 1);
            before = Some(row);
        }
        sessions
    }
}
