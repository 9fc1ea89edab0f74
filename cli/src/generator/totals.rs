//! The truth about a generated stream, counted while it is made.

use std::collections::BTreeSet;

use super::shape::{WATERMARK_DELAY_US, WINDOW_US};

/// What exact answers over all lines are. Duplicates count once, late events count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lines.
    pub lines: u64,
    /// Lines that repeat an earlier one.
    pub duplicates: u64,
    /// Distinct events: lines without duplicates.
    pub events: u64,
    /// Events with the action `purchase`.
    pub purchases: u64,
    /// Sum of `amount_cents`.
    pub revenue_cents: u64,
    /// Sum of `dwell_seconds`, in 1/1024 s; every value is a multiple, so that the sum is exact.
    pub dwell_1024ths: u64,
    /// Events that a view with windows of a minute and `late = 'drop'` leaves out if the stream has one
    /// partition: the window's end is at most the largest event time before, less the watermark's delay.
    pub late: u64,
    users: BTreeSet<u64>,
    event_time_max_us: Option<i64>,
}

impl Totals {
    /// Distinct values of `user_id`.
    pub fn users(&self) -> u64 {
        self.users.len() as u64
    }

    pub(super) fn count(&mut self, event_us: i64, user: u64, action: &str, cents: u64, dwell: u64) {
        self.events += 1;
        self.purchases += u64::from(action == "purchase");
        self.revenue_cents += cents;
        self.dwell_1024ths += dwell;
        self.users.insert(user);
        let window_end = (event_us.div_euclid(WINDOW_US) + 1) * WINDOW_US;
        if self.event_time_max_us.is_some_and(|max| window_end <= max - WATERMARK_DELAY_US) {
            self.late += 1;
        }
        self.event_time_max_us = self.event_time_max_us.max(Some(event_us));
    }
}
