//! The arguments of a window's table function, in both spellings:
//! `HOP(t, ts, INTERVAL '1 second', INTERVAL '1 minute')` and
//! `TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '1' MINUTE))`.

use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::Expr;
use schemas::limits::{PANES_PER_WINDOW_MAX, RECORDS_PER_WINDOW_MAX, WINDOWS_PER_EVENT_MAX};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments, TableAlias, TableFactor};

use super::global;
use super::spec::WindowSpec;
use super::zone::{Calendar, Unit, zone};

const DAY_US: i64 = 86_400_000_000;

/// The table functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Tumble,
    Hop,
    Cumulate,
    Session,
    Count,
}

impl Function {
    fn of(name: &str) -> Option<Self> {
        match name {
            "tumble" => Some(Self::Tumble),
            "hop" => Some(Self::Hop),
            "cumulate" => Some(Self::Cumulate),
            "session" => Some(Self::Session),
            "count_window" => Some(Self::Count),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE",
            Self::Hop => "HOP",
            Self::Cumulate => "CUMULATE",
            Self::Session => "SESSION",
            Self::Count => "COUNT_WINDOW",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Tumble => {
                "TUMBLE takes three or four arguments: TUMBLE(stream, time column, INTERVAL '1 hour'[, offset or time zone])"
            }
            Self::Hop => {
                "HOP takes four or five arguments: HOP(stream, time column, INTERVAL '10 seconds' (slide), INTERVAL '1 minute' (size)[, offset])"
            }
            Self::Cumulate => {
                "CUMULATE takes four or five arguments: CUMULATE(stream, time column, INTERVAL '1 hour' (step), INTERVAL '1 day' (size)[, offset])"
            }
            Self::Count => {
                "COUNT_WINDOW takes two or three arguments: COUNT_WINDOW(stream, 100) or COUNT_WINDOW(stream, 10 (slide), 100 (size))"
            }
            Self::Session => {
                "SESSION takes the stream, the columns that a session has one value of, the time column and the gap: SESSION(stream, user_id, event_time, INTERVAL '5 minutes')"
            }
        }
    }
}

/// Windows by the order of events, as other systems and their users call them.
const ORDERED: [&str; 4] = ["tumble_count", "hop_count", "tumble_rows", "global"];

/// A call, before names in it are known.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) function: Function,
    /// The stream, or a query over it.
    pub(super) table: ast::Expr,
    /// Columns of which a session has one value.
    pub(super) keys: Vec<ast::Expr>,
    pub(super) time: ast::Expr,
    /// Lengths, then an offset or a time zone.
    pub(super) rest: Vec<ast::Expr>,
    pub(super) alias: Option<TableAlias>,
}

/// The call of a window's table function that a relation is; none for another relation.
pub(super) fn call_of(relation: &TableFactor) -> Result<Option<Call>> {
    let (name, arguments, alias) = match relation {
        TableFactor::Table { name, args: Some(arguments), alias, .. } => (name, &arguments.args, alias),
        TableFactor::TableFunction { expr: ast::Expr::Function(function), alias } => match &function.args {
            FunctionArguments::List(list) => (&function.name, &list.args, alias),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let name = name.to_string().to_lowercase();
    if ORDERED.contains(&name.as_str()) {
        return plan_err!(
            "{name}: windows of so many records are COUNT_WINDOW(stream, 100), for each partition; a global window is \
             GLOBAL_WINDOW(stream, TRIGGER(count, 100, PURGE))"
        );
    }
    if name == "global_window" {
        let arguments = arguments.iter().map(plain).collect::<Option<Vec<_>>>();
        return global::call(arguments.unwrap_or_default(), alias.as_ref()).map(Some);
    }
    let Some(function) = Function::of(&name) else { return Ok(None) };
    let mut arguments = arguments.iter().map(|argument| expression(function, argument)).collect::<Result<Vec<_>>>()?;
    let (least, most) = match function {
        Function::Tumble => (3, 4),
        Function::Hop | Function::Cumulate => (4, 5),
        Function::Session => (3, usize::MAX),
        Function::Count => (2, 3),
    };
    if !(least..=most).contains(&arguments.len()) {
        return plan_err!("{}", function.usage());
    }
    let table = arguments.remove(0);
    let keys = if function == Function::Session { arguments.drain(..arguments.len() - 2).collect() } else { vec![] };
    let time = if function == Function::Count { global::offset() } else { arguments.remove(0) };
    Ok(Some(Call { function, table, keys, time, rest: arguments, alias: alias.clone() }))
}

/// An argument without a name.
fn plain(argument: &FunctionArg) -> Option<ast::Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    }
}

/// An argument; `DESCRIPTOR(column)` is the column.
fn expression(function: Function, argument: &FunctionArg) -> Result<ast::Expr> {
    let Some(expression) = plain(argument) else {
        return plan_err!("{}: unexpected argument {argument}", function.name());
    };
    if let ast::Expr::Function(call) = &expression
        && call.name.to_string().eq_ignore_ascii_case("descriptor")
        && let FunctionArguments::List(list) = &call.args
    {
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))] = list.args.as_slice() else {
            return plan_err!("{}: DESCRIPTOR names one time column", function.name());
        };
        return Ok(column.clone());
    }
    Ok(expression)
}

