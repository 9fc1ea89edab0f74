//! `count(*)`, `count(x)`: rows, or values that are not null.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::groups::{Groups, Rows, bytes_of, grow};
use super::udaf::{Definition, Distinct, StateColumn, boxed, only};

/// The aggregate `count`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Count;

impl Definition for Count {
    fn name(&self) -> &'static str {
        "count"
    }

    fn distinct(&self) -> Distinct {
        Distinct::Refused(
            "count(DISTINCT x) is lowered to a set before it is folded; this one was not: write approx_distinct(x)",
        )
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        only("count", args).map(|arg| vec![arg.clone()])
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![("count", DataType::Int64, false)])
    }

    fn groups(&self, _call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        boxed(Counts::default())
    }

    fn over_nothing(&self) -> Option<ScalarValue> {
        Some(ScalarValue::Int64(Some(0)))
    }
}

/// One counter per group.
#[derive(Default)]
struct Counts(Vec<i64>);

impl Groups for Counts {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn resize(&mut self, groups: usize) {
        grow(&mut self.0, groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let counts = self.0.as_mut_slice();
        rows.each(args[0].logical_nulls().as_ref(), |_, group| counts[group] += 1);
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let counts = self.0.as_mut_slice();
        rows.each_value(states[0].as_primitive::<Int64Type>(), |group, count| counts[group] += count);
        Ok(())
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self(emit.take_needed(&mut self.0))
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.into_values()?])
    }

    fn into_values(self) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(self.0)))
    }

    fn heap_bytes(&self) -> usize {
        bytes_of(&self.0)
    }
}
