//! Windows: `TUMBLE` as a table function, and the two pure functions that it is made of.
//!
//! `TUMBLE(t, ts, INTERVAL '1 day')` is `t` with the columns `window_start` and `window_end`: windows
//! of that length, aligned to the epoch, UTC, start included, end excluded.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Result, ScalarValue, TableReference, exec_err, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use schemas::column::timestamp_type;
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor};

/// Start of the window that a time lies in: arguments time, length in microseconds.
pub const WINDOW_START_FUNCTION: &str = "bifold_window_start";
/// End of it.
pub const WINDOW_END_FUNCTION: &str = "bifold_window_end";

/// A time, earlier by a number of microseconds: arguments time, microseconds.
const BEFORE_FUNCTION: &str = "bifold_before";

/// The scalar functions of this module.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    [Bound::Start, Bound::End, Bound::Before].map(window_function).into()
}

/// A point in time, `delay_us` earlier: integers, where DataFusion's intervals go through the calendar.
pub(crate) fn before(time: Expr, delay_us: i64) -> Expr {
    window_function(Bound::Before).call(vec![time, lit(delay_us)])
}

/// What is computed of a time and a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bound {
    Start,
    End,
    Before,
}

fn window_function(bound: Bound) -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![timestamp_type(), DataType::Int64], Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(WindowBound { bound, signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowBound {
    bound: Bound,
    signature: Signature,
}

impl ScalarUDFImpl for WindowBound {
    fn name(&self) -> &'static str {
        match self.bound {
            Bound::Start => WINDOW_START_FUNCTION,
            Bound::End => WINDOW_END_FUNCTION,
            Bound::Before => BEFORE_FUNCTION,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [times, ColumnarValue::Scalar(ScalarValue::Int64(Some(length_us)))] = args.args.as_slice() else {
            return exec_err!("{}: the length of a window must be a constant", self.name());
        };
        let length_us = *length_us;
        let times = times.to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let start = |time: i64| time.wrapping_sub(time.rem_euclid(length_us));
        let bounds: TimestampMicrosecondArray = match self.bound {
            Bound::Start => times.unary(start),
            Bound::End => times.unary(|time| start(time).wrapping_add(length_us)),
            Bound::Before => times.unary(|time: i64| time.saturating_sub(length_us)),
        };
        let bounds: ArrayRef = Arc::new(bounds.with_timezone("UTC"));
        Ok(ColumnarValue::Array(bounds))
    }
}

/// Plans `TUMBLE(table, time column, INTERVAL '…') [AS alias]`.
///
/// DataFusion looks up the tables of a statement before it plans it and does not look into the
/// arguments of a function: the planner has to know them itself.
#[derive(Debug, Default)]
pub struct TumblePlanner {
    tables: Vec<(String, Arc<dyn TableProvider>)>,
}

impl TumblePlanner {
    /// A planner that knows tables by name.
    pub fn over(tables: Vec<(String, Arc<dyn TableProvider>)>) -> Self {
        Self { tables }
    }

    /// A scan of a table that is known; none for another one, or for more than a name.
    fn scan(&self, argument: &FunctionArg) -> Result<Option<LogicalPlan>> {
        let ast::Expr::Identifier(name) = expression(argument)? else { return Ok(None) };
        let name = if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() };
        let Some((_, table)) = self.tables.iter().find(|(known, _)| *known == name) else { return Ok(None) };
        let scan = LogicalPlanBuilder::scan(TableReference::bare(name), provider_as_source(Arc::clone(table)), None)?;
        scan.build().map(Some)
    }
}

impl RelationPlanner for TumblePlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, args: Some(arguments), alias, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let function = name.to_string().to_lowercase();
        match function.as_str() {
            "tumble" => {}
            "hop" | "cumulate" | "session" => {
                return plan_err!("{}: this window is not supported yet; TUMBLE is", function.to_uppercase());
            }
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        }
        let [table, time, length] = arguments.args.as_slice() else {
            return plan_err!("TUMBLE takes three arguments: TUMBLE(stream, time column, INTERVAL '1 hour')");
        };
        let input = match self.scan(table)? {
            Some(scan) => scan,
            None => context.plan(table_factor(table)?)?,
        };
        let schema = Arc::clone(input.schema());
        let time = context.sql_to_expr(expression(time)?, &schema)?;
        let length = context.sql_to_expr(expression(length)?, &schema)?;
        let length_us = interval_us(&length)?;
        let mut columns: Vec<Expr> = schema
            .iter()
            .map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name())))
            .collect();
        for (bound, name) in [(Bound::Start, "window_start"), (Bound::End, "window_end")] {
            columns.push(window_function(bound).call(vec![time.clone(), lit(length_us)]).alias(name));
        }
        let qualifier = match &alias {
            Some(alias) => alias.name.value.clone(),
            None => {
                schema.iter().find_map(|(qualifier, _)| qualifier.map(|q| q.table().to_owned())).unwrap_or(function)
            }
        };
        let plan = LogicalPlanBuilder::from(input).project(columns)?.alias(qualifier)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

fn expression(argument: &FunctionArg) -> Result<ast::Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Ok(expression.clone()),
        other => plan_err!("TUMBLE: unexpected argument {other}"),
    }
}

fn table_factor(argument: &FunctionArg) -> Result<TableFactor> {
    let name = match expression(argument)? {
        ast::Expr::Identifier(name) => vec![name],
        ast::Expr::CompoundIdentifier(names) => names,
        other => return plan_err!("TUMBLE: the first argument must be the name of a stream, found {other}"),
    };
    Ok(TableFactor::Table {
        name: ast::ObjectName::from(name),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    })
}

/// A constant interval in microseconds; months have no fixed length.
fn interval_us(expression: &Expr) -> Result<i64> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expression else {
        return plan_err!("TUMBLE: the third argument must be an interval such as INTERVAL '1 hour'");
    };
    if interval.months != 0 {
        return plan_err!("TUMBLE: months and years have no fixed length; write date_trunc('month', …) in GROUP BY");
    }
    let days_us = i64::from(interval.days).checked_mul(86_400_000_000);
    match days_us.and_then(|us| us.checked_add(interval.nanoseconds / 1_000)) {
        Some(length_us) if length_us > 0 && interval.nanoseconds % 1_000 == 0 => Ok(length_us),
        _ => plan_err!("TUMBLE: the length of a window must be at least a microsecond, in whole microseconds"),
    }
}
