//! Which cells a look-up has to read, where a cell is not a window.

use datafusion::common::ScalarValue;
use schemas::limits::PANES_LOOKED_UP_MAX;

use super::View;
use crate::windows::{ALL_WINDOWS, WindowRange, Windows};

/// The bound of a window: a time, or an offset.
fn bound_of(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampMicrosecond(bound, _) | ScalarValue::Int64(bound) => *bound,
        _ => None,
    }
}

/// A bound of the same type.
fn like(value: &ScalarValue, bound: i64) -> ScalarValue {
    match value {
        ScalarValue::TimestampMicrosecond(_, zone) => ScalarValue::TimestampMicrosecond(Some(bound), zone.clone()),
        _ => ScalarValue::Int64(Some(bound)),
    }
}

impl View {
    /// True if answered cells are made of several stored ones: a look-up may find windows beside the one that is
    /// asked for.
    pub fn makes_windows(&self) -> bool {
        self.cells.windows.is_some()
    }

    /// True if a cell is a part of a session that other cells of the same key may belong to: they must be
    /// merged and compared together.
    pub fn makes_sessions(&self) -> bool {
        matches!(self.cells.windows, Some(Windows::Sessions { .. }))
    }

    /// How many windows a record lies in at most.
    pub fn windows_per_record(&self) -> u64 {
        match &self.cells.windows {
            Some(Windows::Panes { spec, .. }) => spec.counts().0.max(1) as u64,
            _ => 1,
        }
    }

    /// The leading keys of the states that an answer with these leading keys is made of: all states with one of
    /// them are needed. None if that would be too many, or all of the view.
    pub fn stored_keys(&self, key: &[ScalarValue]) -> Option<Vec<Vec<ScalarValue>>> {
        match &self.cells.windows {
            None => Some(vec![key.to_vec()]),
            Some(Windows::Sessions { .. }) => {
                let beside = &key[..key.len().min(self.cells.keys - 2)];
                (!beside.is_empty()).then(|| vec![beside.to_vec()])
            }
            Some(Windows::Panes { key: index, .. }) if key.len() <= *index => Some(vec![key.to_vec()]),
            Some(Windows::Panes { key: index, spec }) => {
                let bound = bound_of(&key[*index])?;
                if spec.counts().1 > PANES_LOOKED_UP_MAX {
                    return None;
                }
                let (first, end) = spec.panes_of(&(bound..=bound));
                let of_pane = |pane: i64| {
                    let mut stored = key.to_vec();
                    stored[*index] = like(&key[*index], pane);
                    stored
                };
                let next = |pane: &i64| pane.checked_add(spec.pane_us());
                let panes = std::iter::successors(Some(first), next).take_while(|pane| *pane < end);
                Some(panes.map(of_pane).collect())
            }
        }
    }

    /// The windows that these leading keys of an answer ask for.
    pub(crate) fn windows_of_key(&self, key: &[ScalarValue]) -> WindowRange {
        match &self.cells.windows {
            Some(Windows::Panes { key: index, .. }) => match key.get(*index).and_then(bound_of) {
                Some(bound) => bound..=bound,
                None => ALL_WINDOWS,
            },
            _ => ALL_WINDOWS,
        }
    }
}
