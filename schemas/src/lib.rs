//! What the data is: SQL statements, types, positions, cuts, limits, stored documents.
//!
//! Knows no file, no network, no clock, no task. Every other crate may use it; it uses none of them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod column;
pub mod documents;
pub mod footprint;
pub mod freshness;
pub mod frozen;
pub mod limits;
pub mod position;
pub mod problem;
pub mod show_create;
pub mod sink;
pub mod statement;
pub mod stream;
pub mod table;
pub mod transport;
pub mod union;
pub mod view;

pub use column::{ColumnDef, ItemType, SqlType};
pub use documents::catalog::Catalog;
pub use documents::certificate::{Certificate, Verdict};
pub use documents::ledger::{IntakeBucket, IntakeCounts, LedgerCounts};
pub use limits::Limits;
pub use position::{Cut, Offset, Partition, PositionToken};
pub use problem::{Code, Problem};
pub use sink::{OutputMode, SinkDef, SinkTarget};
pub use stream::{LatePolicy, OnBadData, StreamDef};
pub use table::{PostgresRead, TableSource, Validity};
pub use transport::{LogKind, RecordFormat, TopicSource, Transport};
pub use union::UnionDef;
pub use view::{Refresh, TableDef, TableJoin, ViewDef};
