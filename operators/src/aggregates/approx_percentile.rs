//! `approx_percentile_cont(x, p)`, `approx_percentile_cont(p) WITHIN GROUP (ORDER BY x)` and
//! `approx_median(x)`: interpolated like `percentile_cont`, with a relative error of at most 0.8 %.

pub(crate) mod histogram;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, LargeBinaryBuilder};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_datafusion_err, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use self::histogram::Histogram;
use super::groups::{Groups, Rows, bytes_of};
use super::sum::numeric;
use super::udaf::{Definition, Distinct, StateColumn, boxed, constant};

/// The two aggregates of this file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ApproxPercentile {
    /// `approx_percentile_cont`.
    Any,
    /// `approx_median`.
    Median,
}

impl Definition for ApproxPercentile {
    fn name(&self) -> &'static str {
        match self {
            Self::Any => "approx_percentile_cont",
            Self::Median => "approx_median",
        }
    }

    fn distinct(&self) -> Distinct {
        Distinct::Refused("a percentile of distinct values keeps every value and is not supported in a view")
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let count = match self {
            Self::Any => 2,
            Self::Median => 1,
        };
        if args.len() != count {
            let hint =
                if args.len() == 3 { " (its precision is fixed, so it takes no number of centroids)" } else { "" };
            return plan_err!("{} takes {count} arguments, found {}{hint}", self.name(), args.len());
        }
        for arg in args {
            numeric(self.name(), std::slice::from_ref(arg))?;
        }
        Ok(vec![DataType::Float64; count])
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![("histogram", DataType::LargeBinary, false)])
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let percentile = match self {
            Self::Any => percentile_of(self.name(), call)?,
            Self::Median => 0.5,
        };
        boxed(Histograms { percentile, groups: Vec::new(), heap: 0 })
    }

    fn within_group(&self) -> bool {
        matches!(self, Self::Any)
    }
}

/// The literal second argument; mirrored for `ORDER BY x DESC`.
pub(crate) fn percentile_of(name: &str, call: &AccumulatorArgs<'_>) -> Result<f64> {
    let wanted = || plan_datafusion_err!("{name}: the percentile must be a constant between 0 and 1");
    let scalar = constant(call, 1).ok_or_else(wanted)?.cast_to(&DataType::Float64)?;
    let ScalarValue::Float64(Some(percentile)) = scalar else { return Err(wanted()) };
    if !(0.0..=1.0).contains(&percentile) {
        return Err(wanted());
    }
    let descending = call.order_bys.first().is_some_and(|order| order.options.descending);
    Ok(if descending { 1.0 - percentile } else { percentile })
}

/// One histogram per group.
struct Histograms {
    percentile: f64,
    groups: Vec<Histogram>,
    /// Bytes that the histograms hold.
    heap: usize,
}

impl Groups for Histograms {
    fn fresh(&self) -> Self {
        Self { percentile: self.percentile, groups: Vec::new(), heap: 0 }
    }

    fn resize(&mut self, groups: usize) {
        if groups > self.groups.len() {
            self.groups.resize_with(groups, Histogram::default);
        }
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        rows.each_value(args[0].as_primitive::<Float64Type>(), |group, value| {
            self.heap = self.heap.wrapping_add_signed(self.groups[group].insert(value));
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let states = states[0].as_binary::<i64>();
        rows.try_each(states.nulls(), |row, group| {
            self.heap = self.heap.wrapping_add_signed(self.groups[group].merge(states.value(row))?);
            Ok(())
        })
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        let groups = emit.take_needed(&mut self.groups);
        let heap = groups.iter().map(Histogram::heap_bytes).sum();
        self.heap -= heap;
        Self { percentile: self.percentile, groups, heap }
    }

    fn into_state(mut self) -> Result<Vec<ArrayRef>> {
        let mut states = LargeBinaryBuilder::with_capacity(self.groups.len(), self.heap);
        let mut bytes = Vec::new();
        for histogram in &mut self.groups {
            bytes.clear();
            histogram.write(&mut bytes);
            states.append_value(&bytes);
        }
        Ok(vec![Arc::new(states.finish())])
    }

    fn into_values(mut self) -> Result<ArrayRef> {
        let percentile = self.percentile;
        Ok(Arc::new(self.groups.iter_mut().map(|histogram| histogram.percentile(percentile)).collect::<Float64Array>()))
    }

    fn heap_bytes(&self) -> usize {
        bytes_of(&self.groups) + self.heap
    }
}
