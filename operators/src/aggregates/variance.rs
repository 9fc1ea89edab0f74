//! `var_pop`, `var_samp` (`var`), `stddev_pop`, `stddev_samp` (`stddev`).
//!
//! `(n·Σx² − (Σx)²) / (n·d)` with exact sums, `d` being `n` or `n − 1`; rounded once, so never
//! negative. A standard deviation is the (correctly rounded) root of that.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::avg::merge_counts;
use super::exact::cells::{Exact, Squares, Sums};
use super::groups::{Groups, Rows, bytes_of, grow};
use super::sum::{exact_state, merge_exact, numeric};
use super::udaf::{Definition, Distinct, StateColumn, boxed};

/// The four aggregates of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Variance {
    /// `var_pop`.
    Population,
    /// `var_samp`, `var`.
    Sample,
    /// `stddev_pop`.
    PopulationDeviation,
    /// `stddev_samp`, `stddev`.
    SampleDeviation,
}

impl Definition for Variance {
    fn name(&self) -> &'static str {
        match self {
            Self::Population => "var_pop",
            Self::Sample => "var",
            Self::PopulationDeviation => "stddev_pop",
            Self::SampleDeviation => "stddev",
        }
    }

    fn aliases(&self) -> &'static [&'static str] {
        match self {
            Self::Population => &["var_population"],
            Self::Sample => &["var_sample", "var_samp"],
            Self::PopulationDeviation => &[],
            Self::SampleDeviation => &["stddev_samp"],
        }
    }

    fn distinct(&self) -> Distinct {
        Distinct::Refused("a variance of distinct values keeps every value and is not supported in a view")
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        numeric(self.name(), args).map(|_| vec![DataType::Float64])
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![
            ("count", DataType::Int64, false),
            ("sum", DataType::LargeBinary, true),
            ("squares", DataType::LargeBinary, true),
        ])
    }

    fn groups(&self, _call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        boxed(Variances { kind: *self, counts: Vec::new(), sums: Sums::default(), squares: Squares::default() })
    }
}

struct Variances {
    kind: Variance,
    counts: Vec<i64>,
    sums: Sums,
    squares: Squares,
}

impl Variances {
    fn value(&mut self, group: usize) -> Option<f64> {
        let count = self.counts[group].unsigned_abs();
        let freedom = match self.kind {
            Variance::Population | Variance::PopulationDeviation => count,
            Variance::Sample | Variance::SampleDeviation => count.saturating_sub(1),
        };
        if freedom == 0 {
            return None;
        }
        let variance = exact_variance(count, freedom, self.sums.exact(group), self.squares.exact(group));
        match self.kind {
            Variance::Population | Variance::Sample => Some(variance),
            Variance::PopulationDeviation | Variance::SampleDeviation => Some(variance.sqrt()),
        }
    }
}

fn exact_variance(count: u64, freedom: u64, sum: Exact, squares: Exact) -> f64 {
    let (
        Exact::Finite { magnitude: sum, exponent: sum_exponent, .. },
        Exact::Finite { magnitude: squares, exponent: squares_exponent, .. },
    ) = (sum, squares)
    else {
        return f64::NAN;
    };
    let square_of_sum = sum.product(&sum);
    let exponent = squares_exponent.min(2 * sum_exponent);
    let above = |own: i32| usize::try_from(own - exponent).unwrap_or(0);
    let mut deviation =
        squares.times(count).shifted(above(squares_exponent)).minus(&square_of_sum.shifted(above(2 * sum_exponent)));
    if deviation.is_zero() {
        return 0.0;
    }
    // Room below, so that the quotient of two 64-bit divisors keeps more bits than a double has.
    deviation = deviation.shifted(192);
    let sticky = deviation.divide(count) | deviation.divide(freedom);
    deviation.round(false, exponent - 192, sticky)
}

impl Groups for Variances {
    fn fresh(&self) -> Self {
        Self { kind: self.kind, counts: Vec::new(), sums: Sums::default(), squares: Squares::default() }
    }

    fn resize(&mut self, groups: usize) {
        grow(&mut self.counts, groups);
        self.sums.resize(groups);
        self.squares.resize(groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        rows.each_value(args[0].as_primitive::<Float64Type>(), |group, value| {
            self.counts[group] += 1;
            self.sums.add(group, value);
            self.squares.add_square(group, value);
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        merge_counts(&mut self.counts, &states[0], rows);
        merge_exact(&mut self.sums, &states[1], rows)?;
        merge_exact(&mut self.squares, &states[2], rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let counts = emit.take_needed(&mut self.counts);
        Self { kind: self.kind, counts, sums: self.sums.take(emit), squares: self.squares.take(emit) }
    }

    fn into_state(mut self) -> Result<Vec<ArrayRef>> {
        let counts = Arc::new(Int64Array::from(self.counts));
        Ok(vec![counts, exact_state(&mut self.sums), exact_state(&mut self.squares)])
    }

    fn into_values(mut self) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.counts.len()).map(|group| self.value(group)).collect::<Float64Array>()))
    }

    fn heap_bytes(&self) -> usize {
        bytes_of(&self.counts) + self.sums.heap_bytes() + self.squares.heap_bytes()
    }
}
