//! Requests and answers of the HTTP interface, as a client sees them: fields may be added any time.

use std::collections::BTreeMap;

use anyhow::Context;
use schemas::freshness::{AnswerColumn, Freshness};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::output::{Cell, Table};

/// Body of `POST /v1/sql`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SqlRequest {
    /// A script.
    pub sql: String,
    /// Check everything, change nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// A position that the answer must include.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<String>,
    /// Contents of the files that `CREATE TABLE … FROM FILE` names, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

impl SqlRequest {
    /// A script and nothing else.
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), ..Self::default() }
    }
}

/// The answer to a script: what every statement said, and the rows of the last one.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlAnswer {
    /// Rows; no columns if the statement gives none.
    pub table: Table,
    /// What each statement said, in order: `created stream s`, `3 rows`.
    pub messages: Vec<String>,
    /// True if there are more rows than the limit.
    pub truncated: bool,
    /// What the answer was made from.
    pub freshness: Option<Freshness>,
    /// Wall time in the server, milliseconds.
    pub elapsed_ms: Option<f64>,
    /// As the server sent it: JSON.
    pub raw: String,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    columns: Vec<AnswerColumn>,
    #[serde(default)]
    rows: Vec<Vec<Cell>>,
    #[serde(default)]
    results: Vec<String>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    freshness: Option<Freshness>,
    #[serde(default)]
    statistics: Value,
}

impl SqlAnswer {
    pub(super) fn new(raw: String) -> anyhow::Result<Self> {
        let wire: Wire = serde_json::from_str(&raw).context("the server's answer to SQL has an unknown shape")?;
        Ok(Self {
            table: Table { columns: wire.columns, rows: wire.rows },
            messages: wire.results,
            truncated: wire.truncated,
            freshness: wire.freshness,
            elapsed_ms: wire.statistics.get("elapsed_ms").and_then(Value::as_f64),
            raw,
        })
    }

    /// The integer in the first row of a column, whether it came as a number or as digits; null is 0.
    pub fn integer(&self, column: &str) -> anyhow::Result<i128> {
        let index = self.table.columns.iter().position(|c| c.name == column);
        let value = index.and_then(|index| self.table.rows.first()?.get(index));
        let value = value.with_context(|| format!("the answer has no value in column {column}"))?;
        if value.is_null() {
            return Ok(0);
        }
        let text = value.text();
        text.parse().with_context(|| format!("column {column}: `{text}` is no integer"))
    }
}

/// A run, as `GET /v1/runs/{id}` shows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunAnswer {
    /// Its number.
    pub id: u64,
    /// Its view.
    #[serde(default)]
    pub view: String,
    /// `queued | running | succeeded | blocked | failed | cancelled`
    pub state: String,
    /// Records read so far.
    #[serde(default)]
    pub rows: u64,
    /// Records to read.
    #[serde(default)]
    pub rows_total: u64,
    /// Records a second.
    #[serde(default)]
    pub rows_per_second: f64,
    /// Expected remaining time.
    #[serde(default)]
    pub eta_ms: Option<u64>,
    /// The certificate's verdict.
    #[serde(default)]
    pub verdict: Option<String>,
    /// Why it failed or was blocked.
    #[serde(default)]
    pub error: Option<String>,
    /// As the server sent it.
    #[serde(skip)]
    pub raw: Value,
}

impl RunAnswer {
    pub(super) fn new(raw: Value) -> anyhow::Result<Self> {
        let answer = Self::deserialize(&raw).context("the server's answer about a run has an unknown shape")?;
        Ok(Self { raw, ..answer })
    }

    /// True when nothing more will happen.
    pub fn is_final(&self) -> bool {
        !matches!(self.state.as_str(), "queued" | "running")
    }
}
