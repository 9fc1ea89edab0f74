//! A real PostgreSQL (`infra/components/postgres.sh`), asked with `psql`: a client that shares no code with the sink. One
//! that does not start is a failure that says why, never a test that is skipped.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

const SCRIPT: &str = "../infra/components/postgres.sh";

/// A database of the test's own.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    /// `postgres://user:password@host:port/database`
    pub(crate) url: String,
}

/// The server that the tests of this process share: the one of the environment, or one that lives as long as they do.
fn server() -> String {
    static SHARED: OnceLock<String> = OnceLock::new();
    let start = || {
        if let Ok(url) = std::env::var("BIFOLD_POSTGRES") {
            return url;
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string();
        let watch = std::process::id().to_string();
        let environment = [("POSTGRES_PORT", port.as_str()), ("POSTGRES_WATCH", &watch)];
        let done = Command::new(SCRIPT).arg("start").envs(environment).output().unwrap();
        assert!(done.status.success(), "{SCRIPT} start failed: {}", String::from_utf8_lossy(&done.stderr));
        let said = String::from_utf8(done.stdout).unwrap();
        said.lines().find_map(|line| line.strip_prefix("BIFOLD_POSTGRES=")).unwrap().to_owned()
    };
    SHARED.get_or_init(start).clone()
}

impl Database {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = Self { url: server() };
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        server.sql(&format!("CREATE DATABASE {name}"));
        let (place, _) = server.url.rsplit_once('/').unwrap();
        Self { url: format!("{place}/{name}") }
    }

    /// What `psql` says to a statement.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"))
    }

    pub(crate) fn try_sql(&self, sql: &str) -> Result<String, String> {
        let done = Command::new("psql").args([&self.url, "-qAt", "-v", "ON_ERROR_STOP=1", "-c", sql]).output().unwrap();
        if done.status.success() {
            return Ok(String::from_utf8(done.stdout).unwrap().trim().to_owned());
        }
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// The rows of a table as objects, sorted as text; none while it is not there.
    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        let Ok(text) = self.try_sql(&format!("SELECT row_to_json(t) FROM {table} t")) else { return vec![] };
        let mut rows: Vec<String> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap().to_string()).collect();
        rows.sort();
        rows
    }
}
