//! What is computed: views, row programs, aggregates, windows, laws.
//!
//! Knows no file, no network, no clock, no task: synchronous functions over Arrow data. Both layers
//! fold with [`View`], and nothing else folds.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod aggregates;
mod bounded;
pub mod buckets;
mod canonical;
pub mod cells;
mod checked;
mod compacted;
pub mod error;
pub mod evidence;
pub mod folder;
mod lateral;
pub mod laws;
pub mod merged;
pub mod row_finish;
pub mod session;
mod set_keys;
pub mod states;
pub mod validity;
pub mod view;
pub mod windows;

pub use compacted::compacted;
pub use folder::Folder;
pub use lateral::{LateralPlanner, without_lateral};
pub use merged::StateSource;
pub use row_finish::RowFinish;
pub use view::{Frontier, StaticTable, View, ViewSource, WINDOW_FINAL, plan};
