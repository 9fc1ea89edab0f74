//! Where bytes live: the log, the master, the view store, paths, the clock.
//!
//! Knows nothing of SQL and of how states are computed: it never uses `operators`.

pub mod clock;
pub mod error;
pub mod layers;
pub mod log;
pub mod snapshot;

pub use error::StorageError;
