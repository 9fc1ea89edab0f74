//! `bit_and(x)`, `bit_or(x)`, `bit_xor(x)` over integers.

use std::marker::PhantomData;
use std::ops::{BitAnd, BitOr, BitXor};
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::groups::{Groups, Kept, Rows, nulls_of};
use super::udaf::{Definition, Distinct, StateColumn, boxed, only, value_type};

/// The three aggregates of this file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Bits {
    /// `bit_and`.
    And,
    /// `bit_or`.
    Or,
    /// `bit_xor`.
    Xor,
}

impl Bits {
    fn sql_name(&self) -> &'static str {
        match self {
            Self::And => "bit_and",
            Self::Or => "bit_or",
            Self::Xor => "bit_xor",
        }
    }
}

impl Definition for Bits {
    fn name(&self) -> &'static str {
        self.sql_name()
    }

    fn distinct(&self) -> Distinct {
        match self {
            Self::And | Self::Or => Distinct::Ignored,
            Self::Xor => Distinct::Refused("bit_xor(distinct x) keeps every value and is not supported in a view"),
        }
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match value_type(only(self.name(), args)?) {
            DataType::Null => Ok(vec![DataType::Int64]),
            integer if integer.is_integer() => Ok(vec![integer.clone()]),
            other => plan_err!("{}: expected an integer, found {other}", self.name()),
        }
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        only(self.name(), args).cloned()
    }

    fn state(&self, args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![(self.sql_name(), only(self.name(), args)?.clone(), true)])
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match call.expr_fields[0].data_type() {
            DataType::Int8 => self.table::<Int8Type>(),
            DataType::Int16 => self.table::<Int16Type>(),
            DataType::Int32 => self.table::<Int32Type>(),
            DataType::Int64 => self.table::<Int64Type>(),
            DataType::UInt8 => self.table::<UInt8Type>(),
            DataType::UInt16 => self.table::<UInt16Type>(),
            DataType::UInt32 => self.table::<UInt32Type>(),
            DataType::UInt64 => self.table::<UInt64Type>(),
            other => plan_err!("{}: expected an integer, found {other}", self.name()),
        }
    }
}

impl Bits {
    fn table<T: ArrowPrimitiveType>(&self) -> Result<Box<dyn GroupsAccumulator>>
    where
        T::Native: Integer,
    {
        match self {
            Self::And => boxed(BitFold::<T, And>::default()),
            Self::Or => boxed(BitFold::<T, Or>::default()),
            Self::Xor => boxed(BitFold::<T, Xor>::default()),
        }
    }
}

trait Integer: BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Copy + Default {}
impl<N: BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Copy + Default> Integer for N {}

trait Operator: Send + 'static {
    fn fold<N: Integer>(a: N, b: N) -> N;
}

struct And;
struct Or;
struct Xor;

impl Operator for And {
    #[inline]
    fn fold<N: Integer>(a: N, b: N) -> N {
        a & b
    }
}

impl Operator for Or {
    #[inline]
    fn fold<N: Integer>(a: N, b: N) -> N {
        a | b
    }
}

impl Operator for Xor {
    #[inline]
    fn fold<N: Integer>(a: N, b: N) -> N {
        a ^ b
    }
}

/// One integer per group.
struct BitFold<T: ArrowPrimitiveType, O> {
    kept: Kept<T::Native>,
    operator: PhantomData<O>,
}

impl<T: ArrowPrimitiveType, O> Default for BitFold<T, O> {
    fn default() -> Self {
        Self { kept: Kept::default(), operator: PhantomData }
    }
}

impl<T: ArrowPrimitiveType<Native: Integer>, O: Operator> Groups for BitFold<T, O> {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn resize(&mut self, groups: usize) {
        self.kept.resize(groups, T::Native::default());
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let (kept, seen) = (self.kept.values.as_mut_slice(), self.kept.seen.as_mut_slice());
        rows.each_value(args[0].as_primitive::<T>(), |group, value| {
            kept[group] = if seen[group] { O::fold(kept[group], value) } else { value };
            seen[group] = true;
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        self.update(states, rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self { kept: self.kept.take(emit), operator: PhantomData }
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.into_values()?])
    }

    fn into_values(self) -> Result<ArrayRef> {
        Ok(Arc::new(PrimitiveArray::<T>::new(self.kept.values.into(), nulls_of(&self.kept.seen))))
    }

    fn heap_bytes(&self) -> usize {
        self.kept.heap_bytes()
    }
}