/// The windows that a call describes; `rest` are its lengths, then an offset or a time zone, as constants.
pub(super) fn spec(function: Function, rest: &[Expr]) -> Result<WindowSpec> {
    let spec = match (function, rest) {
        (Function::Tumble, [size]) => {
            WindowSpec::Tumble { size_us: length_us(function, "the size", size)?, offset_us: 0 }
        }
        (Function::Tumble, [size, Expr::Literal(name, _)]) if name.try_as_str().is_some() => calendar(size, name)?,
        (Function::Tumble, [size, offset]) => WindowSpec::Tumble {
            size_us: length_us(function, "the size", size)?,
            offset_us: offset_us(function, offset)?,
        },
        (Function::Hop, [slide, size, offset @ ..]) => WindowSpec::Hop {
            slide_us: length_us(function, "the slide", slide)?,
            size_us: length_us(function, "the size", size)?,
            offset_us: offset.first().map_or(Ok(0), |offset| offset_us(function, offset))?,
        },
        (Function::Cumulate, [step, size, offset @ ..]) => WindowSpec::Cumulate {
            step_us: length_us(function, "the step", step)?,
            size_us: length_us(function, "the size", size)?,
            offset_us: offset.first().map_or(Ok(0), |offset| offset_us(function, offset))?,
        },
        (Function::Count, [size]) => {
            let size = number(function, "the size", size)?;
            WindowSpec::Positions { slide: size, size }
        }
        (Function::Count, [slide, size]) => WindowSpec::Positions {
            slide: number(function, "the slide", slide)?,
            size: number(function, "the size", size)?,
        },
        (Function::Session, [gap]) => WindowSpec::Session { gap_us: length_us(function, "the gap", gap)? },
        _ => return plan_err!("{}", function.usage()),
    };
    check(&spec)?;
    Ok(spec)
}

fn check(spec: &WindowSpec) -> Result<()> {
    match spec {
        WindowSpec::Hop { slide_us, size_us, .. } if slide_us > size_us => {
            return plan_err!(
                "HOP: the slide is longer than the size: events between two windows would be in none; write the size last"
            );
        }
        WindowSpec::Cumulate { step_us, size_us, .. } if size_us % step_us != 0 => {
            return plan_err!("CUMULATE: the size must be a multiple of the step");
        }
        _ => {}
    }
    let (windows, panes) = spec.counts();
    if windows > WINDOWS_PER_EVENT_MAX {
        return plan_err!(
            "an event would be in {windows} windows, at most {WINDOWS_PER_EVENT_MAX}: take a longer slide"
        );
    }
    if panes > PANES_PER_WINDOW_MAX {
        return plan_err!(
            "a window would be made up of {panes} panes, at most {PANES_PER_WINDOW_MAX}: \
             take a size that is a multiple of the slide"
        );
    }
    Ok(())
}

/// Whole days or months in a time zone.
fn calendar(size: &Expr, name: &ScalarValue) -> Result<WindowSpec> {
    let name = name.try_as_str().flatten().unwrap_or_default();
    let Some(zone) = zone(name) else {
        return plan_err!("TUMBLE: there is no time zone {name:?}; names are such as 'Europe/Berlin'");
    };
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(size)), _) = size else {
        return plan_err!("TUMBLE: the size must be an interval such as INTERVAL '1 day'");
    };
    let unit = match (i64::from(size.months), i64::from(size.days), size.nanoseconds) {
        (months @ 1.., 0, 0) => Unit::Months(months),
        (0, days @ 1.., 0) => Unit::Days { count: days, origin: 0 },
        _ => {
            return plan_err!("TUMBLE: with a time zone, a window is a number of whole days or of whole months");
        }
    };
    Ok(WindowSpec::Calendar(Calendar::new(unit, zone)))
}

/// A constant interval in microseconds; months have no fixed length.
fn interval_us(function: Function, what: &str, expression: &Expr) -> Result<i64> {
    let name = function.name();
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expression else {
        return plan_err!("{name}: {what} must be an interval such as INTERVAL '1 hour'");
    };
    if interval.months != 0 {
        return plan_err!(
            "{name}: months and years have no fixed length; write date_trunc('month', …) in GROUP BY, \
             or TUMBLE with a time zone as fourth argument"
        );
    }
    let days_us = i64::from(interval.days).checked_mul(DAY_US);
    match days_us.and_then(|us| us.checked_add(interval.nanoseconds / 1_000)) {
        Some(length_us) if interval.nanoseconds % 1_000 == 0 => Ok(length_us),
        _ => plan_err!("{name}: {what} must be a number of whole microseconds"),
    }
}

/// A constant number of records.
fn number(function: Function, what: &str, expression: &Expr) -> Result<i64> {
    let number = match expression {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => Some(*number),
        Expr::Literal(ScalarValue::Int32(Some(number)), _) => Some((*number).into()),
        _ => None,
    };
    if let Some(number @ 1..=RECORDS_PER_WINDOW_MAX) = number {
        return Ok(number);
    }
    plan_err!("{}: {what} must be a number of records from 1 to {RECORDS_PER_WINDOW_MAX}", function.name())
}

fn length_us(function: Function, what: &str, expression: &Expr) -> Result<i64> {
    let length_us = interval_us(function, what, expression)?;
    if length_us < 1 {
        return plan_err!("{}: {what} must be at least a microsecond", function.name());
    }
    Ok(length_us)
}

fn offset_us(function: Function, expression: &Expr) -> Result<i64> {
    interval_us(function, "the offset", expression)
}
