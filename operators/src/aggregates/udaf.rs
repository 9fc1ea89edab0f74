//! From a short [`Definition`] to a DataFusion aggregate function.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue, not_impl_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

use super::groups::{Groups, Table};
use super::one_group::OneGroup;

/// One column of a state: its short name, type, and whether a group without input is null.
pub(crate) type StateColumn = (&'static str, DataType, bool);

/// What `DISTINCT` inside the call means.
pub(crate) enum Distinct {
    /// The result is the same with and without it.
    Ignored,
    /// It is refused with this reason.
    Refused(&'static str),
}

/// What one aggregate has to say about itself.
pub(crate) trait Definition: Debug + Clone + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// The SQL name.
    fn name(&self) -> &str;

    /// Other SQL names of it.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// What `DISTINCT` means.
    fn distinct(&self) -> Distinct;

    /// The types the arguments are cast to; an error for a call that cannot be.
    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>>;

    /// The result type for coerced arguments.
    fn return_type(&self, args: &[DataType]) -> Result<DataType>;

    /// The columns of the state for coerced arguments.
    fn state(&self, args: &[DataType]) -> Result<Vec<StateColumn>>;

    /// An empty table of groups.
    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>>;

    /// The result over no rows; None is NULL.
    fn over_nothing(&self) -> Option<ScalarValue> {
        None
    }

    /// Whether `WITHIN GROUP (ORDER BY …)` is a way to call it.
    fn within_group(&self) -> bool {
        false
    }
}

/// The DataFusion aggregate of a definition.
pub(crate) fn udaf<D: Definition>(definition: D) -> Arc<AggregateUDF> {
    let aliases = definition.aliases().iter().map(ToString::to_string).collect();
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(Udaf { definition, aliases, signature }))
}

/// A boxed DataFusion accumulator over a table.
#[expect(clippy::unnecessary_wraps, reason = "every caller returns a result")]
pub(crate) fn boxed<G: Groups>(groups: G) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(Box::new(Table(groups)))
}

/// Checks the number of arguments and returns the only one.
pub(crate) fn only<'a>(name: &str, args: &'a [DataType]) -> Result<&'a DataType> {
    let [arg] = args else { return plan_err!("{name} takes one argument, found {}", args.len()) };
    Ok(arg)
}

/// The constant that an argument is; None if it is none.
pub(crate) fn constant(call: &AccumulatorArgs<'_>, index: usize) -> Option<ScalarValue> {
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    match call.exprs.get(index)?.evaluate(&nothing) {
        Ok(ColumnarValue::Scalar(scalar)) => Some(scalar),
        _ => None,
    }
}

/// The value type of a dictionary, any other type as it is.
pub(crate) fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Udaf<D> {
    definition: D,
    aliases: Vec<String>,
    signature: Signature,
}

impl<D: Definition> Udaf<D> {
    fn refuse_distinct(&self, is_distinct: bool) -> Result<()> {
        match self.definition.distinct() {
            Distinct::Refused(reason) if is_distinct => not_impl_err!("{}", reason),
            _ => Ok(()),
        }
    }

    fn empty_states(&self, call: &AccumulatorArgs<'_>) -> Result<Vec<ArrayRef>> {
        let args: Vec<DataType> = call.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(self.definition.state(&args)?.iter().map(|(_, data_type, _)| new_empty_array(data_type)).collect())
    }
}

impl<D: Definition> AggregateUDFImpl for Udaf<D> {
    fn name(&self) -> &str {
        self.definition.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.definition.coerce(arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.definition.return_type(arg_types)
    }

    fn is_nullable(&self) -> bool {
        self.definition.over_nothing().is_none()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.definition.over_nothing().map_or_else(|| ScalarValue::try_from(data_type), Ok)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.refuse_distinct(args.is_distinct)?;
        let types: Vec<DataType> = args.input_fields.iter().map(|field| field.data_type().clone()).collect();
        let columns = self.definition.state(&types)?;
        let field = |(column, data_type, nullable): StateColumn| {
            Arc::new(Field::new(format_state_name(args.name, column), data_type, nullable))
        };
        Ok(columns.into_iter().map(field).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.refuse_distinct(args.is_distinct)?;
        Ok(Box::new(OneGroup::new(self.definition.groups(&args)?, &self.empty_states(&args)?)?))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.refuse_distinct(args.is_distinct)?;
        self.definition.groups(&args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn supports_within_group_clause(&self) -> bool {
        self.definition.within_group()
    }
}
