//! Events of about 245 bytes, shaped as those of `gen.py`. Every value is a function of the event's number: no random
//! generator, any range by itself.

use std::io::Write as _;

use bytes::Bytes;

/// 2026-01-01T00:00:00Z, milliseconds.
pub(crate) const START_MS: u64 = 1_767_225_600_000;
/// How many different values the columns have.
const USERS: u64 = 1_000_000;
const PAGES: u64 = 200_000;
const ADS: u64 = 1_000;
const AD_TYPES: [&str; 5] = ["banner", "modal", "sponsored-search", "mail", "mobile"];
pub(crate) const EVENT_TYPES: [&str; 3] = ["view", "click", "purchase"];
/// The columns of a stream of these events.
pub(crate) const COLUMNS: &str = "user_id TEXT, page_id TEXT, ad_id TEXT, ad_type TEXT, event_type TEXT, \
    event_time TIMESTAMPTZ NOT NULL, ip_address TEXT, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds'";
/// Counts them.
pub(crate) const VIEW: &str =
    "CREATE MATERIALIZED VIEW total AS SELECT event_type, count(*) AS n FROM events GROUP BY event_type";

/// A hash of a number and what it is for (splitmix64).
pub(crate) fn hash(of: u64, number: u64) -> u64 {
    let mut z = number.wrapping_mul(16).wrapping_add(of).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn below(of: u64, number: u64, bound: u64) -> u64 {
    ((u128::from(hash(of, number)) * u128::from(bound)) >> 64) as u64
}

/// Hexadecimal digits of a number, most significant first.
fn push_hex(line: &mut Vec<u8>, number: u64, digits: u32) {
    line.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[((number >> (digit * 4)) & 15) as usize]));
}

fn push_uuid(line: &mut Vec<u8>, of: u64, number: u64) {
    let (high, low) = (hash(of, number * 2), hash(of, number * 2 + 1));
    for (part, digits) in [(high >> 32, 8), (high >> 16, 4), (high, 4), (low >> 48, 4)] {
        push_hex(line, part, digits);
        line.push(b'-');
    }
    push_hex(line, low, 12);
}

/// Everything of an event but its first bracket.
fn push_fields(line: &mut Vec<u8>, number: u64) {
    for (name, of, bound) in [("user_id", 1, USERS), ("page_id", 2, PAGES), ("ad_id", 3, ADS)] {
        line.push(b'"');
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b"\":\"");
        push_uuid(line, of + 8, below(of, number, bound));
        line.extend_from_slice(b"\",");
    }
    let (ad_type, event_type) = (AD_TYPES[below(4, number, 5) as usize], event_type(number));
    let (time, ip) = (START_MS + number * 3 / 10 + below(6, number, 2_000), hash(7, number).to_le_bytes());
    let rest = writeln!(
        line,
        r#""ad_type":"{ad_type}","event_type":"{event_type}","event_time":{time},"ip_address":"{}.{}.{}.{}"}}"#,
        ip[0], ip[1], ip[2], ip[3]
    );
    debug_assert!(rest.is_ok(), "memory takes what is written");
}

/// The type of an event.
pub(crate) fn event_type(number: u64) -> &'static str {
    EVENT_TYPES[below(5, number, 3) as usize]
}

/// A line.
pub(crate) fn push_event(line: &mut Vec<u8>, number: u64) {
    line.push(b'{');
    push_fields(line, number);
}

/// A line with an `event_id` of 16 digits.
pub(crate) fn push_identified(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(b"{\"event_id\":\"");
    push_hex(line, hash(0, number), 16);
    line.extend_from_slice(b"\",");
    push_fields(line, number);
}

/// A line with nothing but an `event_id` and a time.
pub(crate) fn push_narrow(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(b"{\"event_id\":\"");
    push_hex(line, hash(0, number), 16);
    line.extend_from_slice(b"\",\"event_time\":1767225600000}\n");
}

/// A body of events.
pub(crate) fn body(numbers: std::ops::Range<u64>, push: fn(&mut Vec<u8>, u64)) -> Bytes {
    let mut lines = Vec::with_capacity((numbers.end - numbers.start) as usize * 256);
    numbers.for_each(|number| push(&mut lines, number));
    lines.into()
}
