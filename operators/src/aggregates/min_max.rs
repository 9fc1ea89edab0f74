//! `min(x)`, `max(x)`: NaN is greater than every number, as in Postgres; zero has no sign.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, not_impl_err, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::bool_and_or::{BoolFold, Both, Either};
use super::groups::{Groups, Kept, Rows, bytes_of, grow, nulls_of};
use super::types::{Canonical, bytes_array, each_bytes, is_bytes, plain_type, with_primitive};
use super::udaf::{Definition, Distinct, StateColumn, boxed, only};

/// The aggregates `min` (`MAX` is false) and `max`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Extreme<const MAX: bool>;

impl<const MAX: bool> Extreme<MAX> {
    const NAME: &'static str = if MAX { "max" } else { "min" };
}

impl<const MAX: bool> Definition for Extreme<MAX> {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn distinct(&self) -> Distinct {
        Distinct::Ignored
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        macro_rules! ordered {
            ($primitive:ty) => {
                true
            };
        }
        let arg = plain_type(only(self.name(), args)?);
        let known = is_bytes(arg) || *arg == DataType::Boolean || with_primitive!(arg, ordered, false);
        if known { Ok(vec![arg.clone()]) } else { plan_err!("{}: {arg} has no order here", self.name()) }
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        only(self.name(), args).cloned()
    }

    fn state(&self, args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![(Self::NAME, only(self.name(), args)?.clone(), true)])
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let arg = call.expr_fields[0].data_type();
        macro_rules! primitives {
            ($primitive:ty) => {
                boxed(Primitives::<$primitive, MAX>::new(arg))
            };
        }
        match arg {
            DataType::Boolean if MAX => boxed(BoolFold::<Either>::default()),
            DataType::Boolean => boxed(BoolFold::<Both>::default()),
            arg if is_bytes(arg) => boxed(Bytes::<MAX> { values: Vec::new(), heap: 0, data_type: arg.clone() }),
            arg => with_primitive!(arg, primitives, not_impl_err!("{}: {arg} has no order here", self.name())),
        }
    }
}

/// The extreme of a primitive type per group.
struct Primitives<T: ArrowPrimitiveType, const MAX: bool> {
    kept: Kept<T::Native>,
    data_type: DataType,
}

impl<T: ArrowPrimitiveType, const MAX: bool> Primitives<T, MAX> {
    fn new(data_type: &DataType) -> Self {
        Self { kept: Kept::default(), data_type: data_type.clone() }
    }
}

impl<T: ArrowPrimitiveType<Native: Canonical>, const MAX: bool> Groups for Primitives<T, MAX> {
    fn fresh(&self) -> Self {
        Self::new(&self.data_type)
    }

    fn resize(&mut self, groups: usize) {
        self.kept.resize(groups, T::Native::default());
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let (values, seen) = (self.kept.values.as_mut_slice(), self.kept.seen.as_mut_slice());
        rows.each_value(args[0].as_primitive::<T>(), |group, value| {
            let value = value.canonical();
            let kept = &mut values[group];
            // Floats compare in total order, where the canonical NaN is above all numbers.
            if !seen[group] || (if MAX { value.is_gt(*kept) } else { value.is_lt(*kept) }) {
                *kept = value;
                seen[group] = true;
            }
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        self.update(states, rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self { kept: self.kept.take(emit), data_type: self.data_type.clone() }
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.into_values()?])
    }

    fn into_values(self) -> Result<ArrayRef> {
        let array = PrimitiveArray::<T>::new(self.kept.values.into(), nulls_of(&self.kept.seen));
        Ok(Arc::new(array.with_data_type(self.data_type)))
    }

    fn heap_bytes(&self) -> usize {
        self.kept.heap_bytes()
    }
}

/// The extreme string or byte string per group, in byte order.
struct Bytes<const MAX: bool> {
    values: Vec<Option<Vec<u8>>>,
    heap: usize,
    data_type: DataType,
}

impl<const MAX: bool> Groups for Bytes<MAX> {
    fn fresh(&self) -> Self {
        Self { values: Vec::new(), heap: 0, data_type: self.data_type.clone() }
    }

    fn resize(&mut self, groups: usize) {
        grow(&mut self.values, groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let (values, heap) = (self.values.as_mut_slice(), &mut self.heap);
        each_bytes(&args[0], rows, |group, value| match &mut values[group] {
            Some(kept) if if MAX { value > kept.as_slice() } else { value < kept.as_slice() } => {
                *heap -= kept.capacity();
                kept.clear();
                kept.extend_from_slice(value);
                *heap += kept.capacity();
            }
            Some(_) => {}
            none => {
                *heap += value.len();
                *none = Some(value.to_vec());
            }
        })
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        self.update(states, rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let values = emit.take_needed(&mut self.values);
        let heap = values.iter().flatten().map(Vec::capacity).sum();
        self.heap -= heap;
        Self { values, heap, data_type: self.data_type.clone() }
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.into_values()?])
    }

    fn into_values(self) -> Result<ArrayRef> {
        bytes_array(&self.data_type, &self.values)
    }

    fn heap_bytes(&self) -> usize {
        bytes_of(&self.values) + self.heap
    }
}
