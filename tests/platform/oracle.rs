//! A naive oracle: maps and rational arithmetic. Shares no code with the product.

use std::collections::{BTreeMap, BTreeSet};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// One event as the tests make it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) shop: Option<String>,
    pub(crate) kind: String,
    pub(crate) n: Option<i64>,
    pub(crate) price: Option<f64>,
    /// Microseconds since the epoch.
    pub(crate) time_us: i64,
}

impl Event {
    pub(crate) fn random(rng: &mut ChaCha8Rng, number: usize) -> Self {
        let shops = ["north", "south", "", "Ost", "w\u{e9}st"];
        let prices = [0.1, 0.2, 1e16, -1e16, 1e-9, -0.0, 12.5, 3.3, 1e300, -1e300];
        let base_us = 1_700_000_000_000_000_i64;
        let late_us = if rng.random_bool(0.2) { rng.random_range(0..7 * 86_400_000_000_i64) } else { 0 };
        Self {
            id: format!("e{number}"),
            shop: (!rng.random_bool(0.1)).then(|| shops[rng.random_range(0..shops.len())].to_owned()),
            kind: ["view", "click", "buy"][rng.random_range(0..3)].to_owned(),
            n: (!rng.random_bool(0.1)).then(|| rng.random_range(-1_000_000..1_000_000)),
            price: (!rng.random_bool(0.1)).then(|| prices[rng.random_range(0..prices.len())]),
            time_us: base_us + number as i64 * 30_000_000 - late_us,
        }
    }

    pub(crate) fn json(&self) -> String {
        let seconds = self.time_us.div_euclid(1_000_000);
        let micros = self.time_us.rem_euclid(1_000_000);
        let event = json!({
            "id": self.id, "shop": self.shop, "kind": self.kind, "n": self.n, "price": self.price,
            "event_time": format!("{}.{micros:06}Z", civil(seconds)),
        });
        event.to_string()
    }
}

/// Days and seconds to `2024-01-31T12:00:00` (Howard Hinnant's `civil_from_days`).
pub(crate) fn civil(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// What a cell of the tests' views says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    pub(crate) count: i64,
    pub(crate) sum_n: Option<i128>,
    pub(crate) price: Vec<BigRational>,
    pub(crate) min_n: Option<i64>,
    pub(crate) max_n: Option<i64>,
    pub(crate) buys: i64,
    pub(crate) kinds: BTreeSet<String>,
}

impl Cell {
    fn add(&mut self, event: &Event) {
        self.count += 1;
        if let Some(n) = event.n {
            *self.sum_n.get_or_insert(0) += i128::from(n);
            self.min_n = Some(self.min_n.map_or(n, |m| m.min(n)));
            self.max_n = Some(self.max_n.map_or(n, |m| m.max(n)));
        }
        if let Some(price) = event.price {
            self.price.push(BigRational::from_float(price).unwrap());
        }
        self.buys += i64::from(event.kind == "buy");
        self.kinds.insert(event.kind.clone());
    }

    pub(crate) fn sum_price(&self) -> Option<f64> {
        let sum: BigRational = self.price.iter().sum();
        (!self.price.is_empty()).then(|| nearest(&sum))
    }

    /// Population variance of `n`-less prices, exactly, then rounded.
    pub(crate) fn price_count(&self) -> usize {
        self.price.len()
    }
}

/// The float nearest to a rational, ties to even: by trying the neighbours of an approximation.
pub(crate) fn nearest(exact: &BigRational) -> f64 {
    if exact.is_zero() {
        return 0.0;
    }
    let guess = exact.to_f64().unwrap();
    let distance = |f: f64| (BigRational::from_float(f).unwrap() - exact).reduced();
    let mut best = guess;
    for candidate in [guess.next_down(), guess.next_up()] {
        if !candidate.is_finite() {
            continue;
        }
        let (a, b) = (abs(distance(candidate)), abs(distance(best)));
        if a < b || (a == b && candidate.to_bits() % 2 == 0) {
            best = candidate;
        }
    }
    best
}

fn abs(value: BigRational) -> BigRational {
    if value < BigRational::from_integer(BigInt::zero()) { -value } else { value }
}

/// Cells by key; the key function says which cell an event belongs to, if any.
pub(crate) fn cells<K: Ord>(events: &[Event], key: impl Fn(&Event) -> Option<K>) -> BTreeMap<K, Cell> {
    let mut cells: BTreeMap<K, Cell> = BTreeMap::new();
    for event in events {
        if let Some(key) = key(event) {
            cells.entry(key).or_default().add(event);
        }
    }
    cells
}

/// A float of an answer, exactly.
pub(crate) fn float(shown: &Value) -> Option<f64> {
    match shown {
        Value::String(text) => text.parse().ok(),
        shown => shown.as_f64(),
    }
}

/// A float as an answer shows it.
pub(crate) fn same_float(shown: &Value, wanted: Option<f64>) -> bool {
    match (shown, wanted) {
        (Value::Null, None) => true,
        (shown, Some(wanted)) => float(shown) == Some(wanted),
        _ => false,
    }
}
