//! Scalar expressions: their SQL, and what PostgreSQL says they are.

use std::cmp::Ordering;

use super::calendar;
use super::value::{Kind, Value, order, rescaled};
use super::window::ZONE;

/// An expression over numbered columns; what the numbers mean is up to the caller.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    Column(usize, Kind),
    Literal(Value),
    Call(Operation, Vec<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    /// Of integers: towards zero.
    Divide,
    Modulo,
    Concatenate,
    Length,
    Coalesce,
    NullIf,
    /// `CASE WHEN a THEN b ELSE c END`
    Case,
    Compare(Comparison),
    IsNull,
    IsNotNull,
    IsDistinct,
    And,
    Or,
    Not,
    /// The first argument among the others.
    In,
    Between,
    /// `LIKE 'prefix%'`
    StartsWith,
    /// By the clock in UTC, or in [`ZONE`].
    Truncate(&'static str, bool),
    /// Width, and origin if it is not the epoch.
    Bin(i64, Option<i64>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) const ALL: [Self; 6] =
        [Self::Equal, Self::Unequal, Self::Less, Self::LessOrEqual, Self::Greater, Self::GreaterOrEqual];

    fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Unequal => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

pub(super) fn call(operation: Operation, arguments: impl Into<Vec<Expression>>) -> Expression {
    Expression::Call(operation, arguments.into())
}

pub(super) fn literal(value: Value) -> Expression {
    Expression::Literal(value)
}

pub(super) fn int(value: i128) -> Expression {
    Expression::Literal(Value::Int(value))
}

pub(super) fn compare(comparison: Comparison, a: Expression, b: Expression) -> Expression {
    call(Operation::Compare(comparison), [a, b])
}

impl Expression {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Column(_, kind) => *kind,
            Self::Literal(value) => match value {
                Value::Null | Value::List(_) => panic!("{value:?} has no kind"),
                Value::Bool(_) => Kind::Bool,
                Value::Int(_) => Kind::Int,
                Value::Decimal(_, scale) => Kind::Decimal(*scale),
                Value::Float(_) => Kind::Float,
                Value::Text(_) => Kind::Text,
                Value::Time(_) => Kind::Time,
            },
            Self::Call(operation, arguments) => match operation {
                Operation::Multiply => product(arguments[0].kind(), arguments[1].kind()),
                Operation::Add | Operation::Subtract | Operation::Divide => {
                    wider(arguments[0].kind(), arguments[1].kind())
                }
                Operation::Modulo | Operation::Length => Kind::Int,
                Operation::Concatenate => Kind::Text,
                Operation::Coalesce | Operation::NullIf => arguments[0].kind(),
                Operation::Case => arguments[1].kind(),
                Operation::Truncate(..) | Operation::Bin(..) => Kind::Time,
                _ => Kind::Bool,
            },
        }
    }

    /// The expression in SQL; `name` says what a column is called.
    pub(super) fn sql(&self, name: &dyn Fn(usize) -> String) -> String {
        match self {
            Self::Column(index, _) => name(*index),
            Self::Literal(value) => literal_sql(value),
            Self::Call(operation, arguments) => {
                let arguments: Vec<String> = arguments.iter().map(|argument| argument.sql(name)).collect();
                call_sql(*operation, &arguments)
            }
        }
    }

    pub(super) fn value(&self, row: &[Value]) -> Value {
        match self {
            Self::Column(index, _) => row[*index].clone(),
            Self::Literal(value) => value.clone(),
            Self::Call(operation, arguments) => {
                let values: Vec<Value> = arguments.iter().map(|argument| argument.value(row)).collect();
                apply(*operation, &values)
            }
        }
    }

    /// Every column that is read.
    pub(super) fn columns(&self) -> Vec<usize> {
        match self {
            Self::Column(index, _) => vec![*index],
            Self::Literal(_) => vec![],
            Self::Call(_, arguments) => arguments.iter().flat_map(Self::columns).collect(),
        }
    }
}

fn wider(a: Kind, b: Kind) -> Kind {
    match (a, b) {
        (Kind::Float, _) | (_, Kind::Float) => Kind::Float,
        (Kind::Decimal(a), Kind::Decimal(b)) => Kind::Decimal(a.max(b)),
        (Kind::Decimal(scale), _) | (_, Kind::Decimal(scale)) => Kind::Decimal(scale),
        (kind, _) => kind,
    }
}

