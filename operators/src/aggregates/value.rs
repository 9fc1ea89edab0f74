//! `_value(x)`: the value of a cell that is one row, for views without an aggregate. No user calls it.
//!
//! A cell of such a view has one row by its key, so that there is nothing to choose between. Should the same
//! row be counted twice, both have the same value, and the evidence shows the count; to be a lawful merge all
//! the same, of different values the smallest is kept, nulls last.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, make_comparator, new_empty_array, new_null_array};
use arrow::compute::{SortOptions, concat, interleave};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use schemas::footprint;

use super::groups::{Groups, Rows, bytes_of};
use super::udaf::{Definition, Distinct, StateColumn, boxed, only, udaf};

const NAME: &str = "_value";
/// Null is above all values: a group without a row is neutral.
const NULLS_LAST: SortOptions = SortOptions { descending: false, nulls_first: false };

/// The aggregate.
pub(crate) fn function() -> Arc<AggregateUDF> {
    udaf(OneValue)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OneValue;

impl Definition for OneValue {
    fn name(&self) -> &'static str {
        NAME
    }

    fn distinct(&self) -> Distinct {
        Distinct::Ignored
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![only(NAME, args)?.clone()])
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        only(NAME, args).cloned()
    }

    fn state(&self, args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![("value", only(NAME, args)?.clone(), true)])
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        boxed(Values::new(call.expr_fields[0].data_type().clone()))
    }
}

/// Where a group's value is: number of the array, row in it.
type Place = Option<(usize, usize)>;

/// The arrays as they came, and where in them each group's value is.
struct Values {
    data_type: DataType,
    arrays: Vec<ArrayRef>,
    /// Rows of all arrays.
    rows: usize,
    groups: usize,
    /// None as long as group `i` is row `i` of the arrays one behind the other.
    places: Option<Vec<Place>>,
}

impl Values {
    fn new(data_type: DataType) -> Self {
        Self { data_type, arrays: vec![], rows: 0, groups: 0, places: None }
    }

    /// True if a batch's rows are the next groups, each one its own.
    fn goes_on(&self, rows: &Rows<'_>, count: usize) -> bool {
        self.places.is_none() && rows.are_all_of(self.rows..self.rows + count)
    }

    /// Where each group's value is, from now on written out.
    fn places(&mut self) -> &mut Vec<Place> {
        let arrays = &self.arrays;
        let places = self.places.get_or_insert_with(|| {
            let of_array = |(number, array): (usize, &ArrayRef)| (0..array.len()).map(move |row| Some((number, row)));
            arrays.iter().enumerate().flat_map(of_array).collect()
        });
        places.resize(self.groups.max(places.len()), None);
        places
    }

    fn values(&self) -> Result<ArrayRef> {
        let Some(places) = &self.places else {
            let missing = new_null_array(&self.data_type, self.groups - self.rows);
            let mut parts: Vec<&dyn Array> = self.arrays.iter().map(AsRef::as_ref).collect();
            if !missing.is_empty() || parts.is_empty() {
                parts.push(missing.as_ref());
            }
            return Ok(concat(&parts)?);
        };
        let null = new_null_array(&self.data_type, 1);
        let mut parts: Vec<&dyn Array> = self.arrays.iter().map(AsRef::as_ref).collect();
        parts.push(null.as_ref());
        let nowhere = (self.arrays.len(), 0);
        let mut indices: Vec<(usize, usize)> = places.iter().map(|place| place.unwrap_or(nowhere)).collect();
        indices.resize(self.groups, nowhere);
        if indices.is_empty() {
            return Ok(new_empty_array(&self.data_type));
        }
        Ok(interleave(&parts, &indices)?)
    }

    fn of(data_type: &DataType, values: ArrayRef) -> Self {
        let rows = values.len();
        Self { data_type: data_type.clone(), arrays: vec![values], rows, groups: rows, places: None }
    }
}

