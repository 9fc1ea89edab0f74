//! Our aggregates in queries over views: exact where the call is plain, DataFusion's own where it is not.
//!
//! A query may say `count(DISTINCT x)` or slide a window frame: it reads final values, nothing is
//! merged afterwards, so DataFusion's accumulators are as good as ours there.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
};

/// [`super::all`] for queries.
pub fn all_in_queries() -> Vec<Arc<AggregateUDF>> {
    let stock = all_default_aggregate_functions();
    let of_name = |name: &str| stock.iter().find(|function| function.name() == name).cloned();
    let wrap = |exact: Arc<AggregateUDF>| match of_name(exact.name()) {
        Some(stock) => Arc::new(AggregateUDF::new_from_impl(InQueries { exact, stock })),
        None => exact,
    };
    super::all().into_iter().map(wrap).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct InQueries {
    exact: Arc<AggregateUDF>,
    stock: Arc<AggregateUDF>,
}

impl InQueries {
    fn chosen(&self, is_distinct: bool) -> &AggregateUDF {
        if is_distinct { &self.stock } else { &self.exact }
    }
}

impl AggregateUDFImpl for InQueries {
    fn name(&self) -> &str {
        self.exact.name()
    }

    fn aliases(&self) -> &[String] {
        self.exact.aliases()
    }

    fn signature(&self) -> &Signature {
        self.exact.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.exact.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.exact.return_type(types)
    }

    fn is_nullable(&self) -> bool {
        self.exact.is_nullable()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.exact.default_value(data_type)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.chosen(args.is_distinct).state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.chosen(args.is_distinct).accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.chosen(args.is_distinct).groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.chosen(args.is_distinct).create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.stock.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn supports_within_group_clause(&self) -> bool {
        self.exact.supports_within_group_clause()
    }
}
