//! Late events and final windows by brute force.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::sum;
use arrow::datatypes::Int64Type;

use super::aggregate::{Aggregate, Expected};
use super::event::{COLUMNS, Placed};
use super::expression::Expression;
use super::value::{Key, Value};
use super::view::{
    Answer, CODE, DIMENSION, ITEM, Late, POSITION, ViewModel, WATERMARK_DELAY_US, WINDOW_END, WINDOW_START,
};
use super::window::Window;

/// How far an answer over some records goes.
pub(super) struct Reached {
    /// The watermark that all partitions have passed; none while one has no event.
    pub(super) watermark_us: Option<i64>,
    /// How many records each partition has.
    pub(super) ends: Vec<u64>,
}

/// How far an answer over these records goes.
pub(super) fn reached(records: &[Placed], partitions: u32) -> Reached {
    let of = |partition: u32| records.iter().filter(move |record| record.partition == partition);
    Reached {
        watermark_us: watermark(records, partitions),
        ends: (0..partitions).map(|partition| of(partition).count() as u64).collect(),
    }
}

fn watermark(records: &[Placed], partitions: u32) -> Option<i64> {
    let largest = |partition: u32| {
        records.iter().filter(|record| record.partition == partition).map(|record| record.event.time_us()).max()
    };
    let largest: Option<Vec<i64>> = (0..partitions).map(largest).collect();
    largest.map(|times| times.into_iter().min().unwrap() - WATERMARK_DELAY_US)
}

/// The late events that are counted are counted as such in their cells, once.
pub(super) fn check_late_counts(model: &ViewModel, expected: &Answer, states: &RecordBatch) -> Result<(), String> {
    if model.join.is_some() || model.unnest.is_some() || model.sets.is_some() {
        return Ok(());
    }
    let late = states.column_by_name("_late").unwrap().as_primitive::<Int64Type>();
    let found = sum(late).unwrap_or(0);
    if found == i64::try_from(expected.counted_late).unwrap() {
        return Ok(());
    }
    Err(format!("{found} late events in the cells, expected {}", expected.counted_late))
}

/// The late events that the view's condition lets through, with the columns of these names; of a view of rows, the rows
/// that it leaves out.
pub(super) fn late_rows(
    model: &ViewModel,
    records: &[Placed],
    dimension: &[Vec<Value>],
    names: &[&str],
) -> Vec<Vec<Expected>> {
    let late = records.iter().filter(|placed| model.is_late(placed));
    if model.is_of_rows {
        let all = ViewModel { late: Late::Include, ..model.clone() };
        return all.answer(&late.cloned().collect::<Vec<_>>(), dimension).rows.unwrap();
    }
    let model = &model.folded();
    let mut found: BTreeMap<(Vec<Key>, usize), Vec<Expected>> = BTreeMap::new();
    for placed in late {
        let mut rows = model.source_rows(&placed.event.0, dimension);
        rows.retain(|row| model.condition.as_ref().is_none_or(|condition| condition.value(row).truth() == Some(true)));
        for (ordinal, row) in rows.iter().enumerate() {
            let row: Vec<Value> = names.iter().map(|name| value(model, placed, row, name)).collect();
            // items that are alike are several rows, rows of a table that are alike are one
            let number = if model.unnest.is_some() { ordinal } else { 0 };
            let key = (row.iter().map(Value::key).collect(), number);
            found.insert(key, row.into_iter().map(Expected::exact).collect());
        }
    }
    found.into_values().collect()
}

