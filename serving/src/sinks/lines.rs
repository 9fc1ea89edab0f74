//! Changes as lines of JSON: what files and the standard output get.
//!
//! ```text
//!  {"op":"snapshot","version":7}                 forget what came before
//!  {"op":"upsert","version":7,"row":{…}}
//!  {"op":"delete","version":9,"key":{…}}
//! ```

use std::fmt::Write;

use schemas::Problem;

use crate::changes::Changes;
use crate::format::object;

/// The line before a whole view.
pub(super) fn snapshot(version: u64) -> String {
    format!("{{\"op\":\"snapshot\",\"version\":{version}}}\n")
}

/// A line for each row and key; `more` is put into each line, with a comma behind it.
pub(super) fn changes(changes: &Changes, more: &str) -> Result<String, Problem> {
    let version = changes.version;
    let mut out = String::new();
    for row in 0..changes.upserts.num_rows() {
        let row = object(&changes.upserts, row)?;
        let _ = writeln!(out, "{{{more}\"op\":\"upsert\",\"version\":{version},\"row\":{row}}}");
    }
    for row in 0..changes.deletes.num_rows() {
        let key = object(&changes.deletes, row)?;
        let _ = writeln!(out, "{{{more}\"op\":\"delete\",\"version\":{version},\"key\":{key}}}");
    }
    Ok(out)
}
