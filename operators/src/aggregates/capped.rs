//! The answer of an aggregate whose state has a cap: its value, and whether the cell is past it.
//!
//! An accumulator answers many cells at once and knows no keys, so it cannot say which cell has no
//! answer. It marks the cell, and [`within_cap`], a function of the finish, makes an error of the mark
//! when somebody reads it: other cells stay readable.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::util::display::array_value_to_string;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use schemas::limits::{CELL_VALUE_BYTES_MAX, CELL_VALUES_MAX};
use schemas::{Code, Problem};

use super::bag::Cap;

/// Characters of a key that an error shows.
const KEY_CHARACTERS_MAX: usize = 100;

/// Where an aggregate with a cap is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// In a view: cells have a cap, and the answer is marked.
    View,
    /// In a query, which reads final values and has a bound on its memory.
    Query,
}

impl Use {
    /// What a group may hold.
    pub(crate) fn cap(self) -> Cap {
        match self {
            Self::View => Cap::CELL,
            Self::Query => Cap::QUERY,
        }
    }

    /// The type of an answer with values of this type.
    pub(crate) fn answer_type(self, values: DataType) -> DataType {
        match self {
            Self::View => DataType::Struct(fields(values)),
            Self::Query => values,
        }
    }

    /// Answers from values; those of groups past the cap count for nothing.
    pub(crate) fn answer(self, name: &str, values: ArrayRef, over: Vec<bool>) -> Result<ArrayRef> {
        match self {
            Self::View => {
                let over: ArrayRef = Arc::new(BooleanArray::from(over));
                Ok(Arc::new(StructArray::new(fields(values.data_type().clone()), vec![values, over], None)))
            }
            Self::Query if over.contains(&true) => exec_err!("{name}: a group has too many values"),
            Self::Query => Ok(values),
        }
    }
}

fn fields(values: DataType) -> Fields {
    Fields::from(vec![Field::new("value", values, true), Field::new("over", DataType::Boolean, false)])
}

/// What an error says of an aggregate past its cap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Words {
    /// The call, as the user wrote it.
    pub(crate) call: String,
    /// What it keeps.
    pub(crate) keeps: &'static str,
    /// What to write instead.
    pub(crate) hint: &'static str,
}

/// The value of a marked answer; an error that names the cell by `keys` if it is past its cap.
pub(crate) fn within_cap(answer: Expr, words: Words, keys: Vec<(String, Expr)>) -> Expr {
    let (names, keys): (Vec<String>, Vec<Expr>) = keys.into_iter().unzip();
    let function = WithinCap {
        view: String::new(),
        words,
        keys: names,
        signature: Signature::variadic_any(Volatility::Immutable),
    };
    ScalarUDF::new_from_impl(function).call(std::iter::once(answer).chain(keys).collect())
}

/// Tells [`within_cap`] which view its cells are of.
pub(crate) fn name_view(expression: Expr, view: &str) -> Transformed<Expr> {
    match expression {
        Expr::ScalarFunction(call) => match call.func.inner().downcast_ref::<WithinCap>() {
            Some(unnamed) => {
                let named = WithinCap { view: format!("view {view}: "), ..unnamed.clone() };
                Transformed::yes(ScalarUDF::new_from_impl(named).call(call.args))
            }
            None => Transformed::no(Expr::ScalarFunction(call)),
        },
        other => Transformed::no(other),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct WithinCap {
    /// How an error begins: which view it is, if that is known.
    view: String,
    words: Words,
    /// Names of the key columns.
    keys: Vec<String>,
    signature: Signature,
}

impl WithinCap {
    fn problem(&self, keys: &[ArrayRef], row: usize) -> DataFusionError {
        let text = |(name, key): (&String, &ArrayRef)| {
            let value =
                if key.is_null(row) { "NULL".into() } else { array_value_to_string(key, row).unwrap_or_default() };
            format!("{name} = {}", value.chars().take(KEY_CHARACTERS_MAX).collect::<String>())
        };
        let cell: Vec<String> = self.keys.iter().zip(keys).map(text).collect();
        let cell =
            if cell.is_empty() { "the view's only cell".into() } else { format!("the cell ({})", cell.join(", ")) };
        let Words { call, keeps, hint } = &self.words;
        let detail = format!(
            "{}{call}: {cell} has more than {CELL_VALUES_MAX} {keeps}, or more than {CELL_VALUE_BYTES_MAX} bytes of them",
            self.view
        );
        DataFusionError::External(Box::new(Problem::new(Code::ComputationFailed, detail).with_hint(*hint)))
    }
}

impl ScalarUDFImpl for WithinCap {
    fn name(&self) -> &'static str {
        "bifold_within_cap"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(DataType::Struct(fields)) if fields.len() == 2 => Ok(fields[0].data_type().clone()),
            other => exec_err!("an answer with a mark was expected, found {other:?}"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (answer, keys) =
            arrays.split_first().ok_or_else(|| exec_datafusion_err!("an answer with a mark was expected"))?;
        let answer = answer.as_struct();
        let over = answer.column(1).as_boolean();
        match over.values().set_indices().next() {
            Some(row) => Err(self.problem(keys, row)),
            None => Ok(ColumnarValue::Array(Arc::clone(answer.column(0)))),
        }
    }
}
