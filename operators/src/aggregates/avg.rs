//! `avg(x)`: the exact sum divided by the count, rounded once.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, Int64Array, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Float64Type, Int64Type, UInt64Type, i256};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::exact::cells::Sums;
use super::exact::round::round_quotient;
use super::exact::whole::{Summed, Totals};
use super::groups::{Groups, Rows, bytes_of, grow};
use super::sum::{exact_state, merge_exact, numeric, sum_state};
use super::udaf::{Definition, Distinct, StateColumn, boxed, only};

/// Digits that the average of decimals has more than its argument, as in DataFusion.
const MORE_DIGITS: u8 = 4;

/// The aggregate `avg`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Avg;

impl Definition for Avg {
    fn name(&self) -> &'static str {
        "avg"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["mean"]
    }

    fn distinct(&self) -> Distinct {
        Distinct::Refused("avg(distinct x) keeps every value and is not supported in a view; write avg(x)")
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![numeric("avg", args)?])
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match only("avg", args)? {
            DataType::Decimal128(precision, scale) => {
                Ok(DataType::Decimal128((precision + MORE_DIGITS).min(38), (scale + MORE_DIGITS as i8).min(38)))
            }
            DataType::Decimal256(precision, scale) => {
                Ok(DataType::Decimal256((precision + MORE_DIGITS).min(76), (scale + MORE_DIGITS as i8).min(76)))
            }
            _ => Ok(DataType::Float64),
        }
    }

    fn state(&self, args: &[DataType]) -> Result<Vec<StateColumn>> {
        let sum = sum_state("avg", only("avg", args)?)?;
        Ok(vec![("count", DataType::Int64, false), ("sum", sum, true)])
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let arg = call.expr_fields[0].data_type();
        let state = sum_state("avg", arg)?;
        match arg {
            DataType::Int64 => boxed(WholeAvgs::<Int64Type>::new(state, integer_averages)),
            DataType::UInt64 => boxed(WholeAvgs::<UInt64Type>::new(state, integer_averages)),
            DataType::Decimal128(_, scale) => {
                let result = DecimalResult::new(*scale, call.return_type());
                boxed(WholeAvgs::<Decimal128Type>::new(state, move |sums, counts| {
                    result.averages::<Decimal128Type>(sums, counts, i256::to_i128)
                }))
            }
            DataType::Decimal256(_, scale) => {
                let result = DecimalResult::new(*scale, call.return_type());
                boxed(WholeAvgs::<Decimal256Type>::new(state, move |sums, counts| {
                    result.averages::<Decimal256Type>(sums, counts, Some)
                }))
            }
            _ => boxed(FloatAvgs::default()),
        }
    }
}

/// From exact sums and counts to results.
type Finish<S> = Arc<dyn Fn(&[S], &[i64]) -> Result<ArrayRef> + Send + Sync>;
type SumOf<T> = <<T as Summed>::State as ArrowPrimitiveType>::Native;

/// Averages of integers or decimals.
struct WholeAvgs<T: Summed> {
    totals: Totals<T>,
    counts: Vec<i64>,
    finish: Finish<SumOf<T>>,
}

impl<T: Summed> WholeAvgs<T> {
    fn new(state: DataType, finish: impl Fn(&[SumOf<T>], &[i64]) -> Result<ArrayRef> + Send + Sync + 'static) -> Self {
        Self { totals: Totals::new(state), counts: Vec::new(), finish: Arc::new(finish) }
    }
}

impl<T: Summed> Groups for WholeAvgs<T> {
    fn fresh(&self) -> Self {
        Self { totals: self.totals.fresh(), counts: Vec::new(), finish: Arc::clone(&self.finish) }
    }

