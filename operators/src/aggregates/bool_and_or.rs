//! `bool_and(x)`, `bool_or(x)`.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::groups::{Groups, Kept, Rows, nulls_of};
use super::udaf::{Definition, Distinct, StateColumn, boxed, only};

/// How two booleans become one.
pub(crate) trait Fold:
    Send + std::fmt::Debug + Clone + PartialEq + Eq + std::hash::Hash + Sync + 'static
{
    /// The SQL name.
    const NAME: &'static str;
    /// Other SQL names of it.
    const ALIASES: &'static [&'static str];
    /// The result for no values; it never wins.
    const NEUTRAL: bool;
    /// Folds.
    fn fold(a: bool, b: bool) -> bool;
    /// An aggregate table.
    fn table() -> Result<Box<dyn GroupsAccumulator>>;
}

/// Logical and; also the minimum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Both;
/// Logical or; also the maximum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Either;

impl Fold for Both {
    const NAME: &'static str = "bool_and";
    const ALIASES: &'static [&'static str] = &["every"];
    const NEUTRAL: bool = true;

    #[inline]
    fn fold(a: bool, b: bool) -> bool {
        a & b
    }

    fn table() -> Result<Box<dyn GroupsAccumulator>> {
        boxed(BoolFold::<Self>::default())
    }
}

impl Fold for Either {
    const NAME: &'static str = "bool_or";
    const ALIASES: &'static [&'static str] = &[];
    const NEUTRAL: bool = false;

    #[inline]
    fn fold(a: bool, b: bool) -> bool {
        a | b
    }

    fn table() -> Result<Box<dyn GroupsAccumulator>> {
        boxed(BoolFold::<Self>::default())
    }
}

/// The aggregates `bool_and` and `bool_or`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Bool<F>(pub(crate) F);

impl<F: Fold> Definition for Bool<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn aliases(&self) -> &'static [&'static str] {
        F::ALIASES
    }

    fn distinct(&self) -> Distinct {
        Distinct::Ignored
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match only(F::NAME, args)? {
            DataType::Boolean | DataType::Null => Ok(vec![DataType::Boolean]),
            other => plan_err!("{}: expected a boolean, found {other}", F::NAME),
        }
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(vec![(F::NAME, DataType::Boolean, true)])
    }

    fn groups(&self, _call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        F::table()
    }
}

/// One boolean per group.
pub(crate) struct BoolFold<F> {
    kept: Kept<bool>,
    fold: PhantomData<F>,
}

impl<F> Default for BoolFold<F> {
    fn default() -> Self {
        Self { kept: Kept::default(), fold: PhantomData }
    }
}

impl<F: Fold> Groups for BoolFold<F> {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn resize(&mut self, groups: usize) {
        self.kept.resize(groups, F::NEUTRAL);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let (kept, seen) = (self.kept.values.as_mut_slice(), self.kept.seen.as_mut_slice());
        let values = args[0].as_boolean();
        rows.each(values.nulls(), |row, group| {
            kept[group] = F::fold(kept[group], values.value(row));
            seen[group] = true;
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        self.update(states, rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self { kept: self.kept.take(emit), fold: PhantomData }
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.into_values()?])
    }

    fn into_values(self) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::new(BooleanBuffer::from(self.kept.values), nulls_of(&self.kept.seen))))
    }

    fn heap_bytes(&self) -> usize {
        self.kept.heap_bytes()
    }
}
