//! `ingest STREAM FILE|-`: sends events in order, waits when the server is full, counts.

pub mod bodies;
pub mod feed;

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::StreamExt;
use schemas::PositionToken;
use schemas::freshness::IngestAnswer;
use serde_json::{Value, json};

use self::bodies::{Body, InputFormat, Unquoted};
use self::feed::Feed;
use super::Session;
use crate::arguments::IngestArguments;
use crate::client::Client;
use crate::exit::{Exit, Failure, fail};
use crate::output::{Format, grouped, note};
use crate::progress::{Progress, rate};

/// How long one body is offered to a server that says it is full.
const RETRY_MAX: Duration = Duration::from_mins(5);
/// The longest pause between two offers.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bad records that are named on stderr.
const ERRORS_SHOWN: usize = 5;

/// The sum of all answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events sent and answered.
    pub received: u64,
    /// Of those, new ones.
    pub accepted: u64,
    /// Of those, known ones.
    pub duplicates: u64,
    /// Of those, bad ones.
    pub quarantined: u64,
    /// Everything that was answered is below it: the largest offset of each partition over all answers.
    pub position: String,
}

impl Totals {
    /// Adds the answer to one body.
    pub fn add(&mut self, answer: &IngestAnswer) {
        self.received += answer.received;
        self.accepted += answer.accepted;
        self.duplicates += answer.duplicates;
        self.quarantined += answer.quarantined;
        self.position = joined(&self.position, &answer.position);
    }

    fn json(&self) -> Value {
        json!({
            "received": self.received,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "quarantined": self.quarantined,
            "position": self.position,
        })
    }
}

/// A position beyond both; the later one if they cannot be compared (none yet, a log made anew).
fn joined(before: &str, after: &str) -> String {
    match (before.parse::<PositionToken>(), after.parse::<PositionToken>()) {
        (Ok(old), Ok(new)) if old.incarnation == new.incarnation => {
            PositionToken { cut: old.cut.join(&new.cut), ..new }.to_string()
        }
        _ => after.to_owned(),
    }
}

pub(super) async fn ingest(session: &Session, options: &IngestArguments) -> anyhow::Result<()> {
    let sources = Sources::open(session, options).await?;
    if options.all_or_nothing {
        check_all(session, options, &sources).await?;
    }
    let mut progress = Progress::bytes(sources.size()?);
    let mut totals = Totals::default();
    let result = send_all(session, options, sources.feed()?, Mode::of(options), (&mut totals, &mut progress)).await;
    progress.finish();
    note(&summary(&totals, progress.elapsed()));
    result.with_context(|| {
        let so_far = grouped(totals.received);
        format!("stream {}: stopped after {so_far} events, which are durable", options.stream)
    })?;
    match session.output.format() {
        Format::Json | Format::Ndjson => session.output.document(&totals.json()),
        Format::Table | Format::Csv => Ok(()),
    }
}

/// The first of two passes: nothing is sent for good unless all of it fits.
async fn check_all(session: &Session, options: &IngestArguments, sources: &Sources) -> anyhow::Result<()> {
    let mut progress = Progress::bytes(sources.size()?);
    let mut totals = Totals::default();
    let result = send_all(session, options, sources.feed()?, Mode::Check, (&mut totals, &mut progress)).await;
    progress.finish();
    result?;
    if totals.quarantined > 0 {
        let (bad, all) = (grouped(totals.quarantined), grouped(totals.received));
        return fail(
            Exit::Failed,
            format!("stream {}: {bad} of {all} events do not fit; nothing was sent", options.stream),
        );
    }
    Ok(())
}

/// How the server takes the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bad ones go to the dead letters.
    Quarantine,
    /// A request with a bad one is refused.
    Strict,
    /// Nothing is written.
    Check,
}

impl Mode {
    fn of(options: &IngestArguments) -> Self {
        if options.all_or_nothing { Self::Strict } else { Self::Quarantine }
    }

    /// As the parameter `mode` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::Strict => "strict",
            Self::Check => "check",
        }
    }
}

/// The files of an import, in order.
struct Sources {
    files: Vec<(String, InputFormat)>,
    unquoted: Unquoted,
    batch_rows: u64,
}

