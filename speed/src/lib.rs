//! The speed layer: log → deltas. Folds the newest records of every stream into states, shows them to
//! readers in milliseconds, and checkpoints them as deltas.
//!
//! ```text
//!  log ──frames──► pieces ──► shards (one per core) ──seal──► tail ──checkpoint──► delta ──merge──► fewer deltas
//!                                                        └──────────── one snapshot per stream ◄──┘
//! ```
//!
//! Never reads the master, never writes a batch view.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod chain;
mod checkpoint;
mod compact;
mod fold;
mod publish;
mod recover;
mod service;
mod shard;
mod stream;
#[cfg(test)]
mod tests;

pub use service::SpeedService;
pub use stream::{StreamSpeed, ViewInput};
