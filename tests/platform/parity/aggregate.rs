//! Aggregates by brute force over all values of a group.

use super::exact::{Sum, nearest, variance};
use super::expression::Expression;
use super::ordered::{self, End, OrderBy};
use super::pairs::{self, Statistic};
use super::value::{Key, Kind, Value, order, power_of_ten};

/// One aggregate call.
#[derive(Debug, Clone)]
pub(super) struct Aggregate {
    pub(super) function: Function,
    /// None for `count(*)`.
    pub(super) argument: Option<Expression>,
    /// Of pairs: the x. Of extremes: the key.
    pub(super) second: Option<Expression>,
    pub(super) distinct: bool,
    pub(super) order_by: Vec<OrderBy>,
    pub(super) filter: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Function {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    BitAnd,
    BitOr,
    BitXor,
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    ApproxDistinct,
    Percentile(f64),
    ExactPercentile(f64),
    MedianExact,
    TopK(usize),
    Of(Statistic),
    /// Whether nulls are passed over.
    End(End, bool),
    ArgMin,
    ArgMax,
    ArrayAgg(bool),
    StringAgg(&'static str),
}

/// What an answer has to say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expected {
    pub(super) value: Value,
    pub(super) tolerance: Tolerance,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Tolerance {
    Exact,
    /// A float that is off by at most so much.
    Within(f64),
    /// A number of distinct values that is off by at most so much.
    Distinct(u64),
}

/// The answer is an error: a sum does not fit its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OutOfRange;

impl Expected {
    pub(super) fn exact(value: Value) -> Self {
        Self { value, tolerance: Tolerance::Exact }
    }
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::BoolAnd => "bool_and",
            Self::BoolOr => "bool_or",
            Self::BitAnd => "bit_and",
            Self::BitOr => "bit_or",
            Self::BitXor => "bit_xor",
            Self::VarPop => "var_pop",
            Self::VarSamp => "var_samp",
            Self::StddevPop => "stddev_pop",
            Self::StddevSamp => "stddev_samp",
            Self::ApproxDistinct => "approx_distinct",
            Self::Percentile(_) => "approx_percentile_cont",
            Self::ExactPercentile(_) => "percentile_cont",
            Self::MedianExact => "median_exact",
            Self::TopK(_) => "approx_top_k",
            Self::Of(statistic) => statistic.name(),
            Self::End(End::First, _) => "first_value",
            Self::End(End::Last, _) => "last_value",
            Self::End(End::Any, _) => "any_value",
            Self::ArgMin => "arg_min",
            Self::ArgMax => "arg_max",
            Self::ArrayAgg(_) => "array_agg",
            Self::StringAgg(_) => "string_agg",
        }
    }

    /// True if the answer may be off.
    pub(super) fn is_approximate(self) -> bool {
        matches!(self, Self::ApproxDistinct | Self::Percentile(_))
    }
}

impl Aggregate {
    pub(super) fn sql(&self, name: &dyn Fn(usize) -> String) -> String {
        let argument = self.argument.as_ref().map_or_else(|| "*".to_owned(), |argument| argument.sql(name));
        let filter = self.filter.as_ref().map(|filter| format!(" FILTER (WHERE {})", filter.sql(name)));
        let filter = filter.unwrap_or_default();
        let function = self.function.name();
        if let Function::ExactPercentile(share) = self.function {
            return format!("{function}({share}) WITHIN GROUP (ORDER BY {argument}){filter}");
        }
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let second = self.second.as_ref().map(|second| format!(", {}", second.sql(name))).unwrap_or_default();
        let constant = match self.function {
            Function::Percentile(share) => format!(", {share}"),
            Function::TopK(k) => format!(", {k}"),
            Function::StringAgg(separator) => format!(", '{separator}'"),
            _ => String::new(),
        };
        let nulls = match self.function {
            Function::End(End::First | End::Last, true) | Function::ArrayAgg(true) => " IGNORE NULLS",
            _ => "",
        };
        let order_by = ordered::sql(&self.order_by, name);
        format!("{function}({distinct}{argument}{second}{constant}{order_by}){filter}{nulls}")
    }

    pub(super) fn kind(&self) -> Kind {
        match (self.function, self.argument.as_ref().map(Expression::kind)) {
            (Function::Count | Function::ApproxDistinct | Function::Of(Statistic::Count), _) => Kind::Int,
            (Function::TopK(_), Some(kind)) => Kind::Ranks(a_static(kind)),
            (Function::ArrayAgg(_), Some(kind)) => Kind::List(a_static(kind)),
            (Function::StringAgg(_), _) => Kind::Text,
            (Function::Avg, Some(Kind::Decimal(scale))) => Kind::Decimal((scale + 4).min(38)),
            (
                Function::Avg
                | Function::VarPop
                | Function::VarSamp
                | Function::StddevPop
                | Function::StddevSamp
                | Function::Percentile(_)
                | Function::ExactPercentile(_)
                | Function::MedianExact
                | Function::Of(_),
                _,
            ) => Kind::Float,
            (_, Some(kind)) => kind,
            (_, None) => panic!("{:?} needs an argument", self.function),
        }
    }

