//! What the shop is like: its columns, its numbers, and how skewed they are.

/// Name of the stream.
pub const STREAM: &str = "clicks";
/// The stream that the lines fit.
pub const CREATE_STREAM: &str = "\
CREATE STREAM clicks (
  id TEXT NOT NULL, user_id BIGINT, product TEXT, country TEXT, action TEXT,
  amount_cents BIGINT, dwell_seconds DOUBLE PRECISION, event_time TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '1 minute'
) WITH (partitions = 4)";
/// How far the watermark of that stream stays behind, microseconds.
pub const WATERMARK_DELAY_US: i64 = 60_000_000;
/// The window that [`super::Totals::late`] is counted for: a minute, in microseconds.
pub const WINDOW_US: i64 = 60_000_000;

pub(super) const PRODUCTS: u64 = 200;
pub(super) const USERS: u64 = 20_000;
pub(super) const COUNTRIES: [&str; 8] = ["KR", "JP", "US", "DE", "BR", "IN", "FR", "ZA"];
pub(super) const ACTIONS: [&str; 3] = ["view", "cart", "purchase"];

/// Index of an action, from a number below 100.
pub(super) fn action(percent: u64) -> usize {
    match percent {
        0..80 => 0,
        80..95 => 1,
        _ => 2,
    }
}

/// Ranks with probabilities in proportion to 1/rank, in integers.
#[derive(Debug, Clone)]
pub(super) struct Zipf {
    /// Sum of the weights up to and including each rank.
    cumulated: Vec<u64>,
}

impl Zipf {
    pub(super) fn new(ranks: u64) -> Self {
        let weights = (1..=ranks).map(|rank| (1 << 40) / rank);
        let sums = weights.scan(0u64, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { cumulated: sums.collect() }
    }

    /// A rank from 0, for 64 random bits.
    pub(super) fn rank(&self, random: u64) -> u64 {
        let total = self.cumulated.last().copied().unwrap_or(1);
        let point = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        self.cumulated.partition_point(|sum| *sum <= point) as u64
    }
}

/// Distinct numbers for distinct numbers, without visible order (the finaliser of SplitMix64, a bijection:
/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
pub(super) fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
