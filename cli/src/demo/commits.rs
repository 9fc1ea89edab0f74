//! The demos on commits: a file in the shape of `data/README.md`, or the history of a git repository.

use std::path::Path;

use super::git;
use super::scenario::{Events, Scenario, View};
use crate::commands::ingest::bodies::{Body, InputFormat, Unquoted, open};
use crate::exit::{Exit, fail};
use crate::output::grouped;

const BODY_ROWS: u64 = 5_000;
/// One partition, so that what counts as late does not depend on a hash of the ids.
const CREATE_STREAM: &str = "\
CREATE STREAM commits (
  id TEXT NOT NULL, repo TEXT, author TEXT, event_time TIMESTAMPTZ NOT NULL,
  arrived_at TIMESTAMPTZ, files INT, area TEXT,
  PRIMARY KEY (id),
  WATERMARK FOR event_time AS event_time - INTERVAL '1 hour'
) WITH (partitions = 1)";

/// A file of commits, plain or packed.
pub(super) fn of_file(path: &Path) -> anyhow::Result<Scenario> {
    let input = open(&path.display().to_string(), InputFormat::Json, &Unquoted::new())?;
    let size = input.size().unwrap_or(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(scenario(format!("the commits in {name}, in order of arrival"), Box::new(input.bodies(BODY_ROWS)), size))
}

/// The history of a repository; reads all of it first, because arrival is not the order of `git log`.
pub(super) fn of_repository(path: &Path) -> anyhow::Result<Scenario> {
    let history = git::history(path)?;
    if history.lines.is_empty() {
        return fail(Exit::Usage, format!("{}: this repository has no commits", path.display()));
    }
    let total = history.lines.len() as u64;
    let title = format!("{} commits of {}, in order of arrival", grouped(total), history.repository);
    Ok(scenario(title, Box::new(bodies(history.lines)), total))
}

fn bodies(lines: Vec<String>) -> impl Iterator<Item = std::io::Result<Body>> + Send {
    let mut rest = lines.into_iter();
    let mut read = 0;
    std::iter::from_fn(move || {
        let some: Vec<String> = rest.by_ref().take(BODY_ROWS as usize).collect();
        let rows = some.len() as u64;
        read += rows;
        (rows > 0).then(|| Ok(Body { bytes: some.concat().into(), rows, read }))
    })
}

fn scenario(title: String, events: Events, size: u64) -> Scenario {
    Scenario {
        title,
        stream: "commits",
        create_stream: CREATE_STREAM.to_owned(),
        views: vec![
            view("commits_per_day", "1 day", ""),
            view("commits_per_hour", "1 hour", ""),
            view("commits_per_week", "7 days", ""),
        ],
        twin: view("commits_per_day_on_time", "1 day", " WITH (late = 'drop')"),
        count: "commits",
        show: "SELECT repo, sum(commits) AS commits, sum(files) AS files, count(*) AS days\n\
               FROM commits_per_day GROUP BY repo ORDER BY commits DESC, repo LIMIT 10"
            .to_owned(),
        events,
        size,
        truth: None,
    }
}

fn view(name: &'static str, window: &str, options: &str) -> View {
    let create = format!(
        "CREATE MATERIALIZED VIEW {name} REFRESH MANUAL{options} AS\n\
         SELECT repo, window_start, count(*) AS commits, sum(files) AS files, approx_distinct(author) AS authors\n\
         FROM TUMBLE(commits, event_time, INTERVAL '{window}')\n\
         GROUP BY repo, window_start"
    );
    View { name, create }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_sql_is_bifolds() {
        let scenario = scenario(String::new(), Box::new(std::iter::empty()), 0);
        for view in scenario.views.iter().chain([&scenario.twin]) {
            assert_eq!(schemas::statement::parse_script(&view.create).unwrap().len(), 1);
        }
        assert_eq!(schemas::statement::parse_script(&scenario.create_stream).unwrap().len(), 1);
    }
}
