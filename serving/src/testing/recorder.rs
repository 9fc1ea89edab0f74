//! Statements that are written down instead of carried out.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::problem::SqlPosition;
use schemas::statement::Placed;
use schemas::{Code, Problem};

use crate::parts::{Rehearsal, StatementAnswer, Statements};

/// Remembers what it was asked to do.
#[derive(Debug, Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<String>>);

#[async_trait]
impl Statements for Recorder {
    async fn execute(&self, placed: &Placed, files: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem> {
        self.record(placed, files, false)
    }

    fn rehearse(&self) -> Box<dyn Rehearsal + '_> {
        Box::new(Rehearsed(self))
    }
}

/// Writes down what it was asked to check.
struct Rehearsed<'a>(&'a Recorder);

impl Rehearsal for Rehearsed<'_> {
    fn check(&mut self, placed: &Placed, files: &BTreeMap<String, String>) -> Result<StatementAnswer, Problem> {
        self.0.record(placed, files, true)
    }
}

impl Recorder {
    fn record(
        &self,
        placed: &Placed,
        files: &BTreeMap<String, String>,
        dry_run: bool,
    ) -> Result<StatementAnswer, Problem> {
        self.0.lock().push(format!("{} files={} dry_run={dry_run}", placed.text, files.len()));
        if placed.text.contains("forbidden") {
            let problem = Problem::new(Code::InvalidSql, "no").at(&placed.text, SqlPosition { line: 1, column: 6 });
            return Err(problem);
        }
        Ok(StatementAnswer { message: "done".into(), rows: None })
    }
}
