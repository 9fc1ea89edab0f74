//! The batch layer's metrics, in one place.

use metrics::{counter, gauge, histogram};
use schemas::documents::run::RunState;

/// `bifold_run_state{view}`: 0 nothing to do, 1 queued, 2 running, 3 blocked, 4 failed, 5 cancelled.
pub(crate) fn run_state(view: &str, state: RunState) {
    let number = match state {
        RunState::Succeeded => 0.0,
        RunState::Queued => 1.0,
        RunState::Running => 2.0,
        RunState::Blocked => 3.0,
        RunState::Failed => 4.0,
        RunState::Cancelled => 5.0,
    };
    gauge!("bifold_run_state", "view" => view.to_owned()).set(number);
}

/// `bifold_run_rows_total{view}` and `bifold_run_seconds{view}`: what a finished run read, and how long it took.
pub(crate) fn run_finished(view: &str, rows: u64, seconds: f64) {
    counter!("bifold_run_rows_total", "view" => view.to_owned()).increment(rows);
    histogram!("bifold_run_seconds", "view" => view.to_owned()).record(seconds);
}

/// `bifold_landed_records_total{stream}`
pub(crate) fn landed(stream: &str, records: u64) {
    counter!("bifold_landed_records_total", "stream" => stream.to_owned()).increment(records);
}

/// `bifold_landing_lag_records{stream}`: durable in the log, not yet in the master.
pub(crate) fn landing_lag(stream: &str, records: u64) {
    gauge!("bifold_landing_lag_records", "stream" => stream.to_owned()).set(records as f64);
}
