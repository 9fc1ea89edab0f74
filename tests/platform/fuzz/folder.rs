//! A whole data folder with one stored document bent: the platform starts and answers, or says what is wrong.
//!
//! `damage.rs` damages bytes, which mostly makes a document unreadable. Here it stays JSON, with other values: another
//! cut, no partition, 2⁶⁰ of something. What has to hold: the start ends, nothing panics, memory is bounded. (What
//! numbers it then answers is not asked: nobody can tell a document that says something else from another truth.)
//!
//! An input is `<path in the folder>\n<the document>`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bifold::platform::Platform;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Target;
use super::mutate::Mutator;
use crate::harness::{Client, Server, config};

/// A start or a query that takes longer hangs.
const BOUND: Duration = Duration::from_secs(20);

pub(super) struct Folders {
    runtime: Runtime,
    whole: TempDir,
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
}

impl Folders {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let whole = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let server = Server::start(whole.path()).await;
            server
                .client
                .sql(
                    "CREATE STREAM s (id TEXT NOT NULL, k INT, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (id), \
                     WATERMARK FOR at AS at) WITH (partitions = 2);
                     CREATE MATERIALIZED VIEW v REFRESH EVERY INTERVAL '1 day' AS SELECT k, count(*) AS c FROM s GROUP BY k",
                )
                .await;
            for part in 0..3 {
                let line = |n: u32| json!({ "id": format!("{part}-{n}"), "k": n % 3, "at": "2024-01-01T00:00:00Z" });
                let lines: String = (0..50).map(|n| line(n).to_string() + "\n").collect();
                server.client.ingest("s", lines + "{\n").await;
                server.platform.checkpoint("s").await.unwrap();
                if part < 2 {
                    server.client.run("v").await;
                }
            }
            server.stop().await;
        });
        Self { runtime, whole }
    }
}

impl Target for Folders {
    /// Every JSON document of the folder.
    fn seeds(&self) -> Vec<Vec<u8>> {
        let folder = self.whole.path();
        let documents = files(folder).into_iter().filter(|file| file.extension().is_some_and(|end| end == "json"));
        let with_path = documents.map(|file| {
            let path = file.strip_prefix(folder).unwrap().display().to_string();
            [path.as_bytes(), &b"\n"[..], &std::fs::read(&file).unwrap()[..]].concat()
        });
        with_path.collect()
    }

    fn mutate(&self, mutator: &mut Mutator, input: &[u8], _: &[u8]) -> Vec<u8> {
        let Some(at) = input.iter().position(|byte| *byte == b'\n') else { return input.to_vec() };
        let (path, document) = (&input[..=at], &input[at + 1..]);
        let mutated = mutator.json(document, document).unwrap_or_else(|| mutator.bytes(document, document, &[]));
        [path, &mutated[..]].concat()
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        let text = String::from_utf8_lossy(input);
        let Some((path, document)) = text.split_once('\n') else { return Ok("nothing".into()) };
        // ids differ from session to session: a committed input means the newest document of its kind
        let stored = files(self.whole.path());
        let name = |file: &PathBuf| file.strip_prefix(self.whole.path()).unwrap().display().to_string();
        let exact = stored.iter().find(|file| name(file) == path);
        let target = exact.or_else(|| stored.iter().rev().find(|file| same_but_for_ids(&name(file), path)));
        let Some(target) = target else { return Ok("no such document".into()) };
        let folder = tempfile::tempdir().unwrap();
        copy(self.whole.path(), folder.path());
        std::fs::write(folder.path().join(target.strip_prefix(self.whole.path()).unwrap()), document).unwrap();
        self.runtime.block_on(look(folder.path()))
    }
}

/// Names are the same if they are so without hexadecimal digits and hyphens.
fn same_but_for_ids(a: &str, b: &str) -> bool {
    let without = |name: &str| -> String { name.chars().filter(|c| !c.is_ascii_hexdigit() && *c != '-').collect() };
    without(a) == without(b)
}

async fn look(folder: &Path) -> Result<String, String> {
    let started = tokio::time::timeout(BOUND, Platform::start(config(folder))).await;
    let platform = match started.map_err(|_| "a start that does not end")? {
        Ok(platform) => platform,
        Err(refused) => return Ok(format!("{refused:#}")),
    };
    let client = Client::new(platform.url(), platform.token());
    let mut answers = vec![];
    for sql in ["SELECT * FROM v", "SELECT * FROM system.views", "SELECT * FROM recon.v"] {
        let asked = client.request("POST", "/v1/sql").json(&json!({ "sql": sql })).send();
        let answer = tokio::time::timeout(BOUND, asked).await.map_err(|_| format!("{sql}: no answer"))?;
        let Ok(answer) = answer else { break };
        let body: serde_json::Value = answer.json().await.unwrap_or_default();
        answers.push(body["detail"].as_str().unwrap_or("answered").to_owned());
    }
    let stopped = tokio::time::timeout(BOUND, platform.stop()).await.map_err(|_| "a stop that does not end")?;
    answers.push(stopped.map_or_else(|reason| format!("{reason:#}"), |()| "stopped".into()));
    Ok(answers.join(" | "))
}
