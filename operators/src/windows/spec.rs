//! What a window is: which windows a time lies in, and when the last of them has ended.
//!
//! ```text
//!  HOP, slide 20, size 60          CUMULATE, step 20, size 60
//!  panes   |0 |20|40|60|80|        panes   |0 |20|40|60|80|
//!  windows  ════════               windows  ══
//!              ════════                     ═════
//!                 ════════                  ════════
//! ```
//! Each event is stored once, in its pane; a window is the ⊕ of its panes.

use std::ops::RangeInclusive;

use super::zone::Calendar;

/// The windows of a view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum WindowSpec {
    /// Of one length, one after the other, beginning `offset_us` after the epoch.
    Tumble {
        /// Length.
        size_us: i64,
        /// Where one of them begins.
        offset_us: i64,
    },
    /// Days or months by the clock of a time zone.
    Calendar(Calendar),
    /// Of one length, one every slide: they overlap.
    Hop {
        /// From the start of one to the start of the next.
        slide_us: i64,
        /// Length.
        size_us: i64,
        /// Where one of them begins.
        offset_us: i64,
    },
    /// From the start of each period of `size_us`: the first step, the first two steps, … all of it.
    Cumulate {
        /// By how much each window is longer than the one before.
        step_us: i64,
        /// Length of the longest.
        size_us: i64,
        /// Where one of the periods begins.
        offset_us: i64,
    },
    /// Of so many records of one partition, one every so many: the last `size` before each multiple of `slide`. Bounds
    /// are offsets in the log.
    Positions {
        /// From the end of one to the end of the next.
        slide: i64,
        /// Records in one.
        size: i64,
    },
    /// Events of one key with at most so much time from each to the next. Its end is its last event.
    Session {
        /// The longest time between two neighbours.
        gap_us: i64,
    },
}

/// Windows by the bound that tells them apart ([`WindowSpec::start_of`], [`WindowSpec::end_of`]).
pub(crate) type WindowRange = RangeInclusive<i64>;

/// Every window.
pub(crate) const ALL_WINDOWS: WindowRange = i64::MIN..=i64::MAX;

/// The largest `offset + n × width` that is not above the time.
pub(super) fn floor(time_us: i64, width_us: i64, offset_us: i64) -> i64 {
    time_us.saturating_sub(time_us.saturating_sub(offset_us).rem_euclid(width_us))
}

