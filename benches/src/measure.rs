//! Wall and CPU seconds of a piece of work, and what it held in memory.

use std::time::Instant;

use serde_json::{Map, Value};

/// Linux counts CPU time in these.
const TICKS_PER_SECOND: f64 = 100.0;

/// Runs from its making.
pub(crate) struct Clock {
    wall: Instant,
    cpu_s: f64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu_s: cpu_s() }
    }

    /// `(wall, CPU)` seconds since the start.
    pub(crate) fn read(&self) -> (f64, f64) {
        (self.wall.elapsed().as_secs_f64(), cpu_s() - self.cpu_s)
    }
}

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Largest resident memory so far, MB.
pub(crate) fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1024.0
}

/// Prints the result line.
#[expect(clippy::print_stdout, reason = "the benchmark's result")]
pub(crate) fn report(fields: Map<String, Value>) {
    println!("RESULT {}", Value::Object(fields));
}
