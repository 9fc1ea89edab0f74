//! `+`, `-` and `*` of integers that say so when the result is out of range.
//!
//! DataFusion wraps: `9223372036854775807 + 1` is a negative number there. As in Postgres, it is an
//! error here, in views and in queries. After types have been coerced, an analyzer rule puts functions
//! in the operators' place; they keep the operators' names, so columns are called as before.

use std::sync::Arc;

use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, exec_datafusion_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

/// The rule. It must come after the coercion of types.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic {
    functions: [Arc<ScalarUDF>; 4],
}

impl Default for CheckedArithmetic {
    fn default() -> Self {
        let function = |kind| Arc::new(ScalarUDF::new_from_impl(Checked::new(kind)));
        Self { functions: [Kind::Add, Kind::Subtract, Kind::Multiply, Kind::Negate].map(function) }
    }
}

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &'static str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|node| self.rewrite(node))?.data)
    }
}

impl CheckedArithmetic {
    fn rewrite(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&node.inputs());
        if let LogicalPlan::TableScan(scan) = &node {
            schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
        }
        let names = NamePreserver::new(&node);
        let rewritten = node.map_expressions(|expression| {
            let name = names.save(&expression);
            let rewritten = expression.transform_up(|part| self.replace(part, &schema))?;
            Ok(rewritten.update_data(|expression| name.restore(expression)))
        })?;
        rewritten.map_data(LogicalPlan::recompute_schema)
    }

    fn replace(&self, expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let [add, subtract, multiply, negate] = &self.functions;
        let is_integer = |operand: &Expr| Ok::<_, DataFusionError>(operand.get_type(schema)?.is_integer());
        Ok(match expression {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let function = match op {
                    Operator::Plus => add,
                    Operator::Minus => subtract,
                    Operator::Multiply => multiply,
                    _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
                };
                if !is_integer(&left)? || !is_integer(&right)? {
                    return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
                }
                Transformed::yes(function.call(vec![*left, *right]))
            }
            Expr::Negative(operand) if is_integer(&operand)? => Transformed::yes(negate.call(vec![*operand])),
            other => Transformed::no(other),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Add,
    Subtract,
    Multiply,
    Negate,
}

/// One operator as a function over integers of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    kind: Kind,
    signature: Signature,
}

impl Checked {
    fn new(kind: Kind) -> Self {
        let operands = if kind == Kind::Negate { 1 } else { 2 };
        Self { kind, signature: Signature::any(operands, Volatility::Immutable) }
    }