/// The smallest `offset + n × width` that is not below the time.
fn ceil(time_us: i64, width_us: i64, offset_us: i64) -> i64 {
    let below = floor(time_us, width_us, offset_us);
    if below == time_us { below } else { below.saturating_add(width_us) }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl WindowSpec {
    /// True if a record can lie in several windows, or if which window it lies in depends on other records.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::Hop { .. } | Self::Cumulate { .. } | Self::Session { .. } => true,
            Self::Positions { slide, size } => slide != size,
            Self::Tumble { .. } | Self::Calendar(_) => false,
        }
    }

    /// True for windows over positions in the log, whose bounds are offsets and not times.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(self, Self::Positions { .. })
    }

    /// Where one of the windows of so many records starts: each ends at a multiple of the slide.
    fn first_offset(slide: i64, size: i64) -> i64 {
        -size.rem_euclid(slide)
    }

    /// What a record of this time is stored under: the start of its window, the start of its pane, or, for
    /// a session, the time itself.
    pub(crate) fn stored_under(&self, time_us: i64) -> i64 {
        match self {
            Self::Tumble { size_us, offset_us } => floor(time_us, *size_us, *offset_us),
            Self::Calendar(calendar) => calendar.bucket(time_us).0,
            Self::Hop { offset_us, .. } | Self::Cumulate { offset_us, .. } => {
                floor(time_us, self.pane_us(), *offset_us)
            }
            Self::Positions { slide, size } => floor(time_us, self.pane_us(), Self::first_offset(*slide, *size)),
            Self::Session { .. } => time_us,
        }
    }

    /// The width of what records are stored under and where one of these begins, if they are evenly spaced.
    pub(super) fn grid(&self) -> Option<(i64, i64)> {
        match self {
            Self::Tumble { offset_us, .. } | Self::Hop { offset_us, .. } | Self::Cumulate { offset_us, .. } => {
                Some((self.pane_us(), *offset_us))
            }
            Self::Positions { slide, size } => Some((self.pane_us(), Self::first_offset(*slide, *size))),
            Self::Calendar(_) | Self::Session { .. } => None,
        }
    }

    /// Where the window of this time ends: for windows of which there is only one.
    pub(crate) fn end_of_only(&self, time_us: i64) -> i64 {
        match self {
            Self::Calendar(calendar) => calendar.bucket(time_us).1,
            Self::Tumble { size_us, .. } => self.stored_under(time_us).saturating_add(*size_us),
            Self::Positions { size, .. } => self.stored_under(time_us).saturating_add(*size),
            _ => self.stored_under(time_us),
        }
    }

    /// When the last window that a record of this time can lie in has ended: at a watermark that is not
    /// below, the record is late. A record makes a session of its own if nothing else is near; that one has
    /// ended when nothing can join it any more.
    pub(crate) fn end_of_last(&self, time_us: i64) -> i64 {
        match self {
            Self::Tumble { .. } | Self::Calendar(_) => self.end_of_only(time_us),
            Self::Hop { slide_us, size_us, offset_us } => {
                floor(time_us, *slide_us, *offset_us).saturating_add(*size_us)
            }
            Self::Cumulate { size_us, offset_us, .. } => floor(time_us, *size_us, *offset_us).saturating_add(*size_us),
            Self::Session { gap_us } => time_us.saturating_add(*gap_us).saturating_add(1),
            // positions do not come late
            Self::Positions { .. } => i64::MAX,
        }
    }

    /// The watermark at which every record of a window is late: [`WindowSpec::end_of_last`] of its last instant. The
    /// window is named by the bound that tells it apart.
    pub(crate) fn final_from(&self, bound_us: i64) -> i64 {
        self.end_of_last(self.end_of(bound_us).saturating_sub(1))
    }

    /// Width of a pane: every window is a whole number of them.
    pub(crate) fn pane_us(&self) -> i64 {
        match self {
            Self::Hop { slide_us, size_us, .. } | Self::Positions { slide: slide_us, size: size_us } => {
                greatest_common_divisor(*slide_us, *size_us)
            }
            Self::Cumulate { step_us, .. } => *step_us,
            Self::Tumble { size_us, .. } => *size_us,
            Self::Calendar(_) | Self::Session { .. } => 1,
        }
    }

    /// How many windows a record lies in, and how many panes a window has.
    pub(crate) fn counts(&self) -> (i64, i64) {
        match self {
            Self::Hop { slide_us, size_us, .. } | Self::Positions { slide: slide_us, size: size_us } => {
                (size_us / slide_us + 1, size_us / self.pane_us())
            }
            Self::Cumulate { step_us, size_us, .. } => (size_us / step_us, size_us / step_us),
            _ => (1, 1),
        }
    }

    /// The windows in `wanted` that a pane belongs to, ascending, each by the bound that tells it apart.
    pub(crate) fn windows_of(&self, pane_us: i64, wanted: &WindowRange) -> impl Iterator<Item = i64> + use<> {
        let pane_end_us = pane_us.saturating_add(self.pane_us());
        let (first, last, step) = match self {
            Self::Hop { slide_us, size_us, offset_us } => {
                let first = pane_end_us.saturating_sub(*size_us).max(*wanted.start());
                let last = floor(pane_us, *slide_us, *offset_us);
                (ceil(first, *slide_us, *offset_us), last, *slide_us)
            }
            Self::Positions { slide, size } => {
                let (first, offset) =
                    (pane_end_us.saturating_sub(*size).max(*wanted.start()), Self::first_offset(*slide, *size));
                (ceil(first, *slide, offset), floor(pane_us, *slide, offset), *slide)
            }
            Self::Cumulate { step_us, size_us, offset_us } => {
                let last = floor(pane_us, *size_us, *offset_us).saturating_add(*size_us);
                (ceil(pane_end_us.max(*wanted.start()), *step_us, *offset_us), last, *step_us)
            }
            _ => (pane_us, pane_us, 1),
        };
        let last = last.min(*wanted.end());
        let next = move |bound: &i64| bound.checked_add(step).filter(|bound| *bound <= last);
        std::iter::successors((first <= last).then_some(first), next)
    }

    /// The panes that make up windows: the first pane, and the first one behind them.
    pub(crate) fn panes_of(&self, windows: &WindowRange) -> (i64, i64) {
        match self {
            Self::Hop { size_us, .. } | Self::Positions { size: size_us, .. } => {
                (*windows.start(), windows.end().saturating_add(*size_us))
            }
            _ => (self.start_of(*windows.start()), *windows.end()),
        }
    }

    /// Where a window starts, from the bound that tells it apart.
    pub(crate) fn start_of(&self, bound_us: i64) -> i64 {
        match self {
            Self::Cumulate { size_us, offset_us, .. } => floor(bound_us.saturating_sub(1), *size_us, *offset_us),
            _ => bound_us,
        }
    }

    /// Where a window ends, from the bound that tells it apart.
    pub(crate) fn end_of(&self, bound_us: i64) -> i64 {
        match self {
            Self::Hop { size_us, .. } | Self::Positions { size: size_us, .. } => bound_us.saturating_add(*size_us),
            _ => bound_us,
        }
    }

    /// True if the start of a window tells it apart from others, and not its end.
    pub(crate) fn is_known_by_start(&self) -> bool {
        !matches!(self, Self::Cumulate { .. })
    }

    /// A name that has everything in it that the windows depend on: a part of a view's semantic hash.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Tumble { size_us, offset_us } => format!("tumble_{size_us}_{offset_us}"),
            Self::Calendar(calendar) => calendar.name(),
            Self::Hop { slide_us, size_us, offset_us } => format!("hop_{slide_us}_{size_us}_{offset_us}"),
            Self::Cumulate { step_us, size_us, offset_us } => format!("cumulate_{step_us}_{size_us}_{offset_us}"),
            Self::Session { gap_us } => format!("session_{gap_us}"),
            Self::Positions { slide, size } => format!("positions_{slide}_{size}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hop(slide_us: i64, size_us: i64, offset_us: i64) -> WindowSpec {
        WindowSpec::Hop { slide_us, size_us, offset_us }
    }

    fn starts(spec: &WindowSpec, time_us: i64) -> Vec<i64> {
        spec.windows_of(spec.stored_under(time_us), &ALL_WINDOWS).map(|bound| spec.start_of(bound)).collect()
    }

    /// R-054: the mean of the last minute every ten seconds: each event in six windows.
    #[test]
    fn an_event_lies_in_size_by_slide_windows() {
        assert_eq!(starts(&hop(10, 60, 0), 125), [70, 80, 90, 100, 110, 120]);
        assert_eq!(starts(&hop(10, 60, 5), 125), [75, 85, 95, 105, 115, 125]);
        assert_eq!(starts(&hop(40, 60, 0), 125), [80, 120]);
        assert_eq!(starts(&hop(40, 60, 0), 145), [120]);
        assert_eq!(hop(40, 60, 0).pane_us(), 20);
    }

    #[test]
    fn windows_that_cumulate_share_their_start() {
        let spec = WindowSpec::Cumulate { step_us: 20, size_us: 60, offset_us: 0 };
        let ends: Vec<i64> = spec.windows_of(spec.stored_under(85), &ALL_WINDOWS).collect();
        assert_eq!(ends, [100, 120]);
        assert!(ends.iter().all(|end| spec.start_of(*end) == 60));
        assert_eq!(spec.panes_of(&(100..=100)), (60, 100));
        assert_eq!(spec.end_of_last(85), 120);
    }

    /// R-052: every 3 records the last 5: those before 3, before 6, before 9, …
    #[test]
    fn windows_of_records_end_at_each_slide() {
        let spec = WindowSpec::Positions { slide: 3, size: 5 };
        assert_eq!(starts(&spec, 0), [-2]);
        assert_eq!(starts(&spec, 1), [-2, 1]);
        assert_eq!(starts(&spec, 7), [4, 7]);
        assert_eq!(spec.end_of(4), 9);
        // the last of three: one that is in none
        let few = WindowSpec::Positions { slide: 3, size: 1 };
        assert_eq!((starts(&few, 1), starts(&few, 2)), (vec![], vec![2]));
        assert_eq!(starts(&WindowSpec::Positions { slide: 4, size: 4 }, 7), [4]);
    }

    /// R-057: a window of `HOP` ends at 60, but a record at 59 is in time until the last of its windows ends.
    #[test]
    fn a_window_is_final_when_its_last_instant_is_late() {
        assert_eq!(hop(10, 60, 0).final_from(0), 110);
        assert_eq!(hop(60, 60, 0).final_from(0), 60);
        let cumulate = WindowSpec::Cumulate { step_us: 20, size_us: 60, offset_us: 0 };
        assert_eq!(cumulate.final_from(20), 60);
        assert_eq!(cumulate.final_from(60), 60);
        assert_eq!(cumulate.final_from(80), 120);
    }

    #[test]
    fn a_session_has_ended_when_nothing_can_join_it() {
        let spec = WindowSpec::Session { gap_us: 5 };
        assert_eq!(spec.end_of_last(10), 16);
    }

    proptest! {
        /// Windows of a time by trying them all: the same, and each of its panes is read for it.
        #[test]
        fn windows_equal_those_found_by_trying(
            slide in 1_i64..30, times in 0_i64..8, rest in 0_i64..30, offset in -50_i64..50, time in -300_i64..300,
        ) {
            let size = slide * times + rest.max(slide);
            let spec = hop(slide, size, offset);
            let tried: Vec<i64> = (time - 2 * size..=time)
                .filter(|start| (start - offset).rem_euclid(slide) == 0 && (*start..start + size).contains(&time))
                .collect();
            prop_assert_eq!(starts(&spec, time), tried.clone());
            prop_assert_eq!(spec.end_of_last(time), tried.last().unwrap() + size);
            let pane = spec.stored_under(time);
            for start in tried {
                let (first, end) = spec.panes_of(&(start..=start));
                prop_assert!(first <= pane && pane < end);
                let alone: Vec<i64> = spec.windows_of(pane, &(start..=start)).collect();
                prop_assert_eq!(alone, vec![start]);
            }
        }
    }
}
