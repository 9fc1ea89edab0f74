//! Back-pressure: whatever is too much, too slow or full ends in a refusal that says when to come back; never in
//! loss, and never in growth.
//!
//! The platform runs in a child process (this test binary again): its memory is looked at, its limits are set.

mod bounds;
mod child;
mod disk_full;
mod flood;
mod hot_key;

use serde_json::Value;

/// A number, which an answer may hold as text.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("not a number: {value}"))
}