    /// As the operator would be written.
    fn written(&self, operands: &[String]) -> String {
        match (self.kind, operands) {
            (Kind::Add, [left, right]) => format!("{left} + {right}"),
            (Kind::Subtract, [left, right]) => format!("{left} - {right}"),
            (Kind::Multiply, [left, right]) => format!("{left} * {right}"),
            _ => format!("(- {})", operands.join(", ")),
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Add => "bifold_checked_add",
            Kind::Subtract => "bifold_checked_subtract",
            Kind::Multiply => "bifold_checked_multiply",
            Kind::Negate => "bifold_checked_negate",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.written(&args.iter().map(|arg| arg.schema_name().to_string()).collect::<Vec<_>>()))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [only] if only.is_integer() => Ok(only.clone()),
            [left, right] if left.is_integer() && left == right => Ok(left.clone()),
            _ => Err(exec_datafusion_err!("{}: operands are {types:?}", self.name())),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalars = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let datum = |index: usize| match &args.args[index] {
            ColumnarValue::Scalar(value) => Ok::<_, DataFusionError>(Operand::One(value.to_scalar()?)),
            ColumnarValue::Array(values) => Ok(Operand::Each(Arc::clone(values))),
        };
        let computed = match self.kind {
            Kind::Add => numeric::add(datum(0)?.get(), datum(1)?.get()),
            Kind::Subtract => numeric::sub(datum(0)?.get(), datum(1)?.get()),
            Kind::Multiply => numeric::mul(datum(0)?.get(), datum(1)?.get()),
            Kind::Negate => {
                numeric::neg(args.args[0].to_array(if all_scalars { 1 } else { args.number_rows })?.as_ref())
            }
        };
        let values = computed.map_err(|error| out_of_range(error, args.return_type()))?;
        if all_scalars {
            return Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    }
}

/// One value for all rows, or one for each.
enum Operand {
    One(arrow::array::Scalar<arrow::array::ArrayRef>),
    Each(arrow::array::ArrayRef),
}

impl Operand {
    fn get(&self) -> &dyn arrow::array::Datum {
        match self {
            Self::One(value) => value,
            Self::Each(values) => values,
        }
    }
}

/// In Postgres's words.
fn out_of_range(error: ArrowError, data_type: &DataType) -> DataFusionError {
    if !matches!(error, ArrowError::ArithmeticOverflow(_)) {
        return error.into();
    }
    let name = match data_type {
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        _ => "bigint",
    };
    exec_datafusion_err!("{name} out of range: {error}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;
    use futures::executor::block_on;
    use rstest::rstest;

    use crate::session;

    fn rows(context: &SessionContext, sql: &str) -> Result<String, String> {
        let rows = block_on(async { context.sql(sql).await?.collect().await });
        Ok(pretty_format_batches(&rows.map_err(|e| e.to_string())?).unwrap().to_string())
    }

    fn answer(sql: &str) -> Result<String, String> {
        let state = session::query_state(session::config().with_target_partitions(1), Arc::default());
        rows(&SessionContext::new_with_state(state), sql)
    }

    #[rstest]
    #[case("SELECT 9223372036854775807 + 1", "bigint")]
    #[case("SELECT x + 1 FROM (VALUES (9223372036854775807)) t(x)", "bigint")]
    #[case("SELECT x - 2 FROM (VALUES (-9223372036854775807)) t(x)", "bigint")]
    #[case("SELECT x * y FROM (VALUES (4611686018427387904, 2)) t(x, y)", "bigint")]
    #[case("SELECT 2 * x FROM (VALUES (4611686018427387904)) t(x)", "bigint")]
    #[case("SELECT -x FROM (SELECT CAST(-9223372036854775808 AS BIGINT) AS x)", "bigint")]
    #[case("SELECT CAST(2147483647 AS INT) * CAST(x AS INT) FROM (VALUES (3)) t(x)", "integer")]
    #[case("SELECT CAST(32767 AS SMALLINT) + CAST(x AS SMALLINT) FROM (VALUES (3)) t(x)", "smallint")]
    #[case("SELECT count(*) FROM (VALUES (4611686018427387904)) t(x) WHERE x * 4 = 0", "bigint")]
    #[case("SELECT sum(x * 4) FROM (VALUES (4611686018427387904)) t(x)", "bigint")]
    #[case("SELECT count(*) FROM (VALUES (4611686018427387904)) t(x) GROUP BY x * 4", "bigint")]
    #[case("SELECT sum(x) * 4 FROM (VALUES (4611686018427387904)) t(x) HAVING sum(x) * 4 = 0", "bigint")]
    #[case("SELECT 1 WHERE 0 = (SELECT max(x * 4) FROM (VALUES (4611686018427387904)) t(x))", "bigint")]
    fn what_is_out_of_range_is_an_error(#[case] sql: &str, #[case] name: &str) {
        let error = answer(sql).unwrap_err();
        assert!(error.contains(&format!("{name} out of range")), "{error}");
    }

    /// The same statement without the rule.
    fn plain(sql: &str) -> String {
        rows(&SessionContext::new_with_config(session::config().with_target_partitions(1)), sql).unwrap()
    }

    #[rstest]
    #[case(
        "SELECT x + 1, x - 2 * x, -x, x + 0.5, NULL + x, 1 + 2, CASE WHEN x > 5 THEN x * x END FROM (VALUES (3), (NULL)) t(x)"
    )]
    #[case("SELECT t.x * 2, t.x * 2 + 1 FROM (VALUES (3), (4)) t(x) ORDER BY t.x * 2 DESC")]
    #[case("SELECT x % 2 + 1, sum(x * 2), count(*) + 1 FROM (VALUES (3), (5)) t(x) GROUP BY x % 2 + 1")]
    #[case("SELECT x FROM (VALUES (1), (2), (3)) t(x) WHERE x + 1 IN (SELECT max(y - 1) FROM (VALUES (3), (4)) u(y))")]
    #[case("SELECT sum(x + 1) OVER (ORDER BY -x) FROM (VALUES (1), (2)) t(x) ORDER BY 1")]
    fn what_is_in_range_is_as_before_and_called_as_before(#[case] sql: &str) {
        assert_eq!(answer(sql).unwrap(), plain(sql));
    }
}
