//! Views → answers: the merged table, SQL, look-ups, the HTTP door.
//!
//! ```text
//!  request ──► parse ──► one snapshot per stream ──► tables (merged, batch, speed) ──► rows
//!                              │                                                     │
//!                              └──► coverage asserted (H1) ──► freshness ◄───────────┘
//! ```
//!
//! Knows the other layers only by the traits of `storage::layers`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod changes;
pub mod engine;
pub mod format;
pub mod http;
pub mod lookup;
pub mod parts;
pub mod postgres;
pub mod problem;
pub mod sinks;
pub mod source;
pub mod stored;
mod system;
#[cfg(test)]
mod testing;
mod times;
mod union;

pub use engine::{QueryAnswer, QueryEngine, QueryRequest};
pub use http::{HttpState, router};
pub use parts::{Catalogs, Parts, StatementAnswer, Statements, Views};
