//! One bit pattern for each float value: a NaN is the positive quiet NaN, a zero is +0.0.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Wraps a float expression that is used as a key.
pub(crate) fn float(expression: Expr) -> Expr {
    function().call(vec![expression])
}

/// The scalar function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    let types = vec![DataType::Float16, DataType::Float32, DataType::Float64];
    Arc::new(ScalarUDF::new_from_impl(CanonicalFloat {
        signature: Signature::uniform(1, types, Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CanonicalFloat {
    signature: Signature,
}

impl ScalarUDFImpl for CanonicalFloat {
    fn name(&self) -> &'static str {
        "bifold_canonical_float"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.args[0].to_array(args.number_rows)?;
        let canonical: ArrayRef = match values.data_type() {
            DataType::Float64 => Arc::new(
                values
                    .as_primitive::<Float64Type>()
                    .unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }),
            ),
            DataType::Float32 => Arc::new(
                values
                    .as_primitive::<Float32Type>()
                    .unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }),
            ),
            DataType::Float16 => {
                let zero = <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::ZERO;
                let nan = <Float16Type as arrow::datatypes::ArrowPrimitiveType>::Native::NAN;
                Arc::new(values.as_primitive::<Float16Type>().unary::<_, Float16Type>(|v| {
                    if v.is_nan() {
                        nan
                    } else if v == zero {
                        zero
                    } else {
                        v
                    }
                }))
            }
            other => return exec_err!("not a float: {other}"),
        };
        Ok(ColumnarValue::Array(canonical))
    }
}
