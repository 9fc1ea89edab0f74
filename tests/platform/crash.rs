//! `kill -9` at any moment: every acknowledged event is there once, in the log, the master, the views.
//! The platform runs in a child process that is killed at random points of ingest, checkpoint, landing, run and
//! publication: this test binary again, or the one that `BIFOLD_TEST_BINARY` names (`infra/kills.sh` names a release
//! build).

mod imports;
mod kills;
mod oracle;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::harness::{Client, PATIENCE};

/// Tells this binary to be the child: the words of its command line, one a line.
const CHILD: &str = "BIFOLD_TEST_CHILD";
/// The binary that is started and killed instead of this one.
const BINARY: &str = "BIFOLD_TEST_BINARY";
/// What the child writes to stderr, in its data folder.
const MESSAGES: &str = "messages";
/// Short lives pass many checkpoints, landings and segments.
const SETTINGS: [(&str, &str); 4] = [
    ("BIFOLD__LIMITS__CHECKPOINT_INTERVAL_MS", "15"),
    ("BIFOLD__LIMITS__LANDING_INTERVAL_MS", "40"),
    ("BIFOLD__LIMITS__LOG_SEGMENT_BYTES", "200000"),
    ("BIFOLD__LOG__LEVEL", "warn"),
];

/// Not a test of its own: what the child process runs.
#[test]
fn child() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let arguments = bifold::arguments::Arguments::parse_from(["bifold"].into_iter().chain(words.lines()));
    runtime.block_on(bifold::commands::dispatch(arguments)).unwrap();
}

/// A number of the environment, for `infra/kills.sh`; what the suite takes without it.
pub(crate) fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A platform in a process of its own.
pub(crate) struct Running {
    child: Arc<Mutex<Child>>,
    pub(crate) client: Client,
    /// From the start of the process until it let requests in.
    started_in: Duration,
}

impl Running {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// [`Running::start`] with more variables for the process.
    pub(crate) async fn start_with(folder: &Path, variables: &[(String, String)]) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let _ = std::fs::remove_file(folder.join("endpoint"));
        let begun = Instant::now();
        let mut child = spawn(folder, variables);
        loop {
            let endpoint = std::fs::read_to_string(folder.join("endpoint")).unwrap_or_default();
            if !endpoint.is_empty() {
                let token = std::fs::read_to_string(folder.join("admin-token")).unwrap();
                let client = Client::new(endpoint.trim(), token.trim());
                if client.request("GET", "/readyz").send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return Self { child: Arc::new(Mutex::new(child)), client, started_in: begun.elapsed() };
                }
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "the child did not start:\n{}", messages(folder));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn kill(self) {
        self.killer()();
    }

    /// Kills it from another thread.
    fn killer(&self) -> impl FnOnce() + Send + use<> {
        let child = Arc::clone(&self.child);
        move || {
            let mut child = child.lock().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.child.lock().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &process]).status().unwrap().success());
    }

    fn has_ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }
}

/// `bifold` with these words, as a process to be.
fn bifold(words: &[&str]) -> Command {
    if let Some(binary) = std::env::var_os(BINARY) {
        let mut command = Command::new(binary);
        command.args(words);
        return command;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::child", "--nocapture"]).env(CHILD, words.join("\n"));
    command
}

fn spawn(folder: &Path, variables: &[(String, String)]) -> Child {
    let folder_name = folder.to_str().unwrap();
    let mut command = bifold(&["serve", "--listen", "127.0.0.1:0", "--data-dir", folder_name]);
    let messages = File::options().create(true).append(true).open(folder.join(MESSAGES)).unwrap();
    let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    command.envs(SETTINGS.into_iter().chain(variables)).stdout(Stdio::null()).stderr(messages).spawn().unwrap()
}

/// The end of what the children of a folder have said.
fn messages(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join(MESSAGES)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