    /// The aggregate over the rows of a group.
    pub(super) fn over(&self, rows: &[&[Value]]) -> Result<Expected, OutOfRange> {
        let passes =
            |row: &&&[Value]| self.filter.as_ref().is_none_or(|filter| filter.value(row).truth() == Some(true));
        let passing: Vec<&[Value]> = rows.iter().filter(passes).copied().collect();
        let Some(argument) = &self.argument else { return Ok(Expected::exact(Value::Int(passing.len() as i128))) };
        match (self.function, &self.second) {
            (Function::Of(statistic), Some(x)) => {
                let pair = |row: &&[Value]| (argument.value(row), x.value(row));
                return Ok(Expected::exact(pairs::over(statistic, passing.iter().map(pair))));
            }
            (
                Function::End(..)
                | Function::ArgMin
                | Function::ArgMax
                | Function::ArrayAgg(_)
                | Function::StringAgg(_),
                _,
            ) => {
                return Ok(Expected::exact(ordered::over(self, argument, &passing)));
            }
            _ => {}
        }
        let passing = passing.iter();
        let mut values: Vec<Value> = passing.map(|row| argument.value(row)).filter(|value| !value.is_null()).collect();
        if self.distinct {
            values.sort_by_cached_key(Value::key);
            values.dedup_by_key(|value| value.key());
        }
        let exact = |value: Option<Value>| Ok(Expected::exact(value.unwrap_or(Value::Null)));
        match self.function {
            Function::Count => exact(Some(Value::Int(values.len() as i128))),
            Function::Sum => sum(&values).map(Expected::exact),
            Function::Avg => exact(average(&values, self.kind())),
            Function::Min => exact(values.iter().min_by(|a, b| order(a, b)).cloned()),
            Function::Max => exact(values.iter().max_by(|a, b| order(a, b)).cloned()),
            Function::BoolAnd => exact(fold_bools(&values, |a, b| a && b)),
            Function::BoolOr => exact(fold_bools(&values, |a, b| a || b)),
            Function::BitAnd => exact(values.iter().map(Value::int).reduce(|a, b| a & b).map(Value::Int)),
            Function::BitOr => exact(values.iter().map(Value::int).reduce(|a, b| a | b).map(Value::Int)),
            Function::BitXor => exact(values.iter().map(Value::int).reduce(|a, b| a ^ b).map(Value::Int)),
            Function::ApproxDistinct => Ok(distinct(&values)),
            Function::Percentile(share) => Ok(percentile(&values, share)),
            Function::ExactPercentile(share) => Ok(Expected::exact(percentile(&values, share).value)),
            Function::MedianExact => Ok(Expected::exact(percentile(&values, 0.5).value)),
            Function::TopK(k) => exact(top(&values, k)),
            Function::Of(_)
            | Function::End(..)
            | Function::ArgMin
            | Function::ArgMax
            | Function::ArrayAgg(_)
            | Function::StringAgg(_) => panic!("{:?} takes rows, not values", self.function),
            Function::VarPop | Function::VarSamp | Function::StddevPop | Function::StddevSamp => {
                Ok(Expected::exact(self.spread(&values)))
            }
        }
    }

    /// Correctly rounded; the deviation is the root of the rounded variance.
    fn spread(&self, values: &[Value]) -> Value {
        let floats: Vec<f64> = values.iter().map(Value::float).collect();
        let is_sample = matches!(self.function, Function::VarSamp | Function::StddevSamp);
        let freedom = floats.len().saturating_sub(usize::from(is_sample));
        if freedom == 0 {
            return Value::Null;
        }
        let variance = variance(&floats, freedom);
        let is_root = matches!(self.function, Function::StddevPop | Function::StddevSamp);
        Value::Float(if is_root { variance.sqrt() } else { variance })
    }
}

/// A kind that lives for ever.
fn a_static(kind: Kind) -> &'static Kind {
    match kind {
        Kind::Bool => &Kind::Bool,
        Kind::Int => &Kind::Int,
        Kind::Decimal(scale) => match scale {
            super::event::D_SCALE => &Kind::Decimal(super::event::D_SCALE),
            other => panic!("no list of decimals of scale {other}"),
        },
        Kind::Float => &Kind::Float,
        Kind::Text => &Kind::Text,
        Kind::Time => &Kind::Time,
        Kind::List(_) | Kind::Ranks(_) => panic!("a list of lists"),
    }
}

