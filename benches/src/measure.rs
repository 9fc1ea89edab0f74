//! Wall and CPU seconds of a piece of work, what it held in memory, and what a ratio has to be.

use std::time::Instant;

use serde_json::{Map, Value, json};

/// Linux counts CPU time in these.
const TICKS_PER_SECOND: f64 = 100.0;
/// This process, for `/proc`.
const SELF: &str = "self";

/// Runs from its making.
pub(crate) struct Clock {
    wall: Instant,
    cpu_s: f64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu_s: cpu_s_of(SELF) }
    }

    /// `(wall, CPU)` seconds since the start.
    pub(crate) fn read(&self) -> (f64, f64) {
        (self.wall.elapsed().as_secs_f64(), cpu_s_of(SELF) - self.cpu_s)
    }
}

/// CPU seconds of a process so far.
pub(crate) fn cpu_s_of(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Largest resident memory so far, MB.
pub(crate) fn peak_mb() -> f64 {
    peak_mb_of(SELF)
}

/// Likewise, of a process.
pub(crate) fn peak_mb_of(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1024.0
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A figure that has to be at least so much.
pub(crate) fn at_least(what: &str, value: f64, bound: f64) -> Value {
    json!({ "what": what, "value": value, "bound": format!("at least {bound}"), "met": value >= bound })
}

/// A figure that may be at most so much.
pub(crate) fn at_most(what: &str, value: f64, bound: f64) -> Value {
    json!({ "what": what, "value": value, "bound": format!("at most {bound}"), "met": value <= bound })
}

/// Prints the result line.
#[expect(clippy::print_stdout, reason = "the benchmark's result")]
pub(crate) fn report(fields: Map<String, Value>) {
    println!("RESULT {}", Value::Object(fields));
}

/// [`report`] of a JSON object.
pub(crate) fn report_value(result: &Value) {
    report(result.as_object().cloned().unwrap_or_default());
}
