//! A platform in a child process with limits of the test's.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use schemas::Limits;

use crate::harness::{Client, PATIENCE, config};

/// Tells this binary to be the child: the data folder.
const FOLDER: &str = "BIFOLD_TEST_PRESSURE";
/// Its limits, as JSON.
const LIMITS: &str = "BIFOLD_TEST_LIMITS";

/// Not a test of its own: what the child process runs.
#[test]
fn platform() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = config(Path::new(&folder));
        config.limits = serde_json::from_str(&std::env::var(LIMITS).unwrap()).unwrap();
        let platform = bifold::platform::Platform::start(config).await.unwrap();
        platform.wait().await.unwrap();
    });
}

pub(super) struct Running {
    child: Child,
    pub(super) client: Client,
}

impl Running {
    #[expect(clippy::zombie_processes, reason = "killed and waited for in `kill`; a failing test ends the process")]
    pub(super) async fn start(folder: &Path, limits: &Limits) -> Self {
        let _ = std::fs::remove_file(folder.join("endpoint"));
        // a write past a limit on the size of files is to fail, not to end the process
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "pressure::child::platform", "--nocapture"])
            .env(FOLDER, folder)
            .env(LIMITS, serde_json::to_string(limits).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        loop {
            let endpoint = std::fs::read_to_string(folder.join("endpoint")).unwrap_or_default();
            if !endpoint.is_empty() {
                let token = std::fs::read_to_string(folder.join("admin-token")).unwrap();
                let client = Client::new(endpoint.trim(), token.trim());
                if client.request("GET", "/readyz").send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return Self { child, client };
                }
            }
            assert!(begun.elapsed() < PATIENCE, "the child did not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// MiB of memory: at the moment, and at most so far.
    pub(super) fn memory_mib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// From now on a file of the child may have so many bytes; none for any number.
    pub(super) fn limit_files(&self, bytes: Option<u64>) {
        let bytes = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let told = Command::new("prlimit")
            .arg(format!("--pid={}", self.child.id()))
            .arg(format!("--fsize={bytes}:unlimited"))
            .output()
            .expect("prlimit, of util-linux");
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }

    pub(super) fn kill(self) {
        drop(self);
    }
}

impl Drop for Running {
    /// A failing test, too, leaves nothing behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