/// Texts in a layout that depends on them alone, without the buffers of the records that they come from.
fn compact(values: ArrayRef) -> ArrayRef {
    match values.as_string_view_opt() {
        None => values,
        Some(texts) if texts.null_count() == 0 => Arc::new(texts.gc()),
        Some(texts) => Arc::new(texts.iter().collect::<StringViewArray>()),
    }
}

impl Groups for Values {
    fn fresh(&self) -> Self {
        Self::new(self.data_type.clone())
    }

    fn resize(&mut self, groups: usize) {
        self.groups = self.groups.max(groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        // a piece of a frame would keep, and count as, the whole frame
        let values = &footprint::compact_column(&args[0])?;
        if self.goes_on(rows, values.len()) {
            self.arrays.push(Arc::clone(values));
            self.rows += values.len();
            return Ok(());
        }
        self.places();
        let number = self.arrays.len();
        self.arrays.push(Arc::clone(values));
        self.rows += values.len();
        let Some(places) = &mut self.places else { return Ok(()) };
        let arrays = &self.arrays;
        rows.try_each(None, |row, group| {
            let place = &mut places[group];
            let is_smaller = match *place {
                None => true,
                Some((other, at)) => make_comparator(values, &arrays[other], NULLS_LAST)?(row, at).is_lt(),
            };
            if is_smaller {
                *place = Some((number, row));
            }
            Ok(())
        })
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        self.update(states, rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let taken = std::mem::replace(self, self.fresh());
        let EmitTo::First(count) = emit else { return taken };
        // the rest is laid out afresh; should that fail, it fails again where the values are asked for
        match taken.values() {
            Ok(values) => {
                *self = Self::of(&taken.data_type, values.slice(count, values.len() - count));
                Self::of(&taken.data_type, values.slice(0, count))
            }
            Err(_) => taken,
        }
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.into_values()?])
    }

    fn into_values(self) -> Result<ArrayRef> {
        Ok(compact(self.values()?))
    }

    fn heap_bytes(&self) -> usize {
        let arrays: usize = self.arrays.iter().map(Array::get_array_memory_size).sum();
        arrays + self.places.as_ref().map_or(0, bytes_of)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array};
    use arrow::datatypes::Int32Type;

    use super::*;
    use crate::laws::{self, Argument};

    #[test]
    fn one_value_keeps_the_laws() {
        let numbers: Int32Array = (0..40).map(|i| (i % 7 != 3).then_some(i * 31 % 17)).collect();
        let texts: StringViewArray =
            (0..40).map(|i| (i % 5 != 1).then(|| format!("a text of some length {}", i % 9))).collect();
        let floats: Float64Array = (0..40).map(|i| (i % 4 != 2).then_some(f64::from(i % 6) - 0.5)).collect();
        let lists = arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(
            (0..40).map(|i| (i % 6 != 5).then(|| (0..i % 3).map(|n| (n != 1).then_some(n * i)).collect::<Vec<_>>())),
        );
        let columns: [ArrayRef; 4] = [Arc::new(numbers), Arc::new(texts), Arc::new(floats), Arc::new(lists)];
        for (seed, column) in (0..).zip(columns) {
            laws::check(&function(), &[Argument::Column(column)], seed).unwrap();
        }
    }

    #[test]
    fn rows_in_order_are_kept_as_they_came() {
        let mut values = Values::new(DataType::Int32);
        let rows: ArrayRef = Arc::new(Int32Array::from(vec![Some(5), None, Some(3)]));
        for start in [0, 3] {
            values.resize(start + 3);
            let groups: Vec<usize> = (start..start + 3).collect();
            values.update(&[Arc::clone(&rows)], &Rows::new(&groups, None)).unwrap();
        }
        assert!(values.places.is_none());
        let expected = Int32Array::from(vec![Some(5), None, Some(3), Some(5), None, Some(3)]);
        assert_eq!(values.into_values().unwrap().as_ref(), &expected);
    }
}
