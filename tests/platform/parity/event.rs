//! Random events: late, early, out of order, skewed, extreme.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value as Json};

use super::calendar::{self, DAY, HOUR, MINUTE, SECOND};
use super::expression::decimal_text;
use super::value::{Kind, Value};

/// Columns of the stream, in order, with their SQL types.
pub(super) const COLUMNS: [(&str, &str, Kind); 12] = [
    ("id", "TEXT NOT NULL", Kind::Text),
    ("k", "TEXT", Kind::Text),
    ("c", "INT", Kind::Int),
    ("m", "BIGINT", Kind::Int),
    ("n", "BIGINT", Kind::Int),
    ("d", "NUMERIC(20, 4)", Kind::Decimal(4)),
    ("x", "DOUBLE PRECISION", Kind::Float),
    ("y", "DOUBLE PRECISION", Kind::Float),
    ("b", "BOOLEAN", Kind::Bool),
    ("t", "TIMESTAMPTZ", Kind::Time),
    ("at", "TIMESTAMPTZ NOT NULL", Kind::Time),
    ("tags", "TEXT[]", Kind::List(&Kind::Text)),
];
pub(super) const ID: usize = 0;
pub(super) const K: usize = 1;
pub(super) const C: usize = 2;
pub(super) const M: usize = 3;
pub(super) const N: usize = 4;
pub(super) const D: usize = 5;
pub(super) const X: usize = 6;
pub(super) const Y: usize = 7;
pub(super) const B: usize = 8;
pub(super) const T: usize = 9;
pub(super) const AT: usize = 10;
pub(super) const TAGS: usize = 11;

/// Digits after the point of column `d`.
pub(super) const D_SCALE: u32 = 4;

/// Texts of column `k`: skewed, empty, not ASCII, with characters that have to be escaped.
pub(super) const TEXTS: [&str; 9] = ["a", "a", "a", "ab", "b", "", "w\u{e9}st \u{1f980}", "it's \"quoted\"\\", "A"];

/// Times begin around here: 2023-11-14T22:13:20Z.
pub(super) const BEGINNING: i64 = 1_700_000_000_000_000;

/// One event: a value per column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event(pub(super) Vec<Value>);

/// What the events of one set are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flavor {
    /// How likely a null is.
    nulls: f64,
    /// How likely an extreme value is.
    extremes: f64,
    late: f64,
    /// How likely an event lies up to a year ahead of its time.
    early: f64,
    /// How likely an event is one that was there before.
    pub(super) copies: f64,
    /// How much event time goes by from one event to the next, on average.
    step_us: i64,
    /// Whether some times lie centuries away.
    pub(super) far_times: bool,
}

impl Flavor {
    pub(super) fn random(rng: &mut ChaCha8Rng) -> Self {
        Self {
            nulls: pick(rng, &[0.0, 0.1, 0.1, 0.5]),
            extremes: pick(rng, &[0.0, 0.02, 0.2]),
            late: pick(rng, &[0.0, 0.1, 0.4]),
            early: pick(rng, &[0.0, 0.0, 0.05]),
            copies: pick(rng, &[0.0, 0.0, 0.2]),
            step_us: pick(rng, &[100, SECOND, MINUTE, 10 * MINUTE, 6 * HOUR]),
            far_times: rng.random_bool(0.15),
        }
    }
}

pub(super) fn pick<T: Clone>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}

impl Event {
    pub(super) fn random(rng: &mut ChaCha8Rng, number: usize, flavor: Flavor) -> Self {
        let mut values = vec![Value::Text(format!("e{number}"))];
        for column in K..AT {
            let is_null = rng.random_bool(flavor.nulls);
            let value = value(rng, column, flavor);
            values.push(if is_null { Value::Null } else { value });
        }
        values.push(Value::Time(event_time(rng, number, flavor)));
        values.push(if rng.random_bool(flavor.nulls) { Value::Null } else { Value::List(tags(rng)) });
        Self(values)
    }

    pub(super) fn time_us(&self) -> i64 {
        let Value::Time(time_us) = self.0[AT] else { panic!("an event has a time") };
        time_us
    }

    pub(super) fn id(&self) -> &str {
        let Value::Text(id) = &self.0[ID] else { panic!("an event has an id") };
        id
    }

    /// The event as a line of NDJSON.
    pub(super) fn line(&self) -> String {
        let members: Map<String, Json> =
            COLUMNS.iter().zip(&self.0).map(|((name, ..), value)| ((*name).to_owned(), json(value))).collect();
        format!("{}\n", Json::Object(members))
    }
}

