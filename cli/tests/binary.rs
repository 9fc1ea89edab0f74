//! The built binary on a file of commits: what `zstd -dc FILE | bifold ingest commits -` and
//! `bifold demo --data FILE` come to. The real data lies beside the project, on some machines; a file of
//! the same shape, whose figures are counted while it is made, is there always.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use chrono::DateTime;
use serde_json::{Value, json};

/// Waits are bounded by this.
const PATIENCE: Duration = Duration::from_mins(2);
/// 137,512 real commits.
const REAL: &str = "../../shared/data/commits.ndjson.zst";
/// Views of the example and of the demo, and the seconds of their windows.
const VIEWS: [(&str, i64); 3] =
    [("commits_per_hour", 3_600), ("commits_per_day", 86_400), ("commits_per_week", 604_800)];

/// A packed file, and what must come out of it.
struct Commits {
    packed: PathBuf,
    events: u64,
    /// Of [`VIEWS`].
    cells: [u64; 3],
}

/// The real data; none where it is not.
fn real() -> Option<Commits> {
    let packed = PathBuf::from(REAL);
    if packed.exists() { Some(Commits { packed, events: 137_512, cells: [86_425, 20_453, 3_918] }) } else { None }
}

/// Commits that arrive up to three weeks late, of a few repositories over some months.
fn made(folder: &Path) -> Commits {
    const EVENTS: u64 = 6_000;
    let mut text = String::new();
    let mut cells = [const { BTreeSet::new() }; 3];
    for number in 0..EVENTS {
        let noise = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let arrived = 1_400_000_000 + number as i64 * 1_500;
        let time = arrived - (noise % 7 / 6 * (noise % 1_814_400)) as i64;
        let repo = format!("made/repo-{}", noise % 5);
        for (cells, (_, seconds)) in cells.iter_mut().zip(VIEWS) {
            cells.insert((repo.clone(), time.div_euclid(seconds)));
        }
        let stamp = |seconds| DateTime::from_timestamp(seconds, 0).unwrap().to_rfc3339();
        let event = json!({
            "id": format!("{number:016x}"),
            "repo": repo,
            "author": format!("{:x}", noise % 97),
            "event_time": stamp(time),
            "arrived_at": stamp(arrived),
            "files": noise % 40,
            "area": if noise % 11 == 0 { Value::Null } else { json!("src") },
        });
        writeln!(text, "{event}").unwrap();
    }
    let packed = folder.join("made.ndjson.zst");
    std::fs::write(&packed, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    Commits { packed, events: EVENTS, cells: cells.map(|cells| cells.len() as u64) }
}

fn bifold(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bifold"));
    // nothing of the developer's own settings
    command.env_remove("BIFOLD_URL").env_remove("BIFOLD_TOKEN").current_dir(folder);
    command
}

/// `bifold`, which is `bifold serve`, in a folder of its own.
struct Server {
    child: Child,
    folder: PathBuf,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut command = bifold(folder);
        let child = command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self { child: child.spawn().unwrap(), folder: folder.to_owned() };
        let begun = Instant::now();
        while !folder.join("bifold-data/endpoint").exists() {
            assert!(server.child.try_wait().unwrap().is_none(), "the server has ended");
            assert!(begun.elapsed() < PATIENCE, "the server did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn run(&self, arguments: &[&str], input: Option<Vec<u8>>) -> Output {
        let mut command = bifold(&self.folder);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&input.unwrap_or_default()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "bifold {arguments:?}: {:?}: {said}", output.status);
        output
    }

    fn json(&self, arguments: &[&str], input: Option<Vec<u8>>) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat(), input);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ingested_through_a_pipe(commits: &Commits) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let script = std::fs::canonicalize("../schemas/examples/commits.sql").unwrap();
    server.run(&["apply", script.to_str().unwrap()], None);
    let plain = zstd::decode_all(std::fs::File::open(&commits.packed).unwrap()).unwrap();
    let told = server.json(&["ingest", "commits", "-"], Some(plain.clone()));
    let counts = ["received", "accepted", "duplicates", "quarantined"].map(|word| told[word].as_u64().unwrap());
    assert_eq!(counts, [commits.events, commits.events, 0, 0], "{told}");
    // before its first run a view is all speed, then it is all batch: the cells are the same
    for round in 0..2 {
        for ((view, _), cells) in VIEWS.into_iter().zip(commits.cells) {
            let sql = format!("SELECT count(*) AS cells, sum(commits) AS commits FROM {view}");
            let answer = server.json(&["sql", "-c", &sql], None);
            assert_eq!(answer["rows"], json!([[cells, commits.events]]), "{view}, round {round}: {answer}");
            server.run(&["run", view, "--wait"], None);
            server.run(&["reconcile", view], None);
        }
    }
    let again = server.json(&["ingest", "commits", "-"], Some(plain));
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(commits.events)), "{again}");
}

fn told_by_the_demo(commits: &Commits) {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::canonicalize(&commits.packed).unwrap();
    let output = bifold(folder.path()).args(["demo", "--data", file.to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    for ((view, _), cells) in VIEWS.into_iter().zip(commits.cells) {
        let line = format!("{view}: {} events in {} cells", grouped(commits.events), grouped(cells));
        assert!(told.contains(&line), "{line}\n{told}");
    }
    assert!(!told.contains("did not fit"), "nothing is quarantined: {told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demo leaves nothing behind");
}

/// 86425 → 86,425
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    groups.iter().map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(",")
}

#[test]
fn made_commits_come_through_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    ingested_through_a_pipe(&made(folder.path()));
}

#[test]
fn made_commits_are_told_by_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    told_by_the_demo(&made(folder.path()));
}

/// Issue "The main path": 137,512 accepted, 0 quarantined, 86,425, 20,453 and 3,918 cells.
#[test]
fn real_commits_come_through_a_pipe() {
    real().iter().for_each(ingested_through_a_pipe);
}

#[test]
fn real_commits_are_told_by_the_demo() {
    real().iter().for_each(told_by_the_demo);
}
