//! Windows by brute force: which ones a time lies in by trying, and sessions by growing them event by event.

use std::collections::BTreeMap;

use super::calendar::{self, DAY, HOUR, SECOND};
use super::event::COLUMNS;
use super::value::{Key, Value};

/// A zone whose clock is always nine hours ahead.
pub(super) const ZONE: (&str, i64) = ("Etc/GMT-9", 9 * HOUR);

/// The windows of a view.
#[derive(Debug, Clone)]
pub(super) enum Window {
    Tumble {
        size_us: i64,
        offset_us: i64,
    },
    /// Days or months by the clock of [`ZONE`].
    Calendar {
        unit: &'static str,
    },
    Hop {
        slide_us: i64,
        size_us: i64,
        offset_us: i64,
    },
    Cumulate {
        step_us: i64,
        size_us: i64,
        offset_us: i64,
    },
    /// Of so many records of a partition, one every so many.
    Count {
        slide: i64,
        size: i64,
    },
    /// One value of the column each, or all in one.
    Session {
        key: Option<usize>,
        gap_us: i64,
    },
}

/// Start and end; an event without a time lies in a window without bounds.
pub(super) type Bounds = (Value, Value);

fn interval(length_us: i64) -> String {
    format!("INTERVAL '{} seconds'", length_us / SECOND)
}

impl Window {
    /// True if a record may lie in several of them, or if other records decide in which.
    pub(super) fn is_shared(&self) -> bool {
        match self {
            Self::Hop { .. } | Self::Cumulate { .. } | Self::Session { .. } => true,
            Self::Count { slide, size } => slide != size,
            Self::Tumble { .. } | Self::Calendar { .. } => false,
        }
    }

    /// True if records are counted, not times.
    pub(super) fn is_counted(&self) -> bool {
        matches!(self, Self::Count { .. })
    }

    /// The relation, over the stream or a query over it, of one of its times; `is_flinks` says in which spelling.
    pub(super) fn sql(&self, over: &str, time: &str, is_flinks: bool) -> String {
        let offset = |offset_us: i64| if offset_us == 0 { String::new() } else { format!(", {}", interval(offset_us)) };
        let (name, key, rest) = match self {
            Self::Tumble { size_us, offset_us } => {
                ("TUMBLE", None, format!("{}{}", interval(*size_us), offset(*offset_us)))
            }
            Self::Calendar { unit } => ("TUMBLE", None, format!("INTERVAL '1 {unit}', '{}'", ZONE.0)),
            Self::Hop { slide_us, size_us, offset_us } => {
                ("HOP", None, format!("{}, {}{}", interval(*slide_us), interval(*size_us), offset(*offset_us)))
            }
            Self::Cumulate { step_us, size_us, offset_us } => {
                ("CUMULATE", None, format!("{}, {}{}", interval(*step_us), interval(*size_us), offset(*offset_us)))
            }
            Self::Session { key, gap_us } => ("SESSION", key.map(|key| COLUMNS[key].0), interval(*gap_us)),
            Self::Count { slide, size } => {
                return match (is_flinks, slide == size) {
                    (true, true) => format!("GLOBAL_WINDOW(s, TRIGGER(count, {size}, PURGE)) AS s"),
                    (true, false) => format!("GLOBAL_WINDOW(s, TRIGGER(count, {slide}), EVICTOR(count, {size})) AS s"),
                    (false, true) => format!("COUNT_WINDOW(s, {size}) AS s"),
                    (false, false) => format!("COUNT_WINDOW(s, {slide}, {size}) AS s"),
                };
            }
        };
        match (is_flinks && over == "s", key) {
            (true, Some(key)) => format!("TABLE({name}(TABLE s PARTITION BY {key}, DESCRIPTOR({time}), {rest})) AS s"),
            (true, None) => format!("TABLE({name}(TABLE s, DESCRIPTOR({time}), {rest})) AS s"),
            (false, Some(key)) => format!("{name}({over}, {key}, {time}, {rest}) AS s"),
            (false, None) => format!("{name}({over}, {time}, {rest}) AS s"),
        }
    }

