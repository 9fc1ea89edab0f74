//! `sum(x)`: exact. Integers and decimals never wrap, floats are rounded once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, LargeBinaryBuilder, PrimitiveArray};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, Float64Type,
    Int64Type, UInt64Type, i256,
};
use datafusion::common::{Result, exec_datafusion_err, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::exact::cells::Sums;
use super::exact::whole::{INTEGER_STATE, Summed, Totals};
use super::groups::{Groups, Rows, bytes_of, grow, nulls_of};
use super::udaf::{Definition, Distinct, StateColumn, boxed, only, value_type};

/// Digits of a decimal256 argument that leave room for 2^63 values in 76 digits.
const DECIMAL256_ARGUMENT_MAX: u8 = 57;

/// The aggregate `sum`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sum;

impl Definition for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn distinct(&self) -> Distinct {
        Distinct::Refused("sum(distinct x) keeps every value and is not supported in a view; write sum(x)")
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![numeric("sum", args)?])
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match only("sum", args)? {
            DataType::Decimal128(_, scale) => Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)),
            DataType::Decimal256(_, scale) => Ok(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale)),
            other => Ok(other.clone()),
        }
    }

    fn state(&self, args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![("sum", sum_state("sum", only("sum", args)?)?, true)])
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let arg = call.expr_fields[0].data_type();
        let state = sum_state("sum", arg)?;
        match arg {
            DataType::Int64 => boxed(WholeSums::<Int64Type, Int64Type>::new(state, &DataType::Int64)),
            DataType::UInt64 => boxed(WholeSums::<UInt64Type, UInt64Type>::new(state, &DataType::UInt64)),
            DataType::Decimal128(..) => {
                boxed(WholeSums::<Decimal128Type, Decimal128Type>::new(state, call.return_type()))
            }
            DataType::Decimal256(..) => {
                boxed(WholeSums::<Decimal256Type, Decimal256Type>::new(state, call.return_type()))
            }
            _ => boxed(FloatSums::default()),
        }
    }
}

/// The type a numeric argument is summed in.
pub(crate) fn numeric(name: &str, args: &[DataType]) -> Result<DataType> {
    use DataType::{
        Decimal32, Decimal64, Decimal128, Decimal256, Float16, Float32, Float64, Int8, Int16, Int32, Int64, Null,
        UInt8, UInt16, UInt32, UInt64,
    };
    match value_type(only(name, args)?) {
        Int8 | Int16 | Int32 | Int64 => Ok(Int64),
        UInt8 | UInt16 | UInt32 | UInt64 => Ok(UInt64),
        Float16 | Float32 | Float64 | Null => Ok(Float64),
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale) => {
            Ok(Decimal128(*precision, *scale))
        }
        Decimal256(precision, scale) if *precision <= DECIMAL256_ARGUMENT_MAX => Ok(Decimal256(*precision, *scale)),
        Decimal256(precision, _) => {
            plan_err!("{name}: a decimal of {precision} digits is too wide, the most is {DECIMAL256_ARGUMENT_MAX}")
        }
        other => plan_err!("{name}: expected a number, found {other}"),
    }
}

/// The state of the sum of a coerced argument.
pub(crate) fn sum_state(name: &str, arg: &DataType) -> Result<DataType> {
    match arg {
        DataType::Int64 | DataType::UInt64 => Ok(INTEGER_STATE),
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            Ok(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale))
        }
        DataType::Float64 => Ok(DataType::LargeBinary),
        other => plan_err!("{name}: expected a number, found {other}"),
    }
}

/// Narrowing an exact sum to the result type.
trait Narrow<N> {
    /// None when it does not fit; `digits_max` bounds decimals.
    fn narrow(self, digits_max: u8) -> Option<N>;
}

impl Narrow<i64> for i128 {
    fn narrow(self, _digits_max: u8) -> Option<i64> {
        self.try_into().ok()
    }
}

impl Narrow<u64> for i128 {
    fn narrow(self, _digits_max: u8) -> Option<u64> {
        self.try_into().ok()
    }
}

impl Narrow<i128> for i256 {
    fn narrow(self, digits_max: u8) -> Option<i128> {
        self.to_i128().filter(|sum| sum.unsigned_abs() < 10_u128.pow(u32::from(digits_max)))
    }
}

impl Narrow<i256> for i256 {
    fn narrow(self, _digits_max: u8) -> Option<i256> {
        Some(self)
    }
}

