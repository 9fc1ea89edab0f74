//! Running queries and the last hundred: `system.queries`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::Code;
use uuid::Uuid;

/// Finished queries that are remembered.
const FINISHED_MAX: usize = 100;
/// Characters of a query's text that are remembered.
const SQL_CHARS_MAX: usize = 10_000;

/// One query, running or finished.
#[derive(Debug, Clone)]
pub(crate) struct QueryRecord {
    pub(crate) id: Uuid,
    pub(crate) sql: String,
    pub(crate) started_at_us: i64,
    /// `running`, `ok`, or the code of a problem.
    pub(crate) state: &'static str,
    pub(crate) elapsed_ms: Option<f64>,
    pub(crate) rows: Option<u64>,
    pub(crate) cells_read: Option<u64>,
}

#[derive(Debug, Default)]
struct Books {
    running: BTreeMap<Uuid, QueryRecord>,
    finished: VecDeque<QueryRecord>,
}

/// The books of a query engine.
#[derive(Debug, Default, Clone)]
pub(crate) struct History(Arc<Mutex<Books>>);

impl History {
    /// Enters a query; it is running until the entry is finished or dropped.
    pub(crate) fn begin(&self, sql: &str, now_us: i64) -> Entry {
        let record = QueryRecord {
            id: Uuid::now_v7(),
            sql: sql.chars().take(SQL_CHARS_MAX).collect(),
            started_at_us: now_us,
            state: "running",
            elapsed_ms: None,
            rows: None,
            cells_read: None,
        };
        let id = record.id;
        self.0.lock().running.insert(id, record);
        Entry { history: self.clone(), id, started: std::time::Instant::now() }
    }

    /// Running queries, then finished ones, the newest first.
    pub(crate) fn all(&self) -> Vec<QueryRecord> {
        let books = self.0.lock();
        books.running.values().rev().chain(books.finished.iter()).cloned().collect()
    }

    /// How many are running.
    pub(crate) fn running(&self) -> usize {
        self.0.lock().running.len()
    }

    fn end(&self, id: Uuid, change: impl FnOnce(&mut QueryRecord)) {
        let mut books = self.0.lock();
        if let Some(mut record) = books.running.remove(&id) {
            change(&mut record);
            books.finished.push_front(record);
            books.finished.truncate(FINISHED_MAX);
        }
    }
}

/// A running query's line in the books.
#[derive(Debug)]
pub(crate) struct Entry {
    history: History,
    pub(crate) id: Uuid,
    started: std::time::Instant,
}

impl Entry {
    /// Milliseconds since it began.
    pub(crate) fn elapsed_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1e3
    }

    /// It was answered.
    pub(crate) fn succeed(self, rows: u64, cells_read: u64) {
        let elapsed_ms = self.elapsed_ms();
        self.history.end(self.id, |record| {
            record.state = "ok";
            record.elapsed_ms = Some(elapsed_ms);
            record.rows = Some(rows);
            record.cells_read = Some(cells_read);
        });
    }

    /// It ended with a problem.
    pub(crate) fn fail(self, code: Code) {
        let elapsed_ms = self.elapsed_ms();
        self.history.end(self.id, |record| {
            record.state = code.as_str();
            record.elapsed_ms = Some(elapsed_ms);
        });
    }
}

impl Drop for Entry {
    /// The client went away.
    fn drop(&mut self) {
        let elapsed_ms = self.elapsed_ms();
        self.history.end(self.id, |record| {
            record.state = Code::Cancelled.as_str();
            record.elapsed_ms = Some(elapsed_ms);
        });
    }
}
