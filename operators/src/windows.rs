//! Windows: the table functions `TUMBLE`, `HOP`, `CUMULATE`, `SESSION`, `COUNT_WINDOW` and `GLOBAL_WINDOW`, and what they
//! are made of.
//!
//! `TUMBLE(t, ts, INTERVAL '1 day')` is `t` with the columns `window_start` and `window_end`: windows
//! of that length, aligned to the epoch, UTC, start included, end excluded.
//!
//! In a view, a record of `HOP` or `CUMULATE` is stored once, in its pane, and one of `SESSION` as a
//! session of its own; windows are made of them after ⊕ (`Windows`, `docs/adr/0014-windows.md`).

mod arguments;
mod function;
mod global;
mod panes;
mod planner;
mod rows;
mod sessions;
mod spec;
#[cfg(test)]
mod tests;
mod zone;

pub(crate) use function::{Part, WindowFunction, before, window_call};
pub use function::{WINDOW_END_FUNCTION, WINDOW_START_FUNCTION, functions};
pub(crate) use panes::expand;
pub use planner::WindowPlanner;
pub(crate) use sessions::coalesce;
pub(crate) use spec::{ALL_WINDOWS, WindowRange, WindowSpec};
pub(crate) use zone::{Calendar, TIME_ZONE_DATA, Unit, of_the_clock, zone};

/// How the windows of a view are made of its cells, where a cell is not a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Windows {
    /// One key column of the states is the start of a pane; in answers it is the bound that tells a window apart.
    Panes {
        /// Which key column.
        key: usize,
        /// The windows.
        spec: WindowSpec,
    },
    /// The last two key columns are first and last event of a session, or of a part of one.
    Sessions {
        /// The longest time between two neighbours of one session.
        gap_us: i64,
    },
}
