//! Values of the reference interpreter and PostgreSQL's order of them.

use std::cmp::Ordering;

/// One value. Integers and decimals are wide enough that nothing here wraps.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    /// `unscaled / 10^scale`
    Decimal(i128, u32),
    Float(f64),
    Text(String),
    /// Microseconds since the epoch.
    Time(i64),
    List(Vec<Value>),
}

/// The SQL types that the interpreter knows, as far as it tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Decimal(u32),
    Float,
    Text,
    Time,
    List(&'static Kind),
    /// Values with their counts, one after the other.
    Ranks(&'static Kind),
}

/// A value as a part of a key: equal values are equal keys (one NaN, one zero), nulls come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Null,
    Bool(bool),
    Number(i128, u32),
    Float(u64),
    Text(String),
    Time(i64),
    List(Vec<Key>),
}

impl Value {
    pub(super) fn is_null(&self) -> bool {
        *self == Self::Null
    }

    pub(super) fn key(&self) -> Key {
        match self {
            Self::Null => Key::Null,
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(value) => Key::Number(*value, 0),
            Self::Decimal(unscaled, scale) => shortest(*unscaled, *scale),
            Self::Float(value) => Key::Float(ordered_bits(*value)),
            Self::Text(text) => Key::Text(text.clone()),
            Self::Time(time_us) => Key::Time(*time_us),
            Self::List(values) => Key::List(values.iter().map(Self::key).collect()),
        }
    }

    /// Null counts as "unknown".
    pub(super) fn truth(&self) -> Option<bool> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(*value),
            other => panic!("{other:?} is no truth value"),
        }
    }

    pub(super) fn int(&self) -> i128 {
        let Self::Int(value) = self else { panic!("{self:?} is no integer") };
        *value
    }

    /// A number as the double nearest to it.
    pub(super) fn float(&self) -> f64 {
        match self {
            Self::Int(value) => *value as f64,
            Self::Decimal(unscaled, scale) => {
                super::exact::nearest(&(*unscaled).into(), &power_of_ten(*scale).into(), 0)
            }
            Self::Float(value) => *value,
            other => panic!("{other:?} is no number"),
        }
    }
}

/// PostgreSQL's order of two values that are not null: NaN is above all numbers, zero has no sign,
/// texts compare byte by byte (collation `C`).
pub(super) fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Time(a), Value::Time(b)) => a.cmp(b),
        (Value::Float(_), _) | (_, Value::Float(_)) => ordered_bits(a.float()).cmp(&ordered_bits(b.float())),
        (a, b) => {
            let scale = scale_of(a).max(scale_of(b));
            rescaled(a, scale).cmp(&rescaled(b, scale))
        }
    }
}

pub(super) fn power_of_ten(digits: u32) -> i128 {
    10_i128.pow(digits)
}

fn scale_of(value: &Value) -> u32 {
    if let Value::Decimal(_, scale) = value { *scale } else { 0 }
}

/// An integer or a decimal, times 10^`scale`.
pub(super) fn rescaled(value: &Value, scale: u32) -> i128 {
    match value {
        Value::Int(value) => value * power_of_ten(scale),
        Value::Decimal(unscaled, own) => unscaled * power_of_ten(scale - own),
        other => panic!("{other:?} is no exact number"),
    }
}

fn shortest(mut unscaled: i128, mut scale: u32) -> Key {
    while scale > 0 && unscaled % 10 == 0 {
        unscaled /= 10;
        scale -= 1;
    }
    Key::Number(unscaled, scale)
}

/// Bits that are ordered as the floats are, with one NaN and one zero.
fn ordered_bits(value: f64) -> u64 {
    const SIGN: u64 = 1 << 63;
    let bits = if value.is_nan() {
        0x7ff8_0000_0000_0000
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}
