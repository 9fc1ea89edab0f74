//! Where a reader of changes is: in which view, at which batch view, up to which positions of the log.

use std::fmt;
use std::str::FromStr;

use schemas::{Cut, Offset};
use uuid::Uuid;

/// Everything up to here was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The view: a new one of the same name has other positions.
    pub view: Uuid,
    /// Sequence of its manifest; 0 before its first batch view.
    pub sequence: u64,
    /// In `append` mode, the time up to which windows were final, microseconds.
    pub final_us: Option<i64>,
    /// Everything below it is in what was handed over.
    pub to: Cut,
}

impl fmt::Display for Cursor {
    /// `v1.<view>.<sequence>.<time or nothing>.<offset>-<offset>-…`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offsets: Vec<String> = self.to.0.iter().map(u64::to_string).collect();
        let time = self.final_us.map(|time| time.to_string()).unwrap_or_default();
        write!(f, "v1.{}.{}.{time}.{}", self.view.simple(), self.sequence, offsets.join("-"))
    }
}

/// A string that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let parts: Vec<&str> = text.split('.').collect();
        let ["v1", view, sequence, time, offsets] = parts.as_slice() else { return Err(BadCursor) };
        let final_us = if time.is_empty() { None } else { Some(time.parse().map_err(|_| BadCursor)?) };
        let offsets: Vec<&str> = offsets.split('-').filter(|offset| !offset.is_empty()).collect();
        let to: Result<Vec<Offset>, _> = offsets.into_iter().map(str::parse).collect();
        Ok(Self {
            view: view.parse().map_err(|_| BadCursor)?,
            sequence: sequence.parse().map_err(|_| BadCursor)?,
            final_us,
            to: Cut(to.map_err(|_| BadCursor)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_round_trips_and_noise_is_refused() {
        let view = Uuid::from_u128(7);
        for (final_us, offsets) in [(None, vec![3, 0, 12]), (Some(-5), vec![]), (Some(9), vec![u64::MAX])] {
            let cursor = Cursor { view, sequence: 4, final_us, to: Cut(offsets) };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for noise in ["", "v1", "v2.0.1..3", "v1.zz.1..3", "v1.00000000000000000000000000000007.1.x.3", "7"] {
            assert_eq!(noise.parse::<Cursor>(), Err(BadCursor), "{noise}");
        }
    }
}
