//! What the simulated clients send: events that come twice, late, changed and broken.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::oracle::civil;

/// Where event times begin, seconds since the epoch.
const EVENT_BEGINNING: i64 = 1_704_067_200;
/// Seconds between two events.
const PACE: i64 = 7;
/// The keys of events.
const KEYS: [&str; 4] = ["north", "south", "", "west"];

/// The values of one event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Values {
    pub(crate) k: Option<String>,
    pub(crate) n: Option<i64>,
    pub(crate) at_us: i64,
}

/// One request's records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) body: String,
    /// Ids of the events in it, also twice.
    pub(crate) ids: Vec<String>,
    /// Lines that are no events.
    pub(crate) bad: u64,
}

impl Batch {
    pub(crate) fn records(&self) -> u64 {
        self.ids.len() as u64 + self.bad
    }
}

/// All that was ever sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// By id, every variant of its values.
    pub(crate) variants: BTreeMap<String, BTreeSet<Values>>,
    next: u64,
}

impl Sent {
    /// Some new events, some again, some of them changed, some lines that are none.
    pub(crate) fn batch(&mut self, rng: &mut ChaCha8Rng) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..rng.random_range(1..=12) {
            match rng.random_range(0..100) {
                0..=5 => {
                    batch.body += ["{\"id\":\"torn", "{\"k\":\"no id\",\"n\":1}", "{\"id\":\"b\",\"n\":\"x\"}"]
                        [rng.random_range(0..3)];
                    batch.body += "\n";
                    batch.bad += 1;
                }
                6..=20 if !self.variants.is_empty() => {
                    let again = rng.random_range(0..self.variants.len());
                    let (id, variants) = self.variants.iter().nth(again).expect("there are so many");
                    let (id, mut values) = (id.clone(), variants.first().expect("one at least").clone());
                    if rng.random_bool(0.1) {
                        values.n = Some(rng.random_range(1_000..2_000));
                    }
                    self.add(&mut batch, id, values);
                }
                _ => {
                    let (id, values) = self.event(rng);
                    self.add(&mut batch, id, values);
                }
            }
        }
        batch
    }

    fn event(&mut self, rng: &mut ChaCha8Rng) -> (String, Values) {
        let number = self.next;
        self.next += 1;
        let late = if rng.random_bool(0.1) { rng.random_range(0..86_400) } else { 0 };
        let values = Values {
            k: (!rng.random_bool(0.1)).then(|| KEYS[rng.random_range(0..KEYS.len())].to_owned()),
            n: (!rng.random_bool(0.1)).then(|| rng.random_range(-50..100)),
            at_us: (EVENT_BEGINNING + number as i64 * PACE - late) * 1_000_000,
        };
        (format!("e{number}"), values)
    }

    fn add(&mut self, batch: &mut Batch, id: String, values: Values) {
        let at = format!("{}Z", civil(values.at_us / 1_000_000));
        batch.body += &json!({ "id": id, "k": values.k, "n": values.n, "at": at }).to_string();
        batch.body += "\n";
        batch.ids.push(id.clone());
        self.variants.entry(id).or_default().insert(values);
    }
}
