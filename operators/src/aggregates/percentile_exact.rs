//! `median_exact(x)`, `percentile_cont(x, p)` and `percentile_cont(p) WITHIN GROUP (ORDER BY x)`: exact,
//! from every value of a cell and how often it occurs. Numbers are taken as doubles.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::GroupsAccumulator;
use datafusion::logical_expr::function::AccumulatorArgs;

use super::approx_percentile::percentile_of;
use super::bags::{Bags, Finish, Kept, state};
use super::capped::Use;
use super::sum::numeric;
use super::types::Canonical;
use super::udaf::{Definition, Distinct, StateColumn, boxed};
use super::values::{Narrow, Sortable};

/// The aggregates of this file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ExactPercentile {
    /// `percentile_cont`.
    Any(Use),
    /// `median_exact`.
    Median(Use),
}

impl ExactPercentile {
    fn place(&self) -> Use {
        match self {
            Self::Any(place) | Self::Median(place) => *place,
        }
    }
}

impl Definition for ExactPercentile {
    fn name(&self) -> &str {
        match self {
            Self::Any(_) => "percentile_cont",
            Self::Median(_) => "median_exact",
        }
    }

    fn aliases(&self) -> &'static [&'static str] {
        match self {
            Self::Any(_) => &["quantile_cont"],
            Self::Median(_) => &[],
        }
    }

    fn distinct(&self) -> Distinct {
        Distinct::Refused("percentile_cont takes no DISTINCT; median_exact(DISTINCT x) does")
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let count = if matches!(self, Self::Any(_)) { 2 } else { 1 };
        if args.len() != count {
            return plan_err!("{} takes {count} arguments, found {}", self.name(), args.len());
        }
        for arg in args {
            numeric(self.name(), std::slice::from_ref(arg))?;
        }
        Ok(vec![DataType::Float64; count])
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(self.place().answer_type(DataType::Float64))
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(state())
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let share = match self {
            Self::Any(_) => percentile_of(self.name(), call)?,
            Self::Median(_) => 0.5,
        };
        boxed(Kept::<Narrow, u64, Share>::new(Share(share), self.place()))
    }

    fn within_group(&self) -> bool {
        matches!(self, Self::Any(_))
    }
}

/// A part of the values, between 0 and 1.
#[derive(Debug, Clone, Copy)]
struct Share(f64);

impl Finish<Narrow, u64> for Share {
    fn name(&self) -> &'static str {
        "percentile_cont"
    }

    fn values(&self, bags: &mut Bags<u64, u64>) -> Result<ArrayRef> {
        Ok(Arc::new(bags.each().map(|runs| percentile(runs?, self.0)).collect::<Float64Array>()))
    }
}

/// Interpolated between the two values next to the rank `share × (n − 1)`; NULL over nothing.
fn percentile(runs: impl Iterator<Item = (u64, u64)> + Clone, share: f64) -> Option<f64> {
    let last = runs.clone().map(|(_, count)| count).sum::<u64>().checked_sub(1)?;
    let rank = share * last as f64;
    let (low, high) = (value_at(runs.clone(), rank.floor() as u64)?, value_at(runs, rank.ceil() as u64)?);
    let part = rank - rank.floor();
    if part <= 0.0 || low.to_bits() == high.to_bits() {
        return Some(low);
    }
    // between two infinities lies a NaN, whose sign depends on the processor
    Some((low * (1.0 - part) + high * part).canonical())
}

/// The value with so many before it.
fn value_at(runs: impl Iterator<Item = (u64, u64)>, rank: u64) -> Option<f64> {
    let mut passed = 0;
    for (value, count) in runs {
        passed += count;
        if passed > rank {
            return Some(<f64 as Sortable>::of(value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A NaN that processors make has a sign on some of them: a `HAVING` would take it for less than all numbers.
    #[rstest]
    #[case::between_infinities(&[f64::NEG_INFINITY, f64::INFINITY], 0.5, f64::NAN)]
    #[case::no_zero_with_a_sign(&[-1.0, 1.0], 0.5, 0.0)]
    #[case::between_numbers(&[1.0, 2.0, 4.0], 0.75, 3.0)]
    fn what_lies_between_has_one_representation(#[case] values: &[f64], #[case] share: f64, #[case] expected: f64) {
        let runs = values.iter().map(|value| (value.sortable(), 1));
        assert_eq!(percentile(runs, share).map(f64::to_bits), Some(expected.to_bits()));
    }
}
