//! Whole-platform tests: a platform in this process or as a child process, and an oracle that shares
//! no code with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod aggregates;
mod architecture;
mod changes;
mod commits;
mod crash;
mod damage;
mod dimensions;
mod documents;
mod edges;
mod first_use;
mod fuzz;
mod harness;
mod imports;
mod kafka;
mod late;
mod oracle;
mod parity;
mod pressure;
mod reader;
mod refusals;
mod roles;
mod rows;
mod s3;
mod s3_proxy;
mod sim;
mod sinks;
mod spellings;
mod times;
mod union;
mod windows;
