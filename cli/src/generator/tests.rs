//! Determinism, and the truth against an independent count over the text.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;

const LINES: u64 = 20_000;

fn parsed(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn same_seed_gives_same_bytes_and_another_seed_others() {
    let text = Generator::new(7).lines(LINES);
    assert_eq!(text, Generator::new(7).lines(LINES));
    assert_ne!(text, Generator::new(8).lines(LINES));
    let mut parts = Generator::new(7);
    assert_eq!(text, parts.lines(1) + &parts.lines(LINES - 1));
}

/// Frozen: a change here changes every published figure of the demo.
#[test]
fn bytes_of_a_seed_never_change() {
    let text = Generator::new(1).lines(LINES);
    insta::assert_snapshot!("first_lines", text.lines().take(3).collect::<Vec<_>>().join("\n"));
    insta::assert_snapshot!("hash", format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes())));
}

#[test]
fn totals_are_those_of_the_text() {
    let mut generator = Generator::new(3);
    let events = parsed(&generator.lines(LINES));
    let totals = generator.totals();
    let distinct: BTreeMap<&str, &Value> = events.iter().map(|event| (event["id"].as_str().unwrap(), event)).collect();
    assert_eq!((totals.lines, totals.events), (LINES, distinct.len() as u64));
    assert_eq!(totals.duplicates, LINES - totals.events);
    let cents = |event: &&&Value| event["amount_cents"].as_u64().unwrap();
    assert_eq!(totals.revenue_cents, distinct.values().map(|event| cents(&event)).sum::<u64>());
    assert_eq!(totals.purchases, distinct.values().filter(|event| event["action"] == "purchase").count() as u64);
    let users: BTreeSet<u64> = distinct.values().map(|event| event["user_id"].as_u64().unwrap()).collect();
    assert_eq!(totals.users(), users.len() as u64);
    let dwell: f64 = distinct.values().map(|event| event["dwell_seconds"].as_f64().unwrap()).sum();
    assert!((dwell - totals.dwell_1024ths as f64 / 1_024.0).abs() < 1e-6);
}

#[test]
fn late_events_are_those_behind_the_watermark() {
    let mut generator = Generator::new(3);
    let (mut seen, mut late, mut max) = (BTreeSet::new(), 0, i64::MIN);
    for event in parsed(&generator.lines(LINES)) {
        if !seen.insert(event["id"].to_string()) {
            continue;
        }
        let time = DateTime::parse_from_rfc3339(event["event_time"].as_str().unwrap()).unwrap().timestamp_millis();
        let minute_end = (time / 60_000 + 1) * 60_000;
        late += u64::from(max != i64::MIN && minute_end <= max - 60_000);
        max = max.max(time);
    }
    assert!(generator.totals().late.abs_diff(late) <= 1, "{} and {late}", generator.totals().late);
}

#[test]
fn stream_is_late_duplicated_out_of_order_and_skewed() {
    let mut generator = Generator::new(5);
    let events = parsed(&generator.lines(LINES));
    let share = |count: u64| 100.0 * count as f64 / LINES as f64;
    assert!((1.5..2.5).contains(&share(generator.totals().duplicates)));
    assert!((6.0..12.0).contains(&share(generator.totals().late)));
    let times: Vec<&str> = events.iter().map(|event| event["event_time"].as_str().unwrap()).collect();
    let behind = times.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
    assert!(share(behind) > 20.0);
    let first = events.iter().filter(|event| event["product"] == "p000").count() as u64;
    assert!(share(first) > 10.0, "the most popular of 200 products has {} %", share(first));
}
