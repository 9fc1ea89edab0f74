//! The table that a view joins when it is read: a new version of it changes rows, and no position says so.

use std::sync::Arc;

use operators::{StaticTable, View};

/// The version that was handed over; none if that is not known, or if there is no such table.
#[derive(Debug, Default)]
pub(super) struct Joined(Option<Arc<StaticTable>>);

impl Joined {
    /// The newest version. Taken before the view is read: should another one come in between, it is handed over anew.
    pub(super) fn by(view: &View) -> Self {
        Self(view.current_dimension())
    }

    /// True if the view joins another version by now, or if nobody knows which one was handed over.
    pub(super) fn is_outdated(&self, view: &View) -> bool {
        match (&self.0, view.current_dimension()) {
            (Some(before), Some(newest)) => !Arc::ptr_eq(before, &newest),
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }
}
