//! Bytes → log: decode, validate, admit, keep dead letters; the HTTP door.
//!
//! ```text
//!  body ─► payload (inflate, split) ─► decode (typed rows, verdicts) ─► identity (partition)
//!                                            │ bad records                   │
//!                                            ▼                               ▼
//!                                      dead letters                     admission (duplicates, times) ─► log
//! ```
//!
//! Knows nothing of views, of the master, of queries.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod admission;
mod backlog;
pub mod connector;
pub mod dead_letters;
pub mod decode;
pub mod frozen;
pub mod http;
pub mod identity;
pub mod payload;
mod receipts;
pub mod service;
#[cfg(test)]
mod testing;
pub mod times;

pub use connector::{Connector, ConnectorParts, Grow};
pub use dead_letters::dead_letter_schema;
pub use payload::{Encoding, Format};
pub use receipts::receipt_schema;
pub use service::{IngestOptions, IngestParts, IngestService, Payload, Streams};
