//! What is asked and what is answered, whatever door it comes through.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::scalar::ScalarValue;
use schemas::freshness::{Freshness, Statistics};
use schemas::{Code, PositionToken, Problem};
use serde_json::Value;

/// One query.
#[derive(Debug, Clone, Default)]
pub struct QueryRequest {
    /// One statement that only reads.
    pub sql: String,
    /// Values of `$1`, `$2`, …
    pub params: Vec<ScalarValue>,
    /// Answer only if nothing older than this is missing.
    pub max_staleness: Option<Duration>,
    /// Wait until everything below these positions is included.
    pub at_least: Vec<PositionToken>,
    /// Shorter than the server's limit.
    pub timeout: Option<Duration>,
    /// Fewer than the server's limit.
    pub row_limit: Option<usize>,
}

impl QueryRequest {
    /// A query without parameters or conditions.
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), ..Self::default() }
    }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct QueryAnswer {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows, in order.
    pub rows: Vec<RecordBatch>,
    /// True if the row limit cut it off, or one of its tables has only the newest of what there is.
    pub truncated: bool,
    /// Where the next page begins, for doors that have pages.
    pub next: Option<String>,
    /// What it cost.
    pub statistics: Statistics,
    /// What it was made from.
    pub freshness: Freshness,
}

impl QueryAnswer {
    /// Rows that were made from no view.
    pub fn of_rows(rows: RecordBatch, as_of: String) -> Self {
        Self {
            schema: rows.schema(),
            rows: vec![rows],
            truncated: false,
            next: None,
            statistics: Statistics { elapsed_ms: 0.0, cells_read: 0, bytes_read: 0, query_id: String::new() },
            freshness: Freshness { as_of, complete: true, ..Freshness::default() },
        }
    }

    /// How many rows there are.
    pub fn row_count(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Positional parameters from JSON: null, booleans, numbers, strings.
///
/// # Errors
/// `bad_request` for arrays and objects.
pub fn params_from_json(values: &[Value]) -> Result<Vec<ScalarValue>, Problem> {
    let one = |(index, value): (usize, &Value)| match value {
        Value::Null => Ok(ScalarValue::Null),
        Value::Bool(truth) => Ok(ScalarValue::Boolean(Some(*truth))),
        Value::String(text) => Ok(ScalarValue::Utf8(Some(text.clone()))),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Ok(ScalarValue::Int64(Some(integer))),
            (None, float) => Ok(ScalarValue::Float64(float)),
        },
        Value::Array(_) | Value::Object(_) => {
            let what = format!("params: ${} is an array or an object", index + 1);
            Err(Problem::new(Code::BadRequest, what).with_hint("send null, a boolean, a number or a string"))
        }
    };
    values.iter().enumerate().map(one).collect()
}
