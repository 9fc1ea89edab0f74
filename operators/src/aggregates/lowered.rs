//! From a call as a user writes it to the aggregate that a view keeps: sets for `DISTINCT`, caps, and the
//! log position for everything that has an order.
//!
//! ```text
//! count(DISTINCT x)               count_distinct(x)
//! first_value(x ORDER BY k DESC)  first_value[…; desc nulls first](x, k, _partition, _offset)
//! median_exact(x)                 median_exact(x), marked past its cap
//! ```

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue, plan_datafusion_err, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort};
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, cast};

use super::capped::{Use, Words};
use super::distinct::OfDistinct;
use super::list::{List, ListOrder};
use super::order::Direction;
use super::percentile_exact::ExactPercentile;
use super::pick::Pick;
use super::top_k::TopK;
use super::udaf::udaf;

/// Names that only a view's lowering understands; a session has DataFusion's functions for them.
const ORDERED: [&str; 5] = ["first_value", "last_value", "any_value", "array_agg", "string_agg"];
/// Aggregates for which `DISTINCT` changes nothing.
const UNCHANGED_BY_DISTINCT: [&str; 8] =
    ["min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "approx_distinct", "grouping"];

/// Whether the lowering gives the name a meaning that can be merged.
pub(crate) fn is_ordered(name: &str) -> bool {
    ORDERED.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether `DISTINCT` is defined for an aggregate.
pub(crate) fn takes_distinct(name: &str) -> bool {
    UNCHANGED_BY_DISTINCT.contains(&name)
        || OfDistinct::NAMES.contains(&name)
        || ["first_value", "last_value", "any_value", "arg_min", "arg_max", "array_agg", "string_agg"].contains(&name)
}

/// Every aggregate that lowering makes, with some order: for laws and frozen states.
#[cfg(test)]
pub(crate) fn forms() -> Vec<Arc<AggregateUDF>> {
    let descending = || vec![Direction { descending: true, nulls_first: true }];
    let inner = |name: &&str| super::all().into_iter().find(|aggregate| aggregate.name() == *name);
    let mut forms: Vec<_> =
        OfDistinct::NAMES.iter().filter_map(inner).map(|inner| udaf(OfDistinct::new(inner))).collect();
    forms.extend([
        udaf(ExactPercentile::Any(Use::View)),
        udaf(ExactPercentile::Median(Use::View)),
        udaf(TopK(Use::View)),
        udaf(Pick::end(false, vec![], false)),
        udaf(Pick::end(false, vec![Direction::ASCENDING], true)),
        udaf(Pick::end(true, descending(), false)),
        udaf(Pick::extreme(false, true)),
        udaf(Pick::extreme(true, true)),
        udaf(List::new(None, ListOrder::Keys(vec![]), false)),
        udaf(List::new(None, ListOrder::Keys(descending()), true)),
        udaf(List::new(None, ListOrder::Distinct(Direction::ASCENDING), false)),
        udaf(List::new(Some(", ".into()), ListOrder::Keys(vec![Direction::ASCENDING]), true)),
        udaf(List::new(Some(String::new()), ListOrder::Distinct(Direction::DESCENDING), true)),
    ]);
    forms
}

/// A call as a view keeps it.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// The call.
    pub(crate) expression: Expr,
    /// What to say of a cell past its cap; None if there is no cap. With it, answers are marked.
    pub(crate) words: Option<Words>,
    /// Whether plain SQL may well say something else: it knows no positions, orders distinct values as they
    /// come, and takes the two zeros of a float for two values.
    pub(crate) beyond_plain_sql: bool,
}

impl Lowered {
    fn as_it_is(expression: Expr) -> Self {
        Self { expression, words: None, beyond_plain_sql: false }
    }
}

/// Lowers a call over rows of this schema; `position` is the record's partition and offset.
pub(crate) fn lower(expression: &Expr, schema: &DFSchema, position: [&Expr; 2]) -> Result<Lowered> {
    match expression {
        Expr::Alias(alias) => {
            let inner = lower(&alias.expr, schema, position)?;
            Ok(Lowered { expression: inner.expression.alias(alias.name.clone()), ..inner })
        }
        Expr::AggregateFunction(call) => lower_call(call, schema, position),
        other => Ok(Lowered::as_it_is(other.clone())),
    }
}

fn lower_call(call: &AggregateFunction, schema: &DFSchema, position: [&Expr; 2]) -> Result<Lowered> {
    let params = &call.params;
    let ignores_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    let directions = || params.order_by.iter().map(direction).collect::<Vec<_>>();
    let function = match call.func.name() {
        name @ ("array_agg" | "string_agg") => {
            let separator = if name == "string_agg" { Some(separator(&params.args)?) } else { None };
            let order = if params.distinct { distinct_order(call)? } else { ListOrder::Keys(directions()) };
            let by_position = !params.distinct;
            let list = udaf(List::new(separator, order, ignores_nulls));
            let keys = if params.distinct { vec![params.args[0].clone()] } else { keys(&params.order_by) };
            let args = ordered_args(&params.args[0], keys, by_position.then_some(position));
            let hint = "group by more columns, or read the events themselves";
            let list = lowered(call, list, args, schema, Some(("values", hint)))?;
            return Ok(Lowered { beyond_plain_sql: true, ..list });
        }
        "first_value" => Pick::end(false, directions(), ignores_nulls),
        "any_value" => Pick::end(false, directions(), true),
        "last_value" => Pick::end(true, directions(), ignores_nulls),
        "arg_min" => Pick::extreme(false, true),
        "arg_max" => Pick::extreme(true, true),
        _ => return lower_plain(call, schema),
    };
    let (value, by) =
        params.args.split_first().ok_or_else(|| plan_datafusion_err!("{} takes an argument", call.func.name()))?;
    let keys = if params.order_by.is_empty() || !by.is_empty() { by.to_vec() } else { keys(&params.order_by) };
    let args = ordered_args(value, keys, Some(position));
    Ok(Lowered { beyond_plain_sql: true, ..lowered(call, udaf(function), args, schema, None)? })
}

/// Aggregates without an order: `DISTINCT` and caps.
fn lower_plain(call: &AggregateFunction, schema: &DFSchema) -> Result<Lowered> {
    let (name, args) = (call.func.name(), call.params.args.clone());
    let percentile = "write approx_percentile_cont(x, p), which keeps a small sketch";
    match name {
        _ if call.params.distinct && UNCHANGED_BY_DISTINCT.contains(&name) => {
            lowered(call, Arc::clone(&call.func), args, schema, None)
        }
        _ if call.params.distinct => {
            let hint = if name == "count" {
                "write approx_distinct(x), which keeps a small sketch"
            } else {
                "group by more columns, so that each cell has fewer values (approx_distinct(x) says how many)"
            };
            lowered(call, udaf(OfDistinct::new(Arc::clone(&call.func))), args, schema, Some(("distinct values", hint)))
        }
        "percentile_cont" => {
            let function = udaf(ExactPercentile::Any(Use::View));
            lowered(call, function, args, schema, Some(("different values", percentile)))
        }
        "median_exact" => {
            let function = udaf(ExactPercentile::Median(Use::View));
            lowered(call, function, args, schema, Some(("different values", percentile)))
        }
        "approx_top_k" => {
            let hint = "group by the value and count(*), then ORDER BY the count and LIMIT when you query";
            lowered(call, udaf(TopK(Use::View)), args, schema, Some(("different values", hint)))
        }
        _ => Ok(Lowered::as_it_is(Expr::AggregateFunction(call.clone()))),
    }
}

/// The call of another function, with arguments of the types that it takes.
fn lowered(
    call: &AggregateFunction,
    function: Arc<AggregateUDF>,
    args: Vec<Expr>,
    schema: &DFSchema,
    cap: Option<(&'static str, &'static str)>,
) -> Result<Lowered> {
    let types = args.iter().map(|arg| arg.get_type(schema)).collect::<Result<Vec<_>>>()?;
    let beyond_plain_sql = call.params.distinct && types.first().is_some_and(DataType::is_floating);
    let wanted = function.coerce_types(&types)?;
    let cast_to =
        |(arg, (own, wanted)): (Expr, (DataType, DataType))| if own == wanted { arg } else { cast(arg, wanted) };
    let args = args.into_iter().zip(types.into_iter().zip(wanted)).map(cast_to).collect();
    // the order of a percentile says its direction; any other is an argument by now
    let order_by = if function.supports_within_group_clause() { call.params.order_by.clone() } else { vec![] };
    let filter = call.params.filter.clone();
    let words = cap.map(|(keeps, hint)| Words {
        call: Expr::AggregateFunction(call.clone()).human_display().to_string(),
        keeps,
        hint,
    });
    let expression = Expr::AggregateFunction(AggregateFunction::new_udf(function, args, false, filter, order_by, None));
    Ok(Lowered { expression, words, beyond_plain_sql })
}

fn direction(sort: &Sort) -> Direction {
    Direction { descending: !sort.asc, nulls_first: sort.nulls_first }
}

fn keys(order_by: &[Sort]) -> Vec<Expr> {
    order_by.iter().map(|sort| sort.expr.clone()).collect()
}

fn ordered_args(value: &Expr, keys: Vec<Expr>, position: Option<[&Expr; 2]>) -> Vec<Expr> {
    let mut args = vec![value.clone()];
    args.extend(keys);
    args.extend(position.into_iter().flatten().cloned());
    args
}

/// `DISTINCT` leaves no order but that of the values.
fn distinct_order(call: &AggregateFunction) -> Result<ListOrder> {
    match call.params.order_by.as_slice() {
        [] => Ok(ListOrder::Distinct(Direction::ASCENDING)),
        [sort] if sort.expr == call.params.args[0] => Ok(ListOrder::Distinct(direction(sort))),
        _ => plan_err!("{}(DISTINCT x ORDER BY …): distinct values can be ordered by x alone", call.func.name()),
    }
}

/// The constant second argument of `string_agg`; NULL is no separator.
fn separator(args: &[Expr]) -> Result<String> {
    let mut separator = args.get(1);
    while let Some(Expr::Cast(inner)) = separator {
        separator = Some(&inner.expr);
    }
    let Some(Expr::Literal(scalar, _)) = separator else {
        return plan_err!("string_agg: the separator must be a constant text");
    };
    match scalar.cast_to(&DataType::Utf8)? {
        ScalarValue::Utf8(text) => Ok(text.unwrap_or_default()),
        other => plan_err!("string_agg: the separator must be a text, found {other}"),
    }
}
