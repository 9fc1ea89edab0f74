//! `approx_distinct(x)`: HyperLogLog++, 1.6 % standard error, practically exact up to 1,024 values.

pub(crate) mod hash;
pub(crate) mod sketch;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use self::hash::{Hashed, hash_bool, hash_bytes, tag_of};
use self::sketch::Sketch;
use super::groups::{Groups, Rows, bytes_of};
use super::types::{each_bytes, is_bytes, plain_type, with_primitive};
use super::udaf::{Definition, Distinct, StateColumn, boxed, only};

/// The aggregate `approx_distinct`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ApproxDistinct;

impl Definition for ApproxDistinct {
    fn name(&self) -> &'static str {
        "approx_distinct"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["approx_count_distinct"]
    }

    fn distinct(&self) -> Distinct {
        Distinct::Ignored
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match plain_type(only("approx_distinct", args)?) {
            arg if tag_of(arg).is_some() => Ok(vec![arg.clone()]),
            other => plan_err!("approx_distinct: {other} is not supported"),
        }
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt64)
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![("sketch", DataType::LargeBinary, false)])
    }

    fn groups(&self, _call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        boxed(Sketches::default())
    }

    fn over_nothing(&self) -> Option<ScalarValue> {
        Some(ScalarValue::UInt64(Some(0)))
    }
}

/// One sketch per group.
#[derive(Default)]
struct Sketches {
    sketches: Vec<Sketch>,
    /// Bytes that the sketches hold.
    heap: usize,
}

impl Sketches {
    #[inline]
    fn insert(&mut self, group: usize, hash: u64) {
        self.heap = self.heap.wrapping_add_signed(self.sketches[group].insert(hash));
    }
}

impl Groups for Sketches {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn resize(&mut self, groups: usize) {
        if groups > self.sketches.len() {
            self.sketches.resize_with(groups, Sketch::default);
        }
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let array = &args[0];
        let data_type = array.data_type();
        let Some(tag) = tag_of(data_type) else {
            return exec_err!("approx_distinct: {data_type} is not supported");
        };
        if is_bytes(data_type) {
            return each_bytes(array, rows, |group, value| self.insert(group, hash_bytes(tag, value)));
        }
        macro_rules! insert_all {
            ($primitive:ty) => {
                rows.each_value(array.as_primitive::<$primitive>(), |group, value| {
                    self.insert(group, value.hash(tag));
                })
            };
        }
        with_primitive!(data_type, insert_all, {
            let values = array.as_boolean();
            rows.each(values.nulls(), |row, group| self.insert(group, hash_bool(tag, values.value(row))));
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let states = states[0].as_binary::<i64>();
        rows.try_each(states.nulls(), |row, group| {
            self.heap = self.heap.wrapping_add_signed(self.sketches[group].merge(states.value(row))?);
            Ok(())
        })
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let sketches = emit.take_needed(&mut self.sketches);
        let heap = sketches.iter().map(Sketch::heap_bytes).sum();
        self.heap -= heap;
        Self { sketches, heap }
    }

    fn into_state(mut self) -> Result<Vec<ArrayRef>> {
        let mut states = LargeBinaryBuilder::with_capacity(self.sketches.len(), self.heap);
        let mut bytes = Vec::new();
        for sketch in &mut self.sketches {
            bytes.clear();
            sketch.write(&mut bytes);
            states.append_value(&bytes);
        }
        Ok(vec![Arc::new(states.finish())])
    }

    fn into_values(mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.sketches.iter_mut().map(|sketch| Some(sketch.estimate())).collect::<UInt64Array>()))
    }

    fn heap_bytes(&self) -> usize {
        bytes_of(&self.sketches) + self.heap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value an emit of 131,073 dense sketches must not overflow is an i32 offset.
    #[test]
    fn dense_states_fit_large_offsets() {
        let columns = ApproxDistinct.state(&[DataType::Utf8View]).unwrap();
        assert_eq!(columns, [("sketch", DataType::LargeBinary, false)]);
    }
}
