//! Seeds, and what happens when a case fails: the smallest set of events that still fails.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::event::Event;

/// Attempts to make a failing case smaller.
const ATTEMPTS_MAX: usize = 400;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// The seeds of one of several tests that share them out: `BIFOLD_PARITY_CASES` from
/// `BIFOLD_PARITY_SEED` on if that is set, else as many from 0 on and some that nobody has tried.
pub(super) fn seeds(part: u64, parts: u64, cases: u64, fresh: u64) -> impl Iterator<Item = u64> {
    let wanted = number("BIFOLD_PARITY_CASES");
    // the keys of a hasher are what the standard library has of chance
    let untried = RandomState::new().build_hasher().finish() >> 16;
    let (fixed, fresh) = match number("BIFOLD_PARITY_SEED") {
        Some(seed) => (seed..seed + wanted.unwrap_or(1), 0..0),
        None => (0..wanted.unwrap_or(cases), untried..untried + fresh),
    };
    fixed.chain(fresh).skip(part as usize).step_by(parts as usize)
}

/// Runs a check over events; if it fails, panics with the smallest set of events that was found to fail.
///
/// `describe` says what the case is about; the check must not depend on anything but its events.
pub(super) fn check_and_shrink(
    seed: u64,
    events: &[Event],
    describe: impl Fn() -> String,
    check: impl Fn(&[Event]) -> Result<(), String>,
) {
    let guarded = |events: &[Event]| {
        catch_unwind(AssertUnwindSafe(|| check(events))).unwrap_or_else(|panic| Err(message_of(panic.as_ref())))
    };
    let Err(first) = guarded(events) else { return };
    let (events, failure) = shrink(events.to_vec(), first, guarded);
    let lines: String = events.iter().take(50).map(Event::line).collect();
    panic!(
        "parity is broken; again with BIFOLD_PARITY_SEED={seed}\n{}\n{failure}\nafter {} events:\n{lines}",
        describe(),
        events.len()
    );
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "a panic".into())
}

/// Leaves out halves, quarters, … of the events as long as the check still fails.
fn shrink(
    mut events: Vec<Event>,
    mut failure: String,
    check: impl Fn(&[Event]) -> Result<(), String>,
) -> (Vec<Event>, String) {
    let mut attempts = 0;
    let mut size = events.len().div_ceil(2);
    while size > 0 && attempts < ATTEMPTS_MAX {
        let mut from = 0;
        let mut is_smaller = false;
        while from < events.len() && attempts < ATTEMPTS_MAX {
            attempts += 1;
            let rest = [&events[..from], &events[(from + size).min(events.len())..]].concat();
            match check(&rest) {
                Err(still) => {
                    (events, failure, is_smaller) = (rest, still, true);
                }
                Ok(()) => from += size,
            }
        }
        if !is_smaller || size > 1 {
            size /= 2;
        }
    }
    (events, failure)
}
