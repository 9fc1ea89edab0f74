//! A progress bar on stderr: only on a terminal, and only once something takes over a second.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long something may take before a bar appears.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar that shows itself when it is worth it.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
}

impl Progress {
    /// A bar over bytes, if their number is known, else a counter.
    pub fn bytes(total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{bar:30} {bytes}/{total_bytes}  {msg}  ETA {eta}",
            None => "{spinner} {bytes}  {msg}",
        };
        Self::new(total, template)
    }

    /// A bar over rows.
    pub fn rows() -> Self {
        Self::new(Some(0), "{bar:30} {human_pos}/{human_len} rows  {msg}")
    }

    fn new(total: Option<u64>, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, shown: false }
    }

    /// Moves the bar and says something beside it.
    pub fn set(&mut self, position: u64, message: String) {
        if !self.shown && self.bar.elapsed() > PATIENCE && std::io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        self.bar.set_message(message);
        self.bar.set_position(position);
    }

    /// Learns how much there is in all.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Since it was made.
    pub fn elapsed(&self) -> Duration {
        self.bar.elapsed()
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Things per second; 0 while no time has passed.
pub fn rate(count: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { (count as f64 / seconds) as u64 } else { 0 }
}
