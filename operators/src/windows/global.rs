//! `GLOBAL_WINDOW(stream, TRIGGER(…)[, EVICTOR(…)])`: a window of everything, which a trigger evaluates now and then and an
//! evictor takes records out of. (R-056)
//!
//! ```text
//!  TRIGGER(count, n, PURGE)                       windows of n records       COUNT_WINDOW(s, n)
//!  TRIGGER(count, n)       EVICTOR(count, m)      every n, the last m        COUNT_WINDOW(s, n, m)
//!  TRIGGER(at, e, PURGE)                          every e of a time          TUMBLE(s, at, e)
//!  TRIGGER(at, e)          EVICTOR(at, m)         every e, the last m        HOP(s, at, e, m)
//! ```
//! These are all whose windows are known from a record alone: its position, or one of its times. The ticks of a
//! processing-time trigger are those that the log recorded: `TRIGGER(_processing_time, e, …)`.

use datafusion::common::{Result, plan_err};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments, TableAlias};

use super::arguments::{Call, Function};

/// The word for records in a trigger or an evictor.
const COUNT: &str = "count";
/// What a trigger does to the window's records when it has fired.
const PURGE: &str = "purge";
/// An evictor by the value of a column.
const DELTA: &str = "delta";

const USAGE: &str = "GLOBAL_WINDOW takes the stream, a trigger and perhaps an evictor: \
    GLOBAL_WINDOW(stream, TRIGGER(count, 100), EVICTOR(count, 1000))";

/// `TRIGGER` or `EVICTOR`, as written.
struct Part {
    /// What it counts: records, or a time.
    of: ast::Expr,
    by: ast::Expr,
    purges: bool,
}

impl Part {
    fn counts(&self) -> bool {
        is_word(&self.of, COUNT)
    }
}

/// The windows that a call describes, as a call of the function that makes them.
pub(super) fn call(mut arguments: Vec<ast::Expr>, alias: Option<&TableAlias>) -> Result<Call> {
    if arguments.is_empty() || arguments.len() > 3 {
        return plan_err!("{USAGE}");
    }
    let table = arguments.remove(0);
    let (mut trigger, mut evictor) = (None, None);
    for argument in &arguments {
        let place = match part(argument)? {
            ("trigger", part) => trigger.replace(part),
            (_, part) => evictor.replace(part),
        };
        if place.is_some() {
            return plan_err!("{USAGE}");
        }
    }
    let Some(trigger) = trigger else {
        return plan_err!(
            "GLOBAL_WINDOW without a trigger never has a result: say when it has one, with \
             TRIGGER(count, 100, PURGE) or TRIGGER(event_time, INTERVAL '1 minute', PURGE)"
        );
    };
    let (function, rest) = windows(&trigger, evictor.as_ref())?;
    let time = if trigger.counts() { offset() } else { trigger.of };
    Ok(Call { function, table, keys: vec![], time, rest, alias: alias.cloned() })
}

fn windows(trigger: &Part, evictor: Option<&Part>) -> Result<(Function, Vec<ast::Expr>)> {
    let Some(evictor) = evictor else {
        if !trigger.purges {
            return plan_err!(
                "GLOBAL_WINDOW: without PURGE and without an evictor each result is of all records since the beginning: \
                 write TRIGGER(…, PURGE), or an EVICTOR; for the newest of these results alone, a view without windows"
            );
        }
        let function = if trigger.counts() { Function::Count } else { Function::Tumble };
        return Ok((function, vec![trigger.by.clone()]));
    };
    if is_word(&evictor.of, DELTA) {
        return plan_err!(
            "GLOBAL_WINDOW: EVICTOR(delta, …) keeps what is near the value of the record that came last: which records a \
             result is of is not known from a record, so it cannot be merged; filter by the value in a WHERE, \
             or use EVICTOR(count, …)"
        );
    }
    if trigger.purges {
        return plan_err!("GLOBAL_WINDOW: PURGE leaves nothing that an evictor could keep: write one of the two");
    }
    match (trigger.counts(), evictor.counts()) {
        (true, true) => Ok((Function::Count, vec![trigger.by.clone(), evictor.by.clone()])),
        (false, false) if trigger.of == evictor.of => Ok((Function::Hop, vec![trigger.by.clone(), evictor.by.clone()])),
        (false, false) => plan_err!("GLOBAL_WINDOW: trigger and evictor are by different times"),
        _ => plan_err!(
            "GLOBAL_WINDOW: a trigger by {} with an evictor by {}: which records a result is of depends on the times of \
             the others and is not known from a record, so it cannot be merged; take the same for both",
            named(trigger),
            named(evictor)
        ),
    }
}

fn named(part: &Part) -> &'static str {
    if part.counts() { "count" } else { "time" }
}

/// `TRIGGER(of, by[, PURGE])`, `EVICTOR(of, by)`
fn part(argument: &ast::Expr) -> Result<(&'static str, Part)> {
    let ast::Expr::Function(call) = argument else { return plan_err!("{USAGE}") };
    let name = match call.name.to_string().to_lowercase().as_str() {
        "trigger" => "trigger",
        "evictor" => "evictor",
        _ => return plan_err!("{USAGE}"),
    };
    let FunctionArguments::List(list) = &call.args else { return plan_err!("{USAGE}") };
    let mut plain = vec![];
    for argument in &list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) = argument else { return plan_err!("{USAGE}") };
        plain.push(expression.clone());
    }
    match (name, plain.as_slice()) {
        (_, [of, by]) => Ok((name, Part { of: of.clone(), by: by.clone(), purges: false })),
        ("trigger", [of, by, purge]) if is_word(purge, PURGE) => {
            Ok((name, Part { of: of.clone(), by: by.clone(), purges: true }))
        }
        // EVICTOR(delta, column, threshold): refused with its own reason
        ("evictor", [of, by, _]) if is_word(of, DELTA) => {
            Ok((name, Part { of: of.clone(), by: by.clone(), purges: false }))
        }
        _ => plan_err!("{USAGE}"),
    }
}

fn is_word(expression: &ast::Expr, word: &str) -> bool {
    matches!(expression, ast::Expr::Identifier(name) if name.value.eq_ignore_ascii_case(word))
}

/// The position of a record, which windows of so many records are over.
pub(super) fn offset() -> ast::Expr {
    ast::Expr::Identifier(ast::Ident::new(schemas::column::OFFSET))
}
