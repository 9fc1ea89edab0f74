//! The batch layer: master → batch views. Lands the log, recomputes views, proves each run equal to
//! what it replaces, publishes, rolls back.
//!
//! ```text
//!  log ──landing──► master ──recompute──► sorted states ──audit──► certificate ──► manifest
//!                                             ▲                        │
//!  schedule, users ──────runs─────────────────┘        violation: nothing is published
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod audit;
pub mod landing;
pub mod late;
pub mod master_records;
pub mod metrics;
pub mod recompute;
pub mod runs;
pub mod schedule;
pub mod views;

#[cfg(test)]
mod testing;

pub use landing::Landing;
pub use runs::{RunParts, RunService};
pub use schedule::Schedule;
pub use views::{BatchView, Views};

use schemas::{Code, Problem};

/// An error that only our own bug or damaged data can cause.
fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}

/// A storage error as a problem; the cause goes to the log, not to the client.
fn stored(error: &storage::StorageError) -> Problem {
    tracing::debug!(%error, "storage");
    error.problem()
}