    /// The windows of a time; of a session, the time alone.
    fn of(&self, time_us: i64) -> Vec<(i64, i64)> {
        match self {
            Self::Tumble { size_us, offset_us } => {
                let start = calendar::bin(*size_us, *offset_us, time_us);
                vec![(start, start + size_us)]
            }
            Self::Calendar { unit } => {
                let start = calendar::truncate(unit, time_us + ZONE.1);
                let within_next = start + if *unit == "day" { DAY } else { 31 * DAY + 12 * HOUR };
                vec![(start - ZONE.1, calendar::truncate(unit, within_next) - ZONE.1)]
            }
            Self::Hop { slide_us, size_us, offset_us } => {
                let mut start = calendar::bin(*slide_us, *offset_us, time_us);
                let mut windows = vec![];
                while start + size_us > time_us {
                    windows.push((start, start + size_us));
                    start -= slide_us;
                }
                windows
            }
            Self::Cumulate { step_us, size_us, offset_us } => {
                let start = calendar::bin(*size_us, *offset_us, time_us);
                let ends = (1..=size_us / step_us).map(|steps| start + steps * step_us);
                ends.filter(|end| *end > time_us).map(|end| (start, end)).collect()
            }
            // of a record's position: the results that it is in the last so many records of
            Self::Count { slide, size } => {
                let ends = time_us + 1..=time_us + size;
                ends.filter(|end| end % slide == 0).map(|end| (end - size, end)).collect()
            }
            Self::Session { .. } => vec![(time_us, time_us)],
        }
    }

    /// True if nothing that is in time can lie in one of the windows any more: its last instant is late, of a session
    /// the last one at which an event would join it.
    pub(super) fn is_final(&self, (_, end): (i64, i64), watermark_us: i64) -> bool {
        let last_us = if let Self::Session { gap_us, .. } = self { end + gap_us } else { end - 1 };
        self.has_ended(last_us, watermark_us)
    }

    /// The bounds of the only window of a time.
    pub(super) fn only(&self, time_us: i64) -> (i64, i64) {
        assert!(!self.is_shared());
        self.of(time_us)[0]
    }

    /// True if the last window of a time has ended by the watermark.
    pub(super) fn has_ended(&self, time_us: i64, watermark_us: i64) -> bool {
        match self {
            Self::Session { gap_us, .. } => watermark_us > time_us + gap_us,
            Self::Count { .. } => false,
            _ => self.of(time_us).iter().all(|(_, end)| *end <= watermark_us),
        }
    }

    /// Of each of the events that are counted, with their times, its windows.
    pub(super) fn of_all(&self, events: &[(&[Value], i64)]) -> Vec<Vec<Bounds>> {
        let bounds = |(start, end): (i64, i64)| match self {
            Self::Count { .. } => (Value::Int(start.into()), Value::Int(end.into())),
            _ => (Value::Time(start), Value::Time(end)),
        };
        let Self::Session { key, gap_us } = self else {
            return events.iter().map(|(_, time_us)| self.of(*time_us).into_iter().map(bounds).collect()).collect();
        };
        let mut by_key: BTreeMap<Option<Key>, Vec<usize>> = BTreeMap::new();
        for (index, (event, _)) in events.iter().enumerate() {
            by_key.entry(key.map(|key| event[key].key())).or_default().push(index);
        }
        let mut windows = vec![vec![]; events.len()];
        for of_key in by_key.into_values() {
            for first in &of_key {
                if !windows[*first].is_empty() {
                    continue;
                }
                let (mut start, mut end) = (events[*first].1, events[*first].1);
                loop {
                    let near = of_key.iter().map(|index| events[*index].1);
                    let near: Vec<i64> = near.filter(|time| start - gap_us <= *time && *time <= end + gap_us).collect();
                    let grown = (*near.iter().min().unwrap(), *near.iter().max().unwrap());
                    if grown == (start, end) {
                        break;
                    }
                    (start, end) = grown;
                }
                for index in &of_key {
                    if (start..=end).contains(&events[*index].1) {
                        windows[*index] = vec![bounds((start, end))];
                    }
                }
            }
        }
        windows
    }
}
