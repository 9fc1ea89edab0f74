//! Where the story is told: prints, sends, asks, and holds every answer against what must come out.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::scenario::Scenario;
use crate::client::{Client, RunAnswer, SqlAnswer, SqlRequest};
use crate::commands::ingest::feed::Feed;
use crate::commands::ingest::{Mode, Totals, offer};
use crate::commands::run::{check, wait_for};
use crate::exit::{Exit, fail};
use crate::output::{Tone, freshness_line, grouped, paint, text};

/// Longer than any run of a demo; a bound, not a wait.
const RUN_MAX: Duration = Duration::from_mins(10);

/// The teller's means.
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) stream: &'static str,
    pub(super) count: &'static str,
    feed: Feed,
    size: u64,
    read: u64,
    /// Of all events sent so far.
    pub(super) totals: Totals,
    /// Spent in ingest requests.
    pub(super) sending: Duration,
    beat: u32,
}

impl Stage {
    pub(super) fn new(client: Client, scenario: Scenario) -> Self {
        Self {
            client,
            stream: scenario.stream,
            count: scenario.count,
            feed: Feed::start(scenario.events),
            size: scenario.size,
            read: 0,
            totals: Totals::default(),
            sending: Duration::ZERO,
            beat: 0,
        }
    }

    /// Begins a part of the story.
    pub(super) fn beat(&mut self, title: &str) -> anyhow::Result<()> {
        self.beat += 1;
        say(&format!("\n{}", paint(Tone::Bold, &format!("{}  {title}", self.beat))))
    }

    /// Runs a statement and shows it.
    pub(super) async fn run_sql(&self, sql: &str) -> anyhow::Result<SqlAnswer> {
        show_sql(sql)?;
        self.ask(sql).await
    }

    /// Runs a statement; the answer includes every event that was sent, unless it asks for the batch view
    /// alone: that one ends at its cut.
    pub(super) async fn ask(&self, sql: &str) -> anyhow::Result<SqlAnswer> {
        let is_possible = !self.totals.position.is_empty() && !sql.contains("FROM batch.");
        let at_least = is_possible.then(|| self.totals.position.clone());
        self.client.sql(&SqlRequest { at_least, ..SqlRequest::new(sql) }).await.with_context(|| sql.to_owned())
    }

    /// How many events and cells a view has.
    pub(super) async fn count(&self, view: &str) -> anyhow::Result<(i128, i128, SqlAnswer)> {
        let sql = format!("SELECT sum({}) AS events, count(*) AS cells FROM {view}", self.count);
        let answer = self.ask(&sql).await?;
        Ok((answer.integer("events")?, answer.integer("cells")?, answer))
    }

    /// Sends the next body; false at the end.
    pub(super) async fn send_next(&mut self) -> anyhow::Result<bool> {
        let Some(body) = self.feed.next().await? else { return Ok(false) };
        let since = Instant::now();
        let answer = offer(&self.client, self.stream, body.bytes, Mode::Quarantine).await?;
        self.sending += since.elapsed();
        self.totals.add(&answer);
        self.read = body.read;
        Ok(true)
    }

    /// The share of the input that was sent, 0 to 1.
    pub(super) fn share(&self) -> f64 {
        if self.size == 0 { 1.0 } else { self.read as f64 / self.size as f64 }
    }

    /// Starts a run and waits for its end.
    pub(super) async fn run_view(&self, view: &str) -> anyhow::Result<RunAnswer> {
        let id = self.client.start_run(view).await?;
        await_run(&self.client, id).await
    }
}

/// Waits for the end of a run and refuses one that did not succeed.
pub(super) async fn await_run(client: &Client, id: u64) -> anyhow::Result<RunAnswer> {
    let waited = tokio::time::timeout(RUN_MAX, wait_for(client, id, &mut |_| ())).await;
    let run = waited.with_context(|| format!("run {id} has not ended after {} s", RUN_MAX.as_secs()))??;
    check(&run)?;
    Ok(run)
}

/// Prints a line.
pub(super) fn say(line: &str) -> anyhow::Result<()> {
    text(&format!("{line}\n"))
}

/// Prints a statement, indented.
pub(super) fn show_sql(sql: &str) -> anyhow::Result<()> {
    let lines: Vec<String> = sql.lines().map(|line| format!("   {}", paint(Tone::Dim, line))).collect();
    say(&format!("{};", lines.join("\n")))
}

/// One line about what an answer was made from.
pub(super) fn freshness_text(answer: &SqlAnswer) -> String {
    let views = answer.freshness.iter().flat_map(|freshness| &freshness.views);
    views.map(freshness_line).collect::<Vec<_>>().join("; ")
}

/// One line about a run.
pub(super) fn run_text(run: &RunAnswer) -> String {
    let verdict = run.verdict.as_deref().unwrap_or("no certificate").to_uppercase();
    format!(
        "run {} of {}: {} records, {} rows/s, certificate {}",
        run.id,
        run.view,
        grouped(run.rows),
        grouped(run.rows_per_second as u64),
        paint(if verdict == "VIOLATION" { Tone::Bad } else { Tone::Good }, &verdict)
    )
}

/// Goes on only if both are equal.
pub(super) fn expect_equal(what: &str, found: i128, expected: i128) -> anyhow::Result<()> {
    if found == expected {
        return Ok(());
    }
    fail(Exit::CheckFailed, format!("{what}: expected {expected}, found {found}"))
}

/// Goes on only if the certificate says so.
pub(super) fn expect_verdict(certificate: &Value, allowed: &[&str]) -> anyhow::Result<()> {
    let verdict = certificate.get("verdict").and_then(Value::as_str).unwrap_or("none");
    if allowed.contains(&verdict) {
        return Ok(());
    }
    let view = certificate.get("view").and_then(Value::as_str).unwrap_or_default();
    fail(
        Exit::CheckFailed,
        format!("view {view}: expected a certificate that is {}, found {verdict}", allowed.join(" or ")),
    )
}
