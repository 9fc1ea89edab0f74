//! The history of a git repository as events: written at the author's date, arrived at the committer's.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::exit::{Exit, fail};

/// Begins the line of a commit; file names cannot contain it unquoted.
const MARK: char = '\u{1e}';
const SEPARATOR: char = '\u{1f}';

/// Commits as lines of NDJSON, sorted by arrival.
pub(super) struct History {
    pub(super) repository: String,
    pub(super) lines: Vec<String>,
}

/// Reads all branches of a repository with `git log`.
pub(super) fn history(path: &Path) -> anyhow::Result<History> {
    let repository = name(path);
    let mut child = Command::new("git")
        .arg("-C")
        .arg(path)
        .args(["-c", "core.quotePath=true", "log", "--all", "--date-order", "--reverse", "--no-renames", "--name-only"])
        .arg("--format=%x1e%H%x1f%ae%x1f%aI%x1f%cI")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting git")?;
    let output = child.stdout.take().context("git has no output")?;
    let commits = commits(BufReader::new(output), &repository)?;
    let mut complaint = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut complaint)?;
    }
    if !child.wait()?.success() {
        return fail(Exit::Usage, format!("{}: {}", path.display(), complaint.trim()));
    }
    Ok(History { repository, lines: by_arrival(commits) })
}

fn name(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(|| "repository".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Lines of NDJSON; commits of the same second stay in git's order, parents first.
fn by_arrival(mut commits: Vec<(DateTime<Utc>, String)>) -> Vec<String> {
    commits.sort_by_key(|(arrived, _)| *arrived);
    commits.into_iter().map(|(_, line)| line).collect()
}

/// A commit that is being read.
struct Commit {
    id: String,
    author: String,
    written: DateTime<Utc>,
    arrived: DateTime<Utc>,
    files: u64,
    areas: BTreeMap<String, u64>,
}

impl Commit {
    /// From the line that git was told to write; none if its dates are beyond what a date can be.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.strip_prefix(MARK)?.split(SEPARATOR);
        let (hash, email) = (parts.next()?, parts.next()?);
        let mut date = || DateTime::parse_from_rfc3339(parts.next()?).ok().map(|date| date.to_utc());
        let (written, arrived) = (date()?, date()?);
        Some(Self {
            id: hash.chars().take(16).collect(),
            author: format!("{:012x}", xxh3_64(email.to_lowercase().as_bytes()) >> 16),
            written,
            arrived,
            files: 0,
            areas: BTreeMap::new(),
        })
    }

    fn add_file(&mut self, path: &str) {
        let area = path.trim_start_matches('"').split('/').next().unwrap_or_default();
        self.files += 1;
        *self.areas.entry(area.to_owned()).or_default() += 1;
    }

    /// The line, with the area that was touched most (of several, the first by name).
    fn finish(self, repository: &str) -> (DateTime<Utc>, String) {
        let area = self.areas.iter().rev().max_by_key(|(_, files)| **files).map(|(area, _)| area);
        let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let event = json!({
            "id": self.id, "repo": repository, "author": self.author,
            "event_time": text(self.written), "arrived_at": text(self.arrived),
            "files": self.files, "area": area,
        });
        (self.arrived, format!("{event}\n"))
    }
}

fn commits(mut log: impl BufRead, repository: &str) -> anyhow::Result<Vec<(DateTime<Utc>, String)>> {
    let (mut all, mut current, mut line) = (vec![], None::<Commit>, vec![]);
    while log.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if text.starts_with(MARK) {
            all.extend(current.take().map(|commit| commit.finish(repository)));
            current = Commit::parse(text);
        } else if let Some(commit) = current.as_mut().filter(|_| !text.is_empty()) {
            commit.add_file(text);
        }
        line.clear();
    }
    all.extend(current.map(|commit| commit.finish(repository)));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const LOG: &str = "\u{1e}aaaaaaaaaaaaaaaaaaaa\u{1f}A@x\u{1f}2026-01-02T00:00:00+02:00\u{1f}2026-01-05T00:00:00Z\n\n\
                       src/a.rs\nsrc/b.rs\nREADME.md\n\
                       \u{1e}bbbb\u{1f}a@X\u{1f}2026-01-03T00:00:00Z\u{1f}2026-01-04T00:00:00Z\n\
                       \u{1e}cccc\u{1f}c@x\u{1f}never\u{1f}2026-01-04T00:00:00Z\n\nlost.txt\n";

    #[test]
    fn commits_arrive_at_the_committers_date_and_happened_at_the_authors() {
        let lines = by_arrival(commits(LOG.as_bytes(), "r").unwrap());
        let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len(), 2, "the one without a date is left out");
        assert_eq!((events[0]["id"].as_str(), events[0]["area"].is_null()), (Some("bbbb"), true));
        assert_eq!(events[1]["id"], "aaaaaaaaaaaaaaaa");
        assert_eq!(events[1]["event_time"], "2026-01-01T22:00:00Z");
        assert_eq!((events[1]["files"].as_u64(), events[1]["area"].as_str()), (Some(3), Some("src")));
        assert_eq!(events[0]["author"], events[1]["author"], "addresses are compared without case");
    }

    #[test]
    fn folder_without_a_repository_is_a_usage_error() {
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = history(folder.path()) else { panic!("read") };
        assert_eq!(crate::exit::code(&error), Exit::Usage);
    }
}