impl Sources {
    async fn open(session: &Session, options: &IngestArguments) -> anyhow::Result<Self> {
        let with_format = |file: String| (options.format.unwrap_or_else(|| InputFormat::of(&file)), file);
        let files: Vec<_> = bodies::files(&options.file)?.into_iter().map(with_format).map(|(f, n)| (n, f)).collect();
        if options.all_or_nothing && options.file == "-" {
            return fail(Exit::Usage, "--all-or-nothing reads its input twice: name a file");
        }
        let is_csv = files.iter().any(|(_, format)| *format == InputFormat::Csv);
        let mut unquoted = Unquoted::new();
        if is_csv || options.all_or_nothing {
            let stream = session.client.get(&["v1", "streams", &options.stream]).await?;
            if options.all_or_nothing && stream["primary_key"].as_array().is_none_or(Vec::is_empty) {
                let text = format!(
                    "stream {}: has no primary key: an import that is cut short would count twice",
                    options.stream
                );
                return fail(Exit::Usage, text);
            }
            unquoted = unquoted_columns(&stream);
        }
        Ok(Self { files, unquoted, batch_rows: options.batch_rows })
    }

    /// Bytes of all files, if that is known.
    fn size(&self) -> anyhow::Result<Option<u64>> {
        let mut total = Some(0);
        for (name, format) in &self.files {
            let size = bodies::open(name, *format, &self.unquoted)?.size();
            total = total.zip(size).map(|(total, size)| total + size);
        }
        Ok(total)
    }

    fn feed(&self) -> anyhow::Result<Feed> {
        let mut inputs = vec![];
        for (name, format) in &self.files {
            inputs.push(bodies::open(name, *format, &self.unquoted)?);
        }
        let rows = self.batch_rows;
        let mut before = 0;
        Ok(Feed::start(inputs.into_iter().flat_map(move |input| {
            let start = before;
            before += input.size().unwrap_or(0);
            input.bodies(rows).map(move |body| body.map(|body| Body { read: start + body.read, ..body }))
        })))
    }
}

/// Booleans and JSON: their values may not stand in quotes.
fn unquoted_columns(stream: &Value) -> Unquoted {
    let columns = stream["columns"].as_array().into_iter().flatten();
    let is_bare = |name: &str| matches!(name, "BOOLEAN" | "JSONB" | "JSON") || name.ends_with("[]");
    let bare = columns.filter(|column| column["type"].as_str().is_some_and(is_bare));
    bare.filter_map(|column| column["name"].as_str().map(str::to_owned)).collect()
}

async fn send_all(
    session: &Session,
    options: &IngestArguments,
    mut feed: Feed,
    mode: Mode,
    (totals, progress): (&mut Totals, &mut Progress),
) -> anyhow::Result<()> {
    let in_flight = usize::try_from(options.in_flight)?;
    let bodies = futures::stream::poll_fn(|context| feed.poll_next(context));
    let send = |body: anyhow::Result<Body>| async {
        let body = body?;
        let answer = offer(&session.client, &options.stream, body.bytes, mode).await?;
        Ok::<_, anyhow::Error>((body.read, answer))
    };
    let mut answers = bodies.map(send).buffered(in_flight);
    let mut shown = 0;
    while let Some(answer) = answers.next().await {
        let (read, answer) = answer?;
        for error in answer.errors.iter().take(ERRORS_SHOWN - shown) {
            note(&format!("event {}: {}", totals.received + error.index + 1, error.message));
            shown += 1;
        }
        totals.add(&answer);
        let rate = rate(totals.received, progress.elapsed());
        progress.set(read, format!("{} events, {}/s", grouped(totals.received), grouped(rate)));
    }
    Ok(())
}

/// Sends one body; waits as long as a full server says, within bounds.
pub async fn offer(client: &Client, stream: &str, body: Bytes, mode: Mode) -> anyhow::Result<IngestAnswer> {
    let since = Instant::now();
    loop {
        let error = match client.ingest(stream, body.clone(), mode).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let pause = error.downcast_ref::<Failure>().and_then(|failure| failure.retry_after);
        match pause {
            Some(pause) if since.elapsed() < RETRY_MAX => tokio::time::sleep(pause.min(PAUSE_MAX)).await,
            Some(_) => return Err(error.context(format!("the server was full for {} s", RETRY_MAX.as_secs()))),
            None => return Err(error),
        }
    }
}

fn summary(totals: &Totals, elapsed: Duration) -> String {
    let mut text = format!(
        "{} received: {} accepted, {} duplicates, {} quarantined in {:.1} s ({} events/s)",
        grouped(totals.received),
        grouped(totals.accepted),
        grouped(totals.duplicates),
        grouped(totals.quarantined),
        elapsed.as_secs_f64(),
        grouped(rate(totals.received, elapsed)),
    );
    if !totals.position.is_empty() {
        text.push_str("\nposition ");
        text.push_str(&totals.position);
    }
    text
}

#[cfg(test)]
mod tests;
