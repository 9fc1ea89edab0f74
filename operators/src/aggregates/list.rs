//! `array_agg(x ORDER BY k)` and `string_agg(x, separator ORDER BY k)`: every value of a cell, in the order
//! of the keys, then of the position. Without a key: by position. With `DISTINCT`: each value once, in
//! the order of the values.
//!
//! Lists are for small cells: past the cap a cell has no answer.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, new_empty_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::bag::Span;
use super::bags::{Bags, state};
use super::capped::Use;
use super::groups::{Groups, Rows};
use super::order::{Direction, Order};
use super::types::{byte_slices, bytes_array, plain_type};
use super::udaf::{Definition, Distinct, StateColumn, boxed};

/// A list of values, or a text made of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct List {
    name: String,
    order: Order,
    distinct: bool,
    /// None for `array_agg`.
    separator: Option<String>,
}

/// How a call orders its values.
pub(crate) enum ListOrder {
    /// By keys with these directions, then by position.
    Keys(Vec<Direction>),
    /// `DISTINCT`: by value.
    Distinct(Direction),
}

impl List {
    /// `array_agg`, or `string_agg` with its separator. Texts are made of values that are not null.
    pub(crate) fn new(separator: Option<String>, order: ListOrder, skip_nulls: bool) -> Self {
        let (directions, distinct) = match order {
            ListOrder::Keys(directions) => (directions, false),
            ListOrder::Distinct(direction) => (vec![direction], true),
        };
        let skip_nulls = skip_nulls || separator.is_some();
        let order = Order { directions, by_position: !distinct, skip_nulls, skip_null_keys: false };
        let keys: Vec<String> = order.directions.iter().map(|direction| direction.text()).collect();
        let function = if separator.is_some() { "string_agg" } else { "array_agg" };
        let (kind, nulls) = (if distinct { "distinct" } else { "all" }, if skip_nulls { "ignore" } else { "respect" });
        let mut parts = vec![kind.to_owned(), format!("{nulls} nulls")];
        parts.extend(separator.as_ref().map(|separator| format!("{separator:?}")));
        parts.push(keys.join(", "));
        let name = format!("{function}[{}]", parts.join("; "));
        Self { name, order, distinct, separator }
    }

    fn values_type(&self, args: &[DataType]) -> DataType {
        match self.separator {
            Some(_) => DataType::LargeUtf8,
            None => DataType::new_list(args[0].clone(), true),
        }
    }
}

impl Definition for List {
    fn name(&self) -> &str {
        &self.name
    }

    fn distinct(&self) -> Distinct {
        Distinct::Ignored
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let types: Vec<DataType> = args.iter().map(|arg| plain_type(arg).clone()).collect();
        self.order.check(&self.name, &types)?;
        Ok(types)
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(Use::View.answer_type(self.values_type(args)))
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(state())
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let args = call.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        boxed(Lists { list: self.clone(), args, bags: Bags::new(Use::View.cap()), entry: Vec::new() })
    }
}

/// One bag of entries per group.
struct Lists {
    list: List,
    args: Vec<DataType>,
    bags: Bags<Span, u64>,
    /// Scratch.
    entry: Vec<u8>,
}

impl Lists {
    fn with(&self, bags: Bags<Span, u64>) -> Self {
        Self { list: self.list.clone(), args: self.args.clone(), bags, entry: Vec::new() }
    }
}

impl Groups for Lists {
    fn fresh(&self) -> Self {
        self.with(self.bags.fresh())
    }

    fn resize(&mut self, groups: usize) {
        self.bags.resize(groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let entries = self.list.order.entries(args)?;
        let (bags, entry) = (&mut self.bags, &mut self.entry);
        rows.each(entries.nulls.as_ref(), |row, group| {
            entry.clear();
            entries.write_order(row, entry);
            entries.write_value(row, entry);
            bags.add(group, entry);
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        self.bags.merge(&states[0], rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let taken = self.bags.take(emit);
        self.with(taken)
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.bags.into_state()])
    }

    fn into_values(mut self) -> Result<ArrayRef> {
        let over = self.bags.each().map(|runs| runs.is_none()).collect();
        let (mut entries, mut lengths) = (Vec::new(), Vec::new());
        for runs in self.bags.each() {
            let before = entries.len();
            for (entry, count) in runs.into_iter().flatten() {
                let times = if self.list.distinct { 1 } else { count as usize };
                entries.extend(std::iter::repeat_n(Some(entry), times));
            }
            lengths.push(entries.len() - before);
        }
        let values = match entries.as_slice() {
            [] => new_empty_array(&self.args[0]),
            _ => self.list.order.values(&self.args, entries.into_iter())?,
        };
        let answers = match &self.list.separator {
            None => lists(values, &lengths),
            Some(separator) => texts(&values, &lengths, separator)?,
        };
        Use::View.answer(&self.list.name, answers, over)
    }

    fn heap_bytes(&self) -> usize {
        self.bags.heap_bytes()
    }
}

/// Consecutive values as lists; NULL for none.
fn lists(values: ArrayRef, lengths: &[usize]) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let any: NullBuffer = lengths.iter().map(|length| *length > 0).collect();
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths.iter().copied()), values, Some(any)))
}

/// Consecutive values as texts; NULL for none.
fn texts(values: &ArrayRef, lengths: &[usize], separator: &str) -> Result<ArrayRef> {
    let mut values = byte_slices(values)?.into_iter();
    let mut text = |length: &usize| {
        let parts: Vec<&[u8]> = values.by_ref().take(*length).collect();
        (!parts.is_empty()).then(|| parts.join(separator.as_bytes()))
    };
    let texts: Vec<Option<Vec<u8>>> = lengths.iter().map(&mut text).collect();
    bytes_array(&DataType::LargeUtf8, &texts)
}
