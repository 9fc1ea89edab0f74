//! `first_value(x ORDER BY k)`, `last_value(x ORDER BY k)`, `arg_min(x, k)`, `arg_max(x, k)`: the value of
//! one record, the first or the last by the keys, then by position. Without a key: by position.
//!
//! `first_value` and `last_value` take nulls for values unless `IGNORE NULLS` is said; `arg_min` and
//! `arg_max` leave out records without a value or a key, and of equal keys take the earliest record.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::groups::{Groups, Rows, bytes_of, grow};
use super::order::{Direction, Order};
use super::types::plain_type;
use super::udaf::{Definition, Distinct, StateColumn, boxed};

/// One record's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pick {
    name: String,
    order: Order,
    last: bool,
}

impl Pick {
    /// `first_value` or `last_value`.
    pub(crate) fn end(last: bool, directions: Vec<Direction>, skip_nulls: bool) -> Self {
        let order = Order { directions, by_position: true, skip_nulls, skip_null_keys: false };
        let nulls = if skip_nulls { "ignore nulls" } else { "respect nulls" };
        let keys: Vec<String> = order.directions.iter().map(|direction| direction.text()).collect();
        let function = if last { "last_value" } else { "first_value" };
        Self { name: format!("{function}[{nulls}; {}]", keys.join(", ")), order, last }
    }

    /// `arg_min` or `arg_max`; `by_position` in views, where the position decides between equal keys.
    pub(crate) fn extreme(greatest: bool, by_position: bool) -> Self {
        let direction = if greatest { Direction::DESCENDING } else { Direction::ASCENDING };
        let order = Order { directions: vec![direction], by_position, skip_nulls: true, skip_null_keys: true };
        Self { name: if greatest { "arg_max" } else { "arg_min" }.into(), order, last: false }
    }
}

impl Definition for Pick {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &'static [&'static str] {
        match self.name.as_str() {
            "arg_min" => &["argmin", "min_by"],
            "arg_max" => &["argmax", "max_by"],
            _ => &[],
        }
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
        Ok(args[0].clone())
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![("record", DataType::LargeBinary, true)])
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let args: Vec<DataType> = call.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        boxed(Picks { pick: self.clone(), args, kept: Vec::new(), heap: 0, entry: Vec::new() })
    }
}

/// One entry per group.
struct Picks {
    pick: Pick,
    args: Vec<DataType>,
    kept: Vec<Option<Vec<u8>>>,
    /// Bytes that the entries hold.
    heap: usize,
    /// Scratch.
    entry: Vec<u8>,
}

impl Picks {
    fn with(&self, kept: Vec<Option<Vec<u8>>>) -> Self {
        let heap = kept.iter().flatten().map(Vec::capacity).sum();
        Self { pick: self.pick.clone(), args: self.args.clone(), kept, heap, entry: Vec::new() }
    }

    fn is_before(&self, entry: &[u8], kept: &[u8]) -> bool {
        if self.pick.last { entry > kept } else { entry < kept }
    }

    /// Keeps an entry.
    fn keep(&mut self, group: usize, entry: &[u8]) {
        let kept = self.kept[group].get_or_insert_default();
        self.heap -= kept.capacity();
        kept.clear();
        kept.extend_from_slice(entry);
        self.heap += kept.capacity();
    }
}

impl Groups for Picks {
    fn fresh(&self) -> Self {
        self.with(Vec::new())
    }

    fn resize(&mut self, groups: usize) {
        grow(&mut self.kept, groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let entries = self.pick.order.entries(args)?;
        let mut entry = std::mem::take(&mut self.entry);
        rows.each(entries.nulls.as_ref(), |row, group| {
            entry.clear();
            entries.write_order(row, &mut entry);
            // No order is the beginning of another: most rows are decided without their value.
            if let Some(kept) = &self.kept[group] {
                let same = &kept[..entry.len().min(kept.len())];
                if entry != same && !self.is_before(&entry, same) {
                    return;
                }
            }
            entries.write_value(row, &mut entry);
            if self.kept[group].as_ref().is_none_or(|kept| self.is_before(&entry, kept)) {
                self.keep(group, &entry);
            }
        });
        self.entry = entry;
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let states = states[0].as_binary::<i64>();
        rows.each(states.nulls(), |row, group| {
            let entry = states.value(row);
            if self.kept[group].as_ref().is_none_or(|kept| self.is_before(entry, kept)) {
                self.keep(group, entry);
            }
        });
        Ok(())
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let kept = emit.take_needed(&mut self.kept);
        let taken = self.with(kept);
        self.heap -= taken.heap;
        taken
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        let mut states = LargeBinaryBuilder::with_capacity(self.kept.len(), self.heap);
        for entry in &self.kept {
            states.append_option(entry.as_deref());
        }
        Ok(vec![Arc::new(states.finish())])
    }

    fn into_values(self) -> Result<ArrayRef> {
        self.pick.order.values(&self.args, self.kept.iter().map(Option::as_deref))
    }

    fn heap_bytes(&self) -> usize {
        bytes_of(&self.kept) + self.heap
    }
}