/// Sums of integers or decimals of type `T`, with results of type `R`.
struct WholeSums<T: Summed, R> {
    totals: Totals<T>,
    seen: Vec<bool>,
    result: DataType,
    _result: std::marker::PhantomData<fn() -> R>,
}

impl<T: Summed, R> WholeSums<T, R> {
    fn new(state: DataType, result: &DataType) -> Self {
        Self::of(Totals::new(state), Vec::new(), result.clone())
    }

    fn of(totals: Totals<T>, seen: Vec<bool>, result: DataType) -> Self {
        Self { totals, seen, result, _result: std::marker::PhantomData }
    }
}

impl<T: Summed, R: ArrowPrimitiveType> Groups for WholeSums<T, R>
where
    <T::State as ArrowPrimitiveType>::Native: Narrow<R::Native>,
{
    fn fresh(&self) -> Self {
        Self::of(self.totals.fresh(), Vec::new(), self.result.clone())
    }

    fn resize(&mut self, groups: usize) {
        self.totals.resize(groups);
        grow(&mut self.seen, groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let seen = self.seen.as_mut_slice();
        self.totals.update(&args[0], rows, |group| seen[group] = true);
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let seen = self.seen.as_mut_slice();
        self.totals.merge(&states[0], rows, |group| seen[group] = true);
        Ok(())
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self::of(self.totals.take(emit), emit.take_needed(&mut self.seen), self.result.clone())
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.totals.into_state(nulls_of(&self.seen))])
    }

    fn into_values(self) -> Result<ArrayRef> {
        let narrow = |sum: &<T::State as ArrowPrimitiveType>::Native| {
            sum.narrow(DECIMAL128_MAX_PRECISION).ok_or_else(|| out_of_range(&self.result))
        };
        let values = self.totals.sums.iter().map(narrow).collect::<Result<Vec<_>>>()?;
        let array = PrimitiveArray::<R>::new(values.into(), nulls_of(&self.seen));
        Ok(Arc::new(array.with_data_type(self.result)))
    }

    fn heap_bytes(&self) -> usize {
        self.totals.heap_bytes() + bytes_of(&self.seen)
    }
}

fn out_of_range(result: &DataType) -> datafusion::error::DataFusionError {
    match result {
        DataType::Int64 => exec_datafusion_err!("sum: bigint out of range"),
        DataType::UInt64 => exec_datafusion_err!("sum: unsigned bigint out of range"),
        other => exec_datafusion_err!("sum: {other} out of range"),
    }
}

/// Sums of doubles.
#[derive(Default)]
struct FloatSums(Sums);

impl Groups for FloatSums {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn resize(&mut self, groups: usize) {
        self.0.resize(groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        rows.each_value(args[0].as_primitive::<Float64Type>(), |group, value| self.0.add(group, value));
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        merge_exact(&mut self.0, &states[0], rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self(self.0.take(emit))
    }

    fn into_state(mut self) -> Result<Vec<ArrayRef>> {
        Ok(vec![exact_state(&mut self.0)])
    }

    fn into_values(mut self) -> Result<ArrayRef> {
        let sums = &mut self.0;
        let count = sums.len();
        let value = |group| if sums.is_empty(group) { None } else { Some(sums.quotient(group, 1)) };
        Ok(Arc::new((0..count).map(value).collect::<Float64Array>()))
    }

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Adds canonical states to exact sums.
pub(crate) fn merge_exact<W: super::exact::window::Window>(
    sums: &mut super::exact::cells::ExactCells<W>,
    states: &ArrayRef,
    rows: &Rows<'_>,
) -> Result<()> {
    let states = states.as_binary::<i64>();
    rows.try_each(states.nulls(), |row, group| sums.merge(group, states.value(row)))
}

/// The canonical states of exact sums; null for a group without values.
pub(crate) fn exact_state<W: super::exact::window::Window>(sums: &mut super::exact::cells::ExactCells<W>) -> ArrayRef {
    let mut states = LargeBinaryBuilder::with_capacity(sums.len(), sums.len() * 21);
    let mut bytes = Vec::with_capacity(64);
    for group in 0..sums.len() {
        if sums.is_empty(group) {
            states.append_null();
            continue;
        }
        bytes.clear();
        sums.write_state(group, &mut bytes);
        states.append_value(&bytes);
    }
    Arc::new(states.finish())
}
