//! Aggregates of rows in an order: sorted by their keys, then by the place of the record in the log.

use std::cmp::Ordering;

use super::aggregate::{Aggregate, Function};
use super::expression::Expression;
use super::value::{Value, order};
use super::view::POSITION;

/// One key of an `ORDER BY`.
#[derive(Debug, Clone)]
pub(super) struct OrderBy {
    pub(super) key: Expression,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

/// Which end of the order is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    First,
    Last,
    /// The first that is not null.
    Any,
}

/// ` ORDER BY …`
pub(super) fn sql(order_by: &[OrderBy], name: &dyn Fn(usize) -> String) -> String {
    let key = |by: &OrderBy| {
        let direction = if by.descending { "DESC" } else { "ASC" };
        let nulls = if by.nulls_first { "FIRST" } else { "LAST" };
        format!("{} {direction} NULLS {nulls}", by.key.sql(name))
    };
    let keys: Vec<String> = order_by.iter().map(key).collect();
    if keys.is_empty() { String::new() } else { format!(" ORDER BY {}", keys.join(", ")) }
}

/// Two values, nulls where the key says.
fn compare(a: &Value, b: &Value, descending: bool, nulls_first: bool) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) if nulls_first => Ordering::Less,
        (true, false) => Ordering::Greater,
        (false, true) => compare(b, a, descending, nulls_first).reverse(),
        (false, false) if descending => order(b, a),
        (false, false) => order(a, b),
    }
}

/// The aggregate over the rows that pass its filter.
pub(super) fn over(aggregate: &Aggregate, argument: &Expression, rows: &[&[Value]]) -> Value {
    let extreme = |descending| {
        let key = aggregate.second.clone().expect("an extreme has a key");
        vec![OrderBy { key, descending, nulls_first: false }]
    };
    let order_by = match aggregate.function {
        Function::ArgMin => extreme(false),
        Function::ArgMax => extreme(true),
        _ => aggregate.order_by.clone(),
    };
    let mut rows: Vec<&[Value]> = rows.to_vec();
    rows.sort_by(|a, b| {
        let keys = order_by.iter().map(|by| compare(&by.key.value(a), &by.key.value(b), by.descending, by.nulls_first));
        let places = (POSITION..POSITION + 2).map(|column| order(&a[column], &b[column]));
        // several rows of one record: by what they are worth
        let values = std::iter::once_with(|| compare(&argument.value(a), &argument.value(b), false, true));
        keys.chain(places).chain(values).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    let is_extreme = matches!(aggregate.function, Function::ArgMin | Function::ArgMax);
    if is_extreme {
        rows.retain(|row| !order_by[0].key.value(row).is_null());
    }
    let mut values: Vec<Value> = rows.iter().map(|row| argument.value(row)).collect();
    let skips_nulls = match aggregate.function {
        Function::End(end, skips) => skips || end == End::Any,
        Function::ArrayAgg(skips) => skips,
        _ => true,
    };
    values.retain(|value| !skips_nulls || !value.is_null());
    if aggregate.distinct {
        let (descending, nulls_first) = order_by.first().map_or((false, false), |by| (by.descending, by.nulls_first));
        values.sort_by(|a, b| compare(a, b, descending, nulls_first));
        values.dedup_by_key(|value| value.key());
    }
    finish(aggregate.function, values)
}

fn finish(function: Function, values: Vec<Value>) -> Value {
    match function {
        _ if values.is_empty() => Value::Null,
        Function::End(End::Last, _) => values.last().cloned().unwrap_or(Value::Null),
        Function::ArrayAgg(_) => Value::List(values),
        Function::StringAgg(separator) => {
            let text = |value: &Value| match value {
                Value::Text(text) => text.clone(),
                other => panic!("{other:?} is no text"),
            };
            Value::Text(values.iter().map(text).collect::<Vec<_>>().join(separator))
        }
        _ => values[0].clone(),
    }
}
