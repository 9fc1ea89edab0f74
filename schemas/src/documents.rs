//! Stored documents: what the layers agree on. Each carries its `format` version; every released
//! version has a frozen example under `schemas/frozen/` that a test reads.

pub mod catalog;
pub mod certificate;
pub mod delta;
pub mod ledger;
pub mod manifest;
pub mod owner;
pub mod run;
pub mod sink;
pub mod source;

#[cfg(test)]
mod tests;
