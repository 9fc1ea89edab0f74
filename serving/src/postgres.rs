//! A small client of PostgreSQL: what sinks write with, and what tables are loaded with.

mod address;
mod connection;
mod messages;
mod scram;

pub use address::Address;
pub(crate) use connection::Batch;
pub use connection::{Connection, Row};

/// A name in quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table, with its schema if it has one, in quotes.
pub fn quoted_table(table: &str) -> String {
    table.split('.').map(quoted).collect::<Vec<_>>().join(".")
}