/// Doubles and decimals go as texts: JSON has no NaN, and its readers round.
fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(i64::try_from(*value).unwrap()),
        Value::Decimal(unscaled, scale) => Json::from(decimal_text(*unscaled, *scale)),
        Value::Float(value) if value.is_nan() => Json::from("NaN"),
        Value::Float(value) if value.is_infinite() => Json::from(if *value > 0.0 { "Infinity" } else { "-Infinity" }),
        Value::Float(value) => Json::from(format!("{value:e}")),
        Value::Text(text) => Json::from(text.as_str()),
        Value::Time(time_us) => Json::from(calendar::text(*time_us)),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
    }
}

/// Up to four texts, some of them the same, some null.
fn tags(rng: &mut ChaCha8Rng) -> Vec<Value> {
    let mut tag = || if rng.random_bool(0.1) { Value::Null } else { Value::Text(pick(rng, &TEXTS).to_owned()) };
    let some = [tag(), tag(), tag(), tag()];
    some[..rng.random_range(0..5)].to_vec()
}

fn value(rng: &mut ChaCha8Rng, column: usize, flavor: Flavor) -> Value {
    let is_extreme = rng.random_bool(flavor.extremes);
    match column {
        K => Value::Text(pick(rng, &TEXTS).to_owned()),
        C => Value::Int(rng.random_range(-2..4)),
        M => Value::Int(rng.random_range(-1_000_000..1_000_000)),
        N if is_extreme => Value::Int(pick(rng, &[i64::MAX, i64::MIN, i64::MAX - 1, 1 << 53, (1 << 53) + 1]).into()),
        N => Value::Int(rng.random_range(-1_000_000_000_000..1_000_000_000_000)),
        D if is_extreme => {
            let most = 10_i128.pow(20) - 1;
            Value::Decimal(
                pick(rng, &[most, -most, 1, -1, 90_071_992_547_409_930_000, 90_071_992_547_409_920_000]),
                D_SCALE,
            )
        }
        D => Value::Decimal(rng.random_range(-10_000_000..10_000_000), D_SCALE),
        X if is_extreme => Value::Float(pick(
            rng,
            &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 5e-324, -1e-310, 1e300, -1e300],
        )),
        X => Value::Float(pick(rng, &[0.1, 0.2, 1e16, -1e16, 1e-9, -0.0, 0.0, 12.5, 3.3, -7.25])),
        Y => Value::Float(f64::from(rng.random_range(-4_000_000..4_000_000)) / 1_000.0),
        B => Value::Bool(rng.random_bool(0.5)),
        T => Value::Time(BEGINNING + rng.random_range(-40 * DAY..40 * DAY) / HOUR * HOUR),
        other => panic!("column {other} is not random"),
    }
}

/// Mostly on time, some late by up to 30 days, some a year ahead, some from another century.
fn event_time(rng: &mut ChaCha8Rng, number: usize, flavor: Flavor) -> i64 {
    if flavor.far_times && rng.random_bool(0.02) {
        let years = pick(rng, &[-1_900, -400, -60, 60, 400, 7_900]);
        return BEGINNING + years * 365 * DAY + rng.random_range(0..DAY);
    }
    let early_us = if rng.random_bool(flavor.early) { rng.random_range(0..365 * DAY) } else { 0 };
    let late_us = if rng.random_bool(flavor.late) { rng.random_range(0..30 * DAY) } else { 0 };
    let jitter_us = rng.random_range(0..2 * flavor.step_us);
    BEGINNING + number as i64 * flavor.step_us + jitter_us + early_us - late_us
}

/// An event where it stands in the log.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) partition: u32,
    pub(super) offset: u64,
    /// The largest event time before it in its partition.
    pub(super) largest_before: Option<i64>,
    /// When the log took it.
    pub(super) append_us: i64,
    pub(super) event: Event,
}

/// In steps: some events come at the same time, then there is a pause.
fn append_time(number: i64) -> i64 {
    BEGINNING + number / 3 * 7 * SECOND + number / 40 * HOUR
}

/// Events in the order of their arrival, put one after the other into the partitions that `choose` names.
pub(super) fn place(events: &[Event], partitions: u32, mut choose: impl FnMut(&Event) -> u32) -> Vec<Placed> {
    let mut ends: Vec<(u64, Option<i64>)> = vec![(0, None); partitions as usize];
    let mut placed = vec![];
    for (number, event) in (0..).zip(events) {
        let partition = choose(event);
        let (offset, largest_before) = &mut ends[partition as usize];
        let (append_us, largest) = (append_time(number), *largest_before);
        placed.push(Placed { partition, offset: *offset, largest_before: largest, append_us, event: event.clone() });
        *offset += 1;
        *largest_before = Some(largest_before.map_or(event.time_us(), |largest| largest.max(event.time_us())));
    }
    placed
}