/// The most frequent values, each with its count; of equal counts the smaller value first.
fn top(values: &[Value], k: usize) -> Option<Value> {
    let mut counts: std::collections::BTreeMap<Key, (usize, &Value)> = std::collections::BTreeMap::new();
    for value in values {
        counts.entry(value.key()).or_insert((0, value)).0 += 1;
    }
    let mut ranked: Vec<(usize, &Value)> = counts.into_values().collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| order(a.1, b.1)));
    let pairs = ranked.into_iter().take(k).flat_map(|(count, value)| [value.clone(), Value::Int(count as i128)]);
    let pairs: Vec<Value> = pairs.collect();
    (!pairs.is_empty()).then_some(Value::List(pairs))
}

fn fold_bools(values: &[Value], fold: impl Fn(bool, bool) -> bool) -> Option<Value> {
    values.iter().filter_map(Value::truth).reduce(fold).map(Value::Bool)
}

fn floats_of(values: &[Value]) -> Vec<f64> {
    values.iter().map(Value::float).collect()
}

/// Sum and scale of integers or decimals.
fn whole_sum(values: &[Value]) -> (i128, u32) {
    values.iter().fold((0, 0), |(sum, _), value| match value {
        Value::Int(value) => (sum + value, 0),
        Value::Decimal(unscaled, scale) => (sum + unscaled, *scale),
        other => panic!("{other:?} has no exact sum"),
    })
}

fn sum(values: &[Value]) -> Result<Value, OutOfRange> {
    match values.first() {
        None => Ok(Value::Null),
        Some(Value::Float(_)) => Ok(Value::Float(Sum::of(&floats_of(values)).divided(1))),
        Some(Value::Int(_)) => {
            let (sum, _) = whole_sum(values);
            i64::try_from(sum).map(|_| Value::Int(sum)).map_err(|_| OutOfRange)
        }
        Some(_) => {
            let (sum, scale) = whole_sum(values);
            Ok(Value::Decimal(sum, scale))
        }
    }
}

fn average(values: &[Value], kind: Kind) -> Option<Value> {
    let count = values.len();
    match (values.first()?, kind) {
        (Value::Float(_), _) => Some(Value::Float(Sum::of(&floats_of(values)).divided(count))),
        (Value::Int(_), _) => Some(Value::Float(nearest(&whole_sum(values).0.into(), &count.into(), 0))),
        (_, Kind::Decimal(scale)) => {
            let (sum, own) = whole_sum(values);
            Some(Value::Decimal(half_away_from_zero(sum * power_of_ten(scale - own), count as i128), scale))
        }
        other => panic!("no average of {other:?}"),
    }
}

fn half_away_from_zero(dividend: i128, divisor: i128) -> i128 {
    let magnitude = (2 * dividend.abs() + divisor) / (2 * divisor);
    if dividend < 0 { -magnitude } else { magnitude }
}

/// 25 bits of a hash tell values apart while there are few of them: two of eight may collide about
/// once in a million groups.
fn distinct(values: &[Value]) -> Expected {
    let different: std::collections::BTreeSet<_> = values.iter().map(Value::key).collect();
    let count = different.len();
    let off = match count {
        0..8 => 0,
        8..=1_024 => 1 + count as u64 / 200,
        _ => count as u64 / 10,
    };
    Expected { value: Value::Int(count as i128), tolerance: Tolerance::Distinct(off) }
}

/// `percentile_cont`, off by at most a 128th of the larger neighbour.
fn percentile(values: &[Value], share: f64) -> Expected {
    let mut floats = floats_of(values);
    floats.sort_by(|a, b| order(&Value::Float(*a), &Value::Float(*b)));
    let Some(last) = floats.len().checked_sub(1) else { return Expected::exact(Value::Null) };
    let rank = share * last as f64;
    let (low, high) = (floats[rank.floor() as usize], floats[rank.ceil() as usize]);
    let part = rank - rank.floor();
    let value = if part <= 0.0 || low.to_bits() == high.to_bits() { low } else { low * (1.0 - part) + high * part };
    // below the normal doubles there are no relative errors
    let bound = low.abs().max(high.abs()) / 127.0 + f64::MIN_POSITIVE;
    let tolerance = if value.is_finite() { Tolerance::Within(bound) } else { Tolerance::Within(0.0) };
    Expected { value: Value::Float(value), tolerance }
}