/// Takes the column with the number of a row out: the rows of a record have 0, 1, … in any order, as that of the
/// matches of a join is not told.
pub(super) fn without_numbers(found: &mut [Vec<Value>], names: &mut Vec<&str>) -> Result<(), String> {
    let Some(ordinal) = names.iter().position(|name| *name == "_ordinal") else { return Ok(()) };
    names.remove(ordinal);
    let place = ["_partition", "_offset"].map(|name| names.iter().position(|known| *known == name).unwrap());
    let mut numbers: BTreeMap<[Key; 2], Vec<Value>> = BTreeMap::new();
    for row in found {
        let number = row.remove(ordinal);
        numbers.entry(place.map(|column| row[column].key())).or_default().push(number);
    }
    for of_record in numbers.values_mut() {
        of_record.sort_by_cached_key(Value::key);
        let counted = (0..of_record.len()).map(|number| Value::Int(i128::try_from(number).unwrap()).key());
        if !of_record.iter().map(Value::key).eq(counted) {
            return Err(format!("the rows of a record have the numbers {of_record:?}"));
        }
    }
    Ok(())
}

/// A column of a row.
fn value(model: &ViewModel, placed: &Placed, row: &[Value], name: &str) -> Value {
    let bounds = || model.window.as_ref().unwrap().only(placed.event.time_us());
    match name {
        "item" => row[ITEM].clone(),
        "_partition" => Value::Int(placed.partition.into()),
        "_offset" => Value::Int(placed.offset.into()),
        "_append_time" => Value::Time(placed.append_us),
        "_event_time" => Value::Time(placed.event.time_us()),
        "_max_event_time" => placed.largest_before.map_or(Value::Null, Value::Time),
        "window_start" => Value::Time(bounds().0),
        "window_end" => Value::Time(bounds().1),
        name => {
            let of_event = COLUMNS.iter().position(|(column, ..)| *column == name);
            let of_dimension = || CODE + DIMENSION.iter().position(|(column, ..)| *column == name).unwrap();
            row[of_event.unwrap_or_else(of_dimension)].clone()
        }
    }
}

impl ViewModel {
    /// True if a watermark closes the view's cells: a key is a window or a bucket of the event time. Rows without a group
    /// have no such key, and a new version of a table may change any row.
    pub(super) fn has_finality(&self) -> bool {
        let is_bound = |key: &Expression| matches!(key, Expression::Column(WINDOW_START | WINDOW_END, _));
        if self.is_of_rows || self.joins_late() {
            return false;
        }
        match &self.window {
            Some(_) => self.log_time.is_none() && self.keys.iter().any(is_bound),
            None => self.time_bucket().is_some(),
        }
    }

    /// True if nothing that is in time can come into the group of a row any more.
    pub(super) fn is_final(&self, set: usize, row: &[Value], reached: &Reached) -> bool {
        if self.window.as_ref().is_some_and(Window::is_counted) {
            let (Value::Int(end), Value::Int(partition)) = (&row[WINDOW_END], &row[POSITION]) else { return false };
            return *end <= i128::from(reached.ends[usize::try_from(*partition).unwrap()]);
        }
        let Some(watermark_us) = reached.watermark_us else { return false };
        let has = |key: usize| self.sets.as_ref().is_none_or(|sets| sets[set][key]);
        let is_told_apart = |is_time: &dyn Fn(&Expression) -> bool| {
            self.keys.iter().enumerate().any(|(index, key)| has(index) && is_time(key))
        };
        if let Some(window) = &self.window {
            let (Value::Time(start), Value::Time(end)) = (&row[WINDOW_START], &row[WINDOW_END]) else { return false };
            let is_bound = |key: &Expression| matches!(key, Expression::Column(WINDOW_START | WINDOW_END, _));
            return is_told_apart(&is_bound) && window.is_final((*start, *end), watermark_us);
        }
        let Some(bucket) = self.time_bucket() else { return false };
        let text = |key: &Expression| key.sql(&|column| column.to_string());
        is_told_apart(&|key| text(key) == text(bucket)) && self.bucket_of(watermark_us) > self.bucket(row)
    }
}

/// What an aggregate reads.
pub(super) fn columns_read(aggregate: &Aggregate) -> Vec<usize> {
    let plain = aggregate.argument.iter().chain(&aggregate.second).chain(&aggregate.filter);
    let orders = aggregate.order_by.iter().map(|order_by| &order_by.key);
    plain.chain(orders).flat_map(Expression::columns).collect()
}
