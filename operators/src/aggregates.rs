//! The aggregates: exact, order-free, under their standard SQL names.
//!
//! Equal multisets of inputs give equal state bytes, whatever the order, the split into batches, the
//! merge tree or the number of threads; [`crate::laws`] holds every aggregate of [`all`] to that.
//!
//! ```text
//! Definition (name, types, state) ──► udaf ──► AggregateUDF
//!        │ groups()                              │ scalar use
//!        ▼                                       ▼
//! Groups ──► Table: GroupsAccumulator ──► OneGroup: Accumulator
//! ```

mod approx_distinct;
mod approx_percentile;
mod avg;
mod bits;
mod bool_and_or;
mod count;
mod exact;
mod groups;
mod in_queries;
mod min_max;
mod one_group;
mod refused;
mod sum;
#[cfg(test)]
mod tests;
mod types;
mod udaf;
mod variance;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::AggregateUDF;

pub use refused::mergeable_spelling;

use self::udaf::udaf;

/// Every aggregate that a view may use.
pub fn all() -> Vec<Arc<AggregateUDF>> {
    vec![
        udaf(count::Count),
        udaf(sum::Sum),
        udaf(avg::Avg),
        udaf(min_max::Extreme::<false>),
        udaf(min_max::Extreme::<true>),
        udaf(bool_and_or::Bool(bool_and_or::Both)),
        udaf(bool_and_or::Bool(bool_and_or::Either)),
        udaf(bits::Bits::And),
        udaf(bits::Bits::Or),
        udaf(bits::Bits::Xor),
        udaf(approx_distinct::ApproxDistinct),
        udaf(approx_percentile::ApproxPercentile::Any),
        udaf(approx_percentile::ApproxPercentile::Median),
        udaf(variance::Variance::Population),
        udaf(variance::Variance::Sample),
        udaf(variance::Variance::PopulationDeviation),
        udaf(variance::Variance::SampleDeviation),
    ]
}

pub use in_queries::all_in_queries;

/// Puts [`all`] into a registry, in place of DataFusion's aggregates of the same names.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    all().into_iter().try_for_each(|aggregate| registry.register_udaf(aggregate).map(|_| ()))
}

/// Whether `name` (any case) is a name of one of [`all`].
pub fn is_exact(name: &str) -> bool {
    let named = |own: &str| own.eq_ignore_ascii_case(name);
    all().iter().any(|aggregate| named(aggregate.name()) || aggregate.aliases().iter().any(|alias| named(alias)))
}