fn product(a: Kind, b: Kind) -> Kind {
    match (a, b) {
        (Kind::Decimal(a), Kind::Decimal(b)) => Kind::Decimal(a + b),
        (a, b) => wider(a, b),
    }
}

fn literal_sql(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Bool(value) => value.to_string().to_uppercase(),
        Value::Int(value) if *value < 0 => format!("({value})"),
        Value::Int(value) => value.to_string(),
        Value::Decimal(unscaled, scale) => decimal_text(*unscaled, *scale),
        Value::Float(value) => format!("CAST('{value}' AS DOUBLE PRECISION)"),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Time(time_us) => format!("TIMESTAMPTZ '{}'", calendar::text(*time_us)),
        Value::List(_) => panic!("{value:?} as a literal"),
    }
}

/// `-12.5000`
pub(super) fn decimal_text(unscaled: i128, scale: u32) -> String {
    let power = 10_u128.pow(scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    let magnitude = unscaled.unsigned_abs();
    if scale == 0 {
        return format!("{sign}{magnitude}");
    }
    format!("{sign}{}.{:0width$}", magnitude / power, magnitude % power, width = scale as usize)
}

fn call_sql(operation: Operation, arguments: &[String]) -> String {
    let infix = |word: &str| format!("({} {word} {})", arguments[0], arguments[1]);
    let function = |name: &str| format!("{name}({})", arguments.join(", "));
    match operation {
        Operation::Add => infix("+"),
        Operation::Subtract => infix("-"),
        Operation::Multiply => infix("*"),
        Operation::Divide => infix("/"),
        Operation::Modulo => infix("%"),
        Operation::Concatenate => infix("||"),
        Operation::Length => function("length"),
        Operation::Coalesce => function("coalesce"),
        Operation::NullIf => function("nullif"),
        Operation::Case => {
            format!("CASE WHEN {} THEN {} ELSE {} END", arguments[0], arguments[1], arguments[2])
        }
        Operation::Compare(comparison) => infix(comparison.sql()),
        Operation::IsNull => format!("({} IS NULL)", arguments[0]),
        Operation::IsNotNull => format!("({} IS NOT NULL)", arguments[0]),
        Operation::IsDistinct => infix("IS DISTINCT FROM"),
        Operation::And => infix("AND"),
        Operation::Or => infix("OR"),
        Operation::Not => format!("(NOT {})", arguments[0]),
        Operation::In => format!("({} IN ({}))", arguments[0], arguments[1..].join(", ")),
        Operation::Between => format!("({} BETWEEN {} AND {})", arguments[0], arguments[1], arguments[2]),
        Operation::StartsWith => format!("({} LIKE '{}%')", arguments[0], arguments[1].trim_matches('\'')),
        Operation::Truncate(unit, false) => format!("date_trunc('{unit}', {})", arguments[0]),
        Operation::Truncate(unit, true) => format!("date_trunc('{unit}', {}, '{}')", arguments[0], ZONE.0),
        Operation::Bin(width_us, origin_us) => {
            let width = format!("INTERVAL '{} seconds'", width_us / calendar::SECOND);
            let origin = origin_us.map(|origin_us| format!(", TIMESTAMPTZ '{}'", calendar::text(origin_us)));
            format!("date_bin({width}, {}{})", arguments[0], origin.unwrap_or_default())
        }
    }
}

fn apply(operation: Operation, values: &[Value]) -> Value {
    match operation {
        Operation::IsNull => return Value::Bool(values[0].is_null()),
        Operation::IsNotNull => return Value::Bool(!values[0].is_null()),
        Operation::IsDistinct => return Value::Bool(values[0].key() != values[1].key()),
        Operation::Coalesce => return values.iter().find(|value| !value.is_null()).cloned().unwrap_or(Value::Null),
        Operation::Case => return values[if values[0].truth() == Some(true) { 1 } else { 2 }].clone(),
        Operation::And | Operation::Or => return logical(operation == Operation::Or, &values[0], &values[1]),
        Operation::In => return any_equal(&values[0], &values[1..]),
        _ => {}
    }
    if values.iter().any(Value::is_null) {
        return if operation == Operation::NullIf { values[0].clone() } else { Value::Null };
    }
    match operation {
        Operation::Add | Operation::Subtract | Operation::Multiply | Operation::Divide | Operation::Modulo => {
            arithmetic(operation, &values[0], &values[1])
        }
        Operation::Compare(comparison) => Value::Bool(comparison.holds(order(&values[0], &values[1]))),
        Operation::NullIf if order(&values[0], &values[1]).is_eq() => Value::Null,
        Operation::NullIf => values[0].clone(),
        Operation::Not => Value::Bool(values[0].truth() == Some(false)),
        Operation::Between => {
            Value::Bool(order(&values[0], &values[1]).is_ge() && order(&values[0], &values[2]).is_le())
        }
        _ => of_text_or_time(operation, values),
    }
}

fn of_text_or_time(operation: Operation, values: &[Value]) -> Value {
    match (operation, values) {
        (Operation::Concatenate, [Value::Text(a), Value::Text(b)]) => Value::Text(format!("{a}{b}")),
        (Operation::Length, [Value::Text(text)]) => Value::Int(text.chars().count() as i128),
        (Operation::StartsWith, [Value::Text(text), Value::Text(prefix)]) => Value::Bool(text.starts_with(prefix)),
        (Operation::Truncate(unit, in_zone), [Value::Time(time_us)]) => {
            let ahead_us = if in_zone { ZONE.1 } else { 0 };
            Value::Time(calendar::truncate(unit, *time_us + ahead_us) - ahead_us)
        }
        (Operation::Bin(width_us, origin_us), [Value::Time(time_us)]) => {
            Value::Time(calendar::bin(width_us, origin_us.unwrap_or(0), *time_us))
        }
        other => panic!("cannot compute {other:?}"),
    }
}

/// `AND`, or `OR` if `wins` is true: a side that is `wins` decides, else an unknown one does.
fn logical(wins: bool, a: &Value, b: &Value) -> Value {
    let (a, b) = (a.truth(), b.truth());
    if a == Some(wins) || b == Some(wins) {
        return Value::Bool(wins);
    }
    if a.is_none() || b.is_none() { Value::Null } else { Value::Bool(!wins) }
}

fn any_equal(value: &Value, list: &[Value]) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    let found = list.iter().any(|item| !item.is_null() && order(value, item).is_eq());
    if !found && list.iter().any(Value::is_null) { Value::Null } else { Value::Bool(found) }
}

