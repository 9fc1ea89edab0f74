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
//!
//! A view lowers some calls to aggregates that no user names (`lowered`): `DISTINCT` to sets, anything
//! with an order to records and their positions, whatever keeps values to a capped state.

mod approx_distinct;
mod approx_percentile;
mod avg;
mod bag;
mod bags;
mod bits;
mod bool_and_or;
mod capped;
mod count;
mod distinct;
mod exact;
mod groups;
mod in_queries;
mod list;
mod lowered;
mod min_max;
mod one_group;
mod order;
mod pairs;
mod percentile_exact;
mod pick;
mod refused;
mod sum;
#[cfg(test)]
mod tests;
mod top_k;
mod types;
mod udaf;
pub(crate) mod value;
mod values;
mod variance;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::AggregateUDF;

pub use refused::mergeable_spelling;

use self::capped::Use;
use self::udaf::udaf;

pub(crate) use capped::{name_view, within_cap};

/// Every aggregate under its SQL name, but those that only a view's lowering understands.
pub fn all() -> Vec<Arc<AggregateUDF>> {
    let mut all = vec![
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
        udaf(percentile_exact::ExactPercentile::Any(Use::Query)),
        udaf(percentile_exact::ExactPercentile::Median(Use::Query)),
        udaf(top_k::TopK(Use::Query)),
        udaf(pick::Pick::extreme(false, false)),
        udaf(pick::Pick::extreme(true, false)),
    ];
    all.extend(pairs::Pairs::ALL.map(udaf));
    all
}

pub use in_queries::all_in_queries;
#[cfg(test)]
pub(crate) use lowered::forms;
pub(crate) use lowered::{Lowered, lower, takes_distinct};

/// Puts [`all`] into a registry, in place of DataFusion's aggregates of the same names.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    all().into_iter().try_for_each(|aggregate| registry.register_udaf(aggregate).map(|_| ()))
}

/// Whether a view may use an aggregate of that name (any case).
pub fn is_exact(name: &str) -> bool {
    let named = |own: &str| own.eq_ignore_ascii_case(name);
    lowered::is_ordered(name)
        || named("grouping")
        || all().iter().any(|aggregate| named(aggregate.name()) || aggregate.aliases().iter().any(|alias| named(alias)))
}
