//! `count(DISTINCT x)`, `sum(DISTINCT x)`, `avg(DISTINCT x)`, …: the set of values of each cell, and the
//! plain aggregate over it when the cell is read.
//!
//! DataFusion's rule that turns these into two aggregates must stay off for views: the inner one is a
//! `GROUP BY` whose groups are no cells.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use datafusion::common::{Result, not_impl_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};

use super::bags::{Bags, Finish, Kept, state};
use super::capped::Use;
use super::udaf::{Definition, Distinct, StateColumn, boxed};
use super::values::{Values, with_values};

/// Aggregates over the distinct values of their one argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OfDistinct {
    inner: Arc<AggregateUDF>,
    name: String,
}

impl OfDistinct {
    /// The aggregates that are defined over distinct values.
    pub(crate) const NAMES: [&'static str; 10] =
        ["count", "sum", "avg", "bit_xor", "var_pop", "var", "stddev_pop", "stddev", "median_exact", "approx_median"];

    /// `inner` over distinct values.
    pub(crate) fn new(inner: Arc<AggregateUDF>) -> Self {
        let name = format!("{}_distinct", inner.name());
        Self { inner, name }
    }
}

impl Definition for OfDistinct {
    fn name(&self) -> &str {
        &self.name
    }

    fn distinct(&self) -> Distinct {
        Distinct::Ignored
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(args)
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(Use::View.answer_type(self.inner.return_type(args)?))
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(state())
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = call.expr_fields[0].data_type();
        let over = Over { data_type: data_type.clone(), inner: self.inner(call)? };
        macro_rules! sets {
            ($values:ty) => {
                boxed(Kept::<$values, (), Over>::new(over, Use::View))
            };
        }
        with_values!(data_type, sets, not_impl_err!("{}: {data_type} has no order here", self.inner.name()))
    }
}

impl OfDistinct {
    fn inner(&self, call: &AccumulatorArgs<'_>) -> Result<Inner> {
        if self.inner.name() == "count" {
            return Ok(Inner::Count);
        }
        let inner = AggregateExprBuilder::new(Arc::clone(&self.inner), call.exprs.to_vec());
        let inner = inner.schema(Arc::new(call.schema.clone())).alias(self.inner.name()).build()?;
        Ok(Inner::Aggregate(Arc::new(inner)))
    }
}

#[derive(Debug, Clone)]
enum Inner {
    /// The size of the set.
    Count,
    /// Any other aggregate.
    Aggregate(Arc<AggregateFunctionExpr>),
}

/// An aggregate over sets.
#[derive(Debug, Clone)]
struct Over {
    data_type: DataType,
    inner: Inner,
}

impl<V: Values> Finish<V, ()> for Over {
    fn name(&self) -> &str {
        match &self.inner {
            Inner::Count => "count",
            Inner::Aggregate(aggregate) => aggregate.name(),
        }
    }

    fn values(&self, bags: &mut Bags<V::Key, ()>) -> Result<ArrayRef> {
        let aggregate = match &self.inner {
            Inner::Count => {
                let sizes = bags.each().map(|set| set.map_or(0, |set| set.len() as i64));
                return Ok(Arc::new(sizes.collect::<Int64Array>()));
            }
            Inner::Aggregate(aggregate) => aggregate,
        };
        let (mut groups, mut items, mut count) = (Vec::new(), Vec::new(), 0);
        for set in bags.each() {
            for (item, ()) in set.into_iter().flatten() {
                groups.push(count);
                items.push(Some(item));
            }
            count += 1;
        }
        let values = V::array(&self.data_type, items.into_iter())?;
        let mut table = aggregate.create_groups_accumulator()?;
        table.update_batch(&[values], &groups, None, count)?;
        table.evaluate(EmitTo::All)
    }
}