    fn resize(&mut self, groups: usize) {
        self.totals.resize(groups);
        grow(&mut self.counts, groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let counts = self.counts.as_mut_slice();
        self.totals.update(&args[0], rows, |group| counts[group] += 1);
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        merge_counts(&mut self.counts, &states[0], rows);
        self.totals.merge(&states[1], rows, |_| {});
        Ok(())
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let counts = emit.take_needed(&mut self.counts);
        Self { totals: self.totals.take(emit), counts, finish: Arc::clone(&self.finish) }
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        let seen: Vec<bool> = self.counts.iter().map(|count| *count > 0).collect();
        let sums = self.totals.into_state(super::groups::nulls_of(&seen));
        Ok(vec![Arc::new(Int64Array::from(self.counts)), sums])
    }

    fn into_values(self) -> Result<ArrayRef> {
        (self.finish)(&self.totals.sums, &self.counts)
    }

    fn heap_bytes(&self) -> usize {
        self.totals.heap_bytes() + bytes_of(&self.counts)
    }
}

/// Adds count states.
pub(crate) fn merge_counts(counts: &mut [i64], states: &ArrayRef, rows: &Rows<'_>) {
    rows.each_value(states.as_primitive::<Int64Type>(), |group, count| counts[group] += count);
}

#[expect(clippy::unnecessary_wraps, reason = "has the shape of a finish function")]
fn integer_averages(sums: &[i128], counts: &[i64]) -> Result<ArrayRef> {
    let average = |(sum, count): (&i128, &i64)| {
        (*count > 0).then(|| round_quotient(*sum < 0, sum.unsigned_abs(), 0, count.unsigned_abs()))
    };
    Ok(Arc::new(sums.iter().zip(counts).map(average).collect::<Float64Array>()))
}

/// How a sum of decimals becomes a decimal average.
struct DecimalResult {
    /// 10 to the digits that the result has more after the point.
    factor: i256,
    data_type: DataType,
}

impl DecimalResult {
    fn new(scale: i8, data_type: &DataType) -> Self {
        let (DataType::Decimal128(_, result) | DataType::Decimal256(_, result)) = data_type else {
            return Self { factor: i256::ONE, data_type: data_type.clone() };
        };
        let digits = u32::try_from(result - scale).unwrap_or(0);
        Self { factor: i256::from_i128(10_i128.pow(digits)), data_type: data_type.clone() }
    }

    fn averages<R: ArrowPrimitiveType>(
        &self,
        sums: &[i256],
        counts: &[i64],
        narrow: impl Fn(i256) -> Option<R::Native>,
    ) -> Result<ArrayRef> {
        let average = |(sum, count): (&i256, &i64)| {
            if *count == 0 {
                return Ok(None);
            }
            let value = self.average(*sum, *count).and_then(&narrow);
            value.map(Some).ok_or_else(|| exec_datafusion_err!("avg: {} out of range", self.data_type))
        };
        let values = sums.iter().zip(counts).map(average).collect::<Result<Vec<_>>>()?;
        let array = values.into_iter().collect::<PrimitiveArray<R>>().with_data_type(self.data_type.clone());
        Ok(Arc::new(array))
    }

    /// Rounded half away from zero, as in Postgres.
    fn average(&self, sum: i256, count: i64) -> Option<i256> {
        let count = i256::from_i128(i128::from(count));
        let dividend = sum.checked_mul(self.factor)?;
        let (quotient, rest) = (dividend.checked_div(count)?, dividend.checked_rem(count)?);
        let twice = rest.checked_abs()?.checked_mul(i256::from_i128(2))?;
        let away = if dividend.is_negative() { i256::MINUS_ONE } else { i256::ONE };
        if twice >= count { quotient.checked_add(away) } else { Some(quotient) }
    }
}

/// Averages of doubles.
#[derive(Default)]
struct FloatAvgs {
    sums: Sums,
    counts: Vec<i64>,
}

impl Groups for FloatAvgs {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups);
        grow(&mut self.counts, groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let counts = self.counts.as_mut_slice();
        rows.each_value(args[0].as_primitive::<Float64Type>(), |group, value| {
            counts[group] += 1;
            self.sums.add(group, value);
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        merge_counts(&mut self.counts, &states[0], rows);
        merge_exact(&mut self.sums, &states[1], rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self { sums: self.sums.take(emit), counts: emit.take_needed(&mut self.counts) }
    }

    fn into_state(mut self) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(Int64Array::from(self.counts)), exact_state(&mut self.sums)])
    }

    fn into_values(mut self) -> Result<ArrayRef> {
        let sums = &mut self.sums;
        let average = |(group, count): (usize, &i64)| (*count > 0).then(|| sums.quotient(group, count.unsigned_abs()));
        Ok(Arc::new(self.counts.iter().enumerate().map(average).collect::<Float64Array>()))
    }

    fn heap_bytes(&self) -> usize {
        self.sums.heap_bytes() + bytes_of(&self.counts)
    }
}
