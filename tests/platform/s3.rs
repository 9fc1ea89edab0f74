//! The platform on a real S3 server.
//!
//! Credentials come from the environment, which is one for the whole process: every test runs in a child process
//! (this test binary again) with a server of its own, which it may kill.

mod cases;
mod nodes;
mod slow;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use bifold::config::Config;
use rstest::rstest;
use tempfile::TempDir;

use crate::harness::config;

/// Tells this binary to be the child: the name of the case.
const CASE: &str = "BIFOLD_TEST_S3_CASE";
/// The variables that the server's script prints.
const FROM_SCRIPT: [&str; 7] = [
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "S3_BUCKET",
    "S3_LOG",
];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/components/s3.sh")
}

/// A server that ends with the test.
pub(crate) struct Server {
    port: u16,
    folder: TempDir,
    /// What a process needs to reach it.
    pub(crate) variables: BTreeMap<String, String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { port, folder: tempfile::tempdir().unwrap(), variables: BTreeMap::new() };
        let out = server.script("start");
        server.variables =
            out.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        for name in FROM_SCRIPT {
            assert!(server.variables.contains_key(name), "the script does not say {name}:\n{out}");
        }
        server
    }

    fn script(&self, what: &str) -> String {
        let told = Command::new(script()).arg(what).envs(self.place()).output().unwrap();
        let (out, error) = (String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap());
        assert!(told.status.success(), "no S3 server: infra/components/s3.sh install needs go and curl\n{error}");
        out
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        self.script("kill");
    }

    pub(crate) fn start_again(&self) {
        self.script("start");
    }

    /// A place in its bucket.
    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.variables["S3_BUCKET"])
    }

    fn place(&self) -> [(&'static str, String); 2] {
        [("S3_PORT", self.port.to_string()), ("S3_DIR", self.folder.path().display().to_string())]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("wipe").envs(self.place()).output();
    }
}

#[rstest]
#[case::store("store_conforms")]
#[case::first_use("first_use_and_restart")]
#[case::owner("second_owner_is_refused")]
#[case::race("of_two_starts_at_once_one_owns")]
#[case::lost_log("lost_data_folder_is_refused")]
#[case::overtaken("overtaken_owner_stops")]
#[case::killed_server("killed_server_loses_and_doubles_nothing")]
#[case::failing_server("failing_server_is_survived")]
#[case::stopped_server("stopped_server_ends_in_refusal_and_is_survived")]
#[case::cache("cache_spares_reads_and_is_never_believed_blindly")]
#[case::nodes("every_node_answers_the_same")]
#[case::lonely_node("node_without_its_owner_says_so")]
#[case::missing_bucket("missing_bucket_is_named")]
fn on_a_real_server(#[case] name: &str) {
    let server = Server::start();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "s3::child", "--nocapture"])
        .env(CASE, name)
        .envs(server.place())
        .envs(&server.variables)
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    let log = std::fs::read_to_string(&server.variables["S3_LOG"]).unwrap_or_default();
    let tail: String = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
    assert!(child.status.success(), "{name}\n{error}\n{out}\nthe server's log ends:\n{tail}");
    assert!(out.contains(&format!("case {name} passed")), "the case did not run:\n{out}");
}

/// Not a test of its own: what the child process runs.
#[test]
#[expect(clippy::print_stdout, reason = "the parent looks for the last line")]
fn child() {
    let Ok(case) = std::env::var(CASE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match case.as_str() {
            "store_conforms" => cases::store_conforms().await,
            "first_use_and_restart" => cases::first_use_and_restart().await,
            "second_owner_is_refused" => cases::second_owner_is_refused().await,
            "of_two_starts_at_once_one_owns" => cases::of_two_starts_at_once_one_owns().await,
            "lost_data_folder_is_refused" => cases::lost_data_folder_is_refused().await,
            "overtaken_owner_stops" => cases::overtaken_owner_stops().await,
            "killed_server_loses_and_doubles_nothing" => cases::killed_server_loses_and_doubles_nothing().await,
            "failing_server_is_survived" => cases::failing_server_is_survived().await,
            "stopped_server_ends_in_refusal_and_is_survived" => {
                slow::stopped_server_ends_in_refusal_and_is_survived().await;
            }
            "cache_spares_reads_and_is_never_believed_blindly" => nodes::cache_spares_reads().await,
            "every_node_answers_the_same" => nodes::every_node_answers_the_same().await,
            "node_without_its_owner_says_so" => nodes::node_without_its_owner_says_so().await,
            "missing_bucket_is_named" => cases::missing_bucket_is_named().await,
            other => panic!("no case {other}"),
        }
    });
    println!("case {case} passed");
}

/// The store of a child.
fn url() -> String {
    format!("s3://{}/some/where", std::env::var("S3_BUCKET").unwrap())
}

/// Configuration of a platform on the child's store.
fn on_s3(folder: &Path) -> Config {
    Config { store_url: Some(url()), ..config(folder) }
}

/// Starts or kills the child's server.
fn server(command: &'static str) {
    let told = Command::new(script()).arg(command).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

async fn server_in_background(command: &'static str) {
    tokio::task::spawn_blocking(move || server(command)).await.unwrap();
}