fn arithmetic(operation: Operation, a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Float(_), _) | (_, Value::Float(_)) => {
            let (a, b) = (a.float(), b.float());
            Value::Float(match operation {
                Operation::Add => a + b,
                Operation::Subtract => a - b,
                Operation::Multiply => a * b,
                Operation::Divide => a / b,
                other => panic!("{other:?} of floats"),
            })
        }
        (Value::Int(a), Value::Int(b)) => Value::Int(whole(operation, *a, *b)),
        (a, b) => decimal_arithmetic(operation, a, b),
    }
}

fn whole(operation: Operation, a: i128, b: i128) -> i128 {
    let result = match operation {
        Operation::Add => a + b,
        Operation::Subtract => a - b,
        Operation::Multiply => a * b,
        Operation::Divide => a / b,
        Operation::Modulo => a % b,
        other => panic!("{other:?} of integers"),
    };
    assert!(i64::try_from(result).is_ok(), "the generator makes no expression that is out of range");
    result
}

fn decimal_arithmetic(operation: Operation, a: &Value, b: &Value) -> Value {
    let scale = |value: &Value| if let Value::Decimal(_, scale) = value { *scale } else { 0 };
    let both = scale(a).max(scale(b));
    match operation {
        Operation::Add => Value::Decimal(rescaled(a, both) + rescaled(b, both), both),
        Operation::Subtract => Value::Decimal(rescaled(a, both) - rescaled(b, both), both),
        Operation::Multiply => {
            let (own_a, own_b) = (scale(a), scale(b));
            Value::Decimal(rescaled(a, own_a) * rescaled(b, own_b), own_a + own_b)
        }
        other => panic!("{other:?} of decimals"),
    }
}
