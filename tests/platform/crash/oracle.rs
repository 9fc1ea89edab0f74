//! What every answer must be: numbered events, and what of them was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use schemas::PositionToken;
use serde_json::Value;

use crate::harness::rows;

/// Events of one window: ten minutes of one a second.
const WINDOW_EVENTS: u64 = 600;
/// Events of one oracle, at most: their times stay within a month.
pub(super) const EVENTS_MAX: u64 = 2_500_000;

pub(super) const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, count(*) AS c, sum(n) AS s \
    FROM TUMBLE(s, at, INTERVAL '10 minutes') GROUP BY k, window_start";
pub(super) const CELLS: &str = "SELECT k, window_start, c, s FROM v";

/// Count and sum by key and window.
type Cells = BTreeMap<(u64, u64), (u64, u64)>;

/// Events numbered from 0. All below `next` are acknowledged, but those of `open`.
#[derive(Default)]
pub(super) struct Oracle {
    next: u64,
    /// Sent, and nobody said that it is there: it may be there or not. Sent again, it is there once.
    pub(super) open: Option<Range<u64>>,
    cells: Cells,
    /// Everything acknowledged is below it.
    pub(super) position: Option<PositionToken>,
}

/// How an answer differs from what it must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// Cells with the right count of other events.
    pub(super) garbled: u64,
}

impl Oracle {
    pub(super) fn acknowledged(&self) -> u64 {
        self.next - self.open.as_ref().map_or(0, |open| open.end - open.start)
    }

    /// The events to be sent next: those that are open, or new ones.
    pub(super) fn offer(&mut self, events: u64) -> Range<u64> {
        let next = self.next;
        let range = self.open.get_or_insert(next..next + events).clone();
        self.next = self.next.max(range.end);
        assert!(self.next < EVENTS_MAX, "more events than there are times");
        range
    }

    /// The open events are there now.
    pub(super) fn acknowledge(&mut self, told: &Value) {
        let Some(range) = self.open.take() else { return };
        for number in range {
            let cell = self.cells.entry((number % 7, number / WINDOW_EVENTS)).or_default();
            cell.0 += 1;
            cell.1 += number;
        }
        let position: PositionToken = told["position"].as_str().unwrap().parse().unwrap();
        let cut = self.position.as_ref().map_or_else(|| position.cut.clone(), |known| known.cut.join(&position.cut));
        self.position = Some(PositionToken { cut, ..position });
    }

    /// Compares an answer to [`CELLS`].
    pub(super) fn compare(&self, answer: &Value) -> Difference {
        let found = cells(answer);
        let mut difference = Difference::default();
        for cell in self.cells.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
            let (expected, is) = (of(&self.cells, cell), of(&found, cell));
            difference.lost += expected.0.saturating_sub(is.0);
            difference.doubled += is.0.saturating_sub(expected.0);
            difference.garbled += u64::from(expected.0 == is.0 && expected.1 != is.1);
        }
        difference
    }
}

fn of(cells: &Cells, cell: &(u64, u64)) -> (u64, u64) {
    cells.get(cell).copied().unwrap_or_default()
}

fn cells(answer: &Value) -> Cells {
    let mut found = Cells::new();
    for row in rows(answer) {
        let time = row[1].as_str().unwrap();
        let number = |from: usize, to: usize| time[from..to].parse::<u64>().unwrap();
        let second = (number(8, 10) - 1) * 86_400 + number(11, 13) * 3_600 + number(14, 16) * 60;
        let key = (row[0].as_u64().unwrap(), second / WINDOW_EVENTS);
        let cell = (row[2].as_u64().unwrap(), row[3].as_u64().unwrap());
        assert!(found.insert(key, cell).is_none(), "a cell twice: {row}");
    }
    found
}

/// Lines of events: one a second.
pub(super) fn body(range: Range<u64>) -> String {
    let line = |n: u64| {
        let (minute, second) = (n / 60 % 60, n % 60);
        let (day, hour) = (1 + n / 86_400, n / 3_600 % 24);
        format!(r#"{{"id":"{n}","k":{},"n":{n},"at":"2024-01-{day:02}T{hour:02}:{minute:02}:{second:02}Z"}}"#, n % 7)
    };
    range.map(|n| line(n) + "\n").collect()
}

/// The oracle itself is right about an answer that lacks an event, has one twice, or has another one.
#[test]
fn oracle_sees_what_is_lost_doubled_and_garbled() {
    let mut oracle = Oracle::default();
    assert_eq!(oracle.offer(14), 0..14);
    assert_eq!((oracle.acknowledged(), oracle.offer(99)), (0, 0..14));
    let told = serde_json::json!({ "position": "v1.00000000000000000000000000000007.14" });
    oracle.acknowledge(&told);
    assert_eq!((oracle.acknowledged(), oracle.offer(2)), (14, 14..16));
    let answer = |change: &dyn Fn(u64) -> Option<(u64, u64)>| {
        let row = |(k, (c, s)): (u64, (u64, u64))| serde_json::json!([k, "2024-01-01T00:00:00Z", c, s]);
        let cells = (0..7).filter_map(|k| Some((k, change(k)?)));
        serde_json::json!({ "rows": cells.map(row).collect::<Vec<_>>() })
    };
    let right = |k: u64| (2, 2 * k + 7);
    let difference = |lost, doubled, garbled| Difference { lost, doubled, garbled };
    assert_eq!(oracle.compare(&answer(&|k| Some(right(k)))), Difference::default());
    assert_eq!(oracle.compare(&answer(&|k| (k != 3).then(|| right(k)))), difference(2, 0, 0));
    assert_eq!(oracle.compare(&answer(&|k| Some((right(k).0 + u64::from(k == 1), right(k).1)))), difference(0, 1, 0));
    assert_eq!(oracle.compare(&answer(&|k| Some((2, right(k).1 + u64::from(k == 1))))), difference(0, 0, 1));
}
