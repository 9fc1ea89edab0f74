//! Changes as JSON: the same over HTTP and from sinks.

use arrow::record_batch::RecordBatch;
use schemas::Problem;
use serde_json::Value;

use super::Changes;
use crate::format::object;

/// Rows as objects, with commas between.
pub(crate) fn objects(rows: &RecordBatch) -> Result<String, Problem> {
    let objects = (0..rows.num_rows()).map(|row| object(rows, row)).collect::<Result<Vec<_>, _>>()?;
    Ok(objects.join(","))
}

/// `{"version":…,"upserts":[…],"deletes":[…]}`
pub(crate) fn changes(changes: &Changes) -> Result<String, Problem> {
    let (upserts, deletes) = (objects(&changes.upserts)?, objects(&changes.deletes)?);
    Ok(format!("{{\"version\":{},\"upserts\":[{upserts}],\"deletes\":[{deletes}]}}", changes.version))
}

/// A text in quotes.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
