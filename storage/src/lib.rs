//! Where bytes live: the log, the master, the view store, paths, the clock.
//!
//! Knows nothing of SQL and of how states are computed: it never uses `operators`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::from_iter_instead_of_collect,
        clippy::unit_arg,
        reason = "tests"
    )
)]

pub mod batch_view;
pub mod catalog;
pub mod certificates;
pub mod clock;
pub mod deltas;
pub mod error;
pub use schemas::footprint;
pub mod guarded;
mod ipc;
pub mod kafka;
pub mod layers;
pub mod log;
pub mod manifests;
pub mod master;
pub mod numbered;
pub mod owner;
pub mod paths;
pub mod runs;
pub mod sinks;
pub mod snapshot;
pub mod source;
pub mod store;

pub use error::StorageError;
pub use store::Store;
