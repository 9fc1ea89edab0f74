//! The click stream of a shop that does not exist: skewed, late, out of order, sometimes twice,
//! and the same bytes for the same seed on every machine.
//!
//! Event times begin at a fixed moment, and only integers and `ChaCha8` decide, so neither a clock nor a
//! maths library can change a run. [`Generator::totals`] is the truth to hold answers against.

mod shape;
mod totals;

use std::collections::VecDeque;
use std::fmt::Write;

use chrono::{DateTime, SecondsFormat};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

pub use shape::{CREATE_STREAM, STREAM, WATERMARK_DELAY_US, WINDOW_US};
pub use totals::Totals;

use shape::{ACTIONS, COUNTRIES, PRODUCTS, USERS, Zipf};

/// When the first event arrives: 2026-01-05T08:00:00Z.
pub const START_US: i64 = 1_767_600_000_000_000;
/// Arrivals are so far apart, plus up to as much again as [`JITTER_US`].
const STEP_US: i64 = 100_000;
const JITTER_US: u64 = 20_000;
const SECOND_US: u64 = 1_000_000;
/// Lines that a duplicate is picked from.
const RECENT_LINES: usize = 1_000;

/// Makes lines of NDJSON, one event each.
#[derive(Debug, Clone)]
pub struct Generator {
    random: ChaCha8Rng,
    products: Zipf,
    users: Zipf,
    countries: Zipf,
    recent: VecDeque<String>,
    arrival_us: i64,
    totals: Totals,
}

impl Generator {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            products: Zipf::new(PRODUCTS),
            users: Zipf::new(USERS),
            countries: Zipf::new(COUNTRIES.len() as u64),
            recent: VecDeque::with_capacity(RECENT_LINES),
            arrival_us: START_US,
            totals: Totals::default(),
        }
    }

    /// Appends the next event and a line feed.
    pub fn append_line(&mut self, text: &mut String) {
        self.totals.lines += 1;
        self.arrival_us += STEP_US + self.below(JITTER_US) as i64;
        if self.below(100) < 2 && !self.recent.is_empty() {
            self.totals.duplicates += 1;
            let pick = self.below(self.recent.len() as u64) as usize;
            text.push_str(&self.recent[pick]);
            return;
        }
        let line = self.event();
        text.push_str(&line);
        if self.recent.len() == RECENT_LINES {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }

    /// So many lines.
    pub fn lines(&mut self, count: u64) -> String {
        let mut text = String::new();
        for _ in 0..count {
            self.append_line(&mut text);
        }
        text
    }

    /// The truth about every line so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    fn event(&mut self) -> String {
        let event_us = self.arrival_us - self.delay_us() as i64;
        let user = self.users.rank(self.random.next_u64());
        let product = self.products.rank(self.random.next_u64());
        let country = COUNTRIES[self.countries.rank(self.random.next_u64()) as usize];
        let action = ACTIONS[shape::action(self.below(100))];
        let cents = if action == "purchase" { 199 + self.below(50_000) } else { 0 };
        let dwell = self.below(300 * 1_024);
        self.totals.count(event_us, user, action, cents, dwell);
        let mut line = String::with_capacity(200);
        // Writing to a string cannot fail.
        let _ = writeln!(
            line,
            "{{\"id\":\"{:016x}\",\"user_id\":{user},\"product\":\"p{product:03}\",\"country\":\"{country}\",\
             \"action\":\"{action}\",\"amount_cents\":{cents},\"dwell_seconds\":{},\"event_time\":\"{}\"}}",
            shape::scatter(self.totals.events),
            dwell as f64 / 1_024.0,
            time_text(event_us),
        );
        line
    }

    /// How long before its arrival an event happened: seconds, but for one in ten minutes to hours.
    fn delay_us(&mut self) -> u64 {
        if self.below(100) >= 10 {
            return self.below(2 * SECOND_US);
        }
        let base = (60 * SECOND_US) << self.below(8);
        base + self.below(base)
    }

    /// A number from 0 up to, not including, `bound`, by multiplication (Lemire 2019, without rejection: the
    /// bias is below 2⁻⁴⁰ here).
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.random.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

fn time_text(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros)
        .map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
mod tests;
