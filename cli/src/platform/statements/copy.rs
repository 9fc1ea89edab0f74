//! `COPY stream FROM 'file'`: all of it or nothing, once however often it is asked for (R-094).
//!
//! ```text
//!  check   every event of every file is decoded; one that does not fit refuses the import, nothing is written
//!  import  body after body through the door of every other event; after each, a document says how far it is
//!  again   the same content: goes on behind what the document says, or says that it is done
//! ```
//! See `docs/adr/0012-imports.md` for what this is and is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ingest::service::{IngestOptions, IngestService, Payload};
use schemas::freshness::IngestAnswer;
use schemas::statement::{CopyFormat, CopyFrom, ObjectKind};
use schemas::{Code, ColumnDef, Problem, SqlType, StreamDef};
use serde::{Deserialize, Serialize};
use serving::parts::StatementAnswer;
use storage::{StorageError, paths};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::Xxh3;

use super::super::registry::Registry;
use super::show::unknown;
use super::{StatementService, message};
use crate::commands::ingest::bodies::{self, Body, InputFormat, Unquoted};
use crate::commands::ingest::feed::Feed;

/// Events of one body. Part of what an import document means: it is never changed.
const BODY_ROWS: u64 = 10_000;
/// The longest pause before a full server is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long one body waits in all.
const RETRY_MAX: Duration = Duration::from_mins(5);

/// How far an import is. Stored under the hash of its content.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct ImportDocument {
    /// Format of this document: 1.
    format: u32,
    /// As it was named the first time.
    file: String,
    /// Events of all files.
    rows: u64,
    /// Events that are in the log.
    rows_done: u64,
    /// Of those, new ones.
    accepted: u64,
    /// Of those, known ones.
    duplicates: u64,
    /// When this was written, microseconds.
    updated_at_us: i64,
}

/// The files of an import, in order.
#[derive(Clone)]
struct Files {
    names: Vec<String>,
    format: Option<InputFormat>,
    unquoted: Unquoted,
}

impl Files {
    fn feed(&self) -> Result<Feed, Problem> {
        let format = |name: &str| self.format.unwrap_or_else(|| InputFormat::of(name));
        let open = |name: &String| bodies::open(name, format(name), &self.unquoted);
        let inputs: anyhow::Result<Vec<_>> = self.names.iter().map(open).collect();
        let inputs = inputs.map_err(|error| unreadable(&error))?;
        Ok(Feed::start(inputs.into_iter().flat_map(|input| input.bodies(BODY_ROWS))))
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::BadRequest, format!("COPY: {error:#}"))
}

impl StatementService {
    /// Imports files of the import folder. Longer than a query may take, it goes on by itself.
    pub(super) async fn copy(&self, copy: &CopyFrom) -> Result<StatementAnswer, Problem> {
        let catalog = self.registry.parts.catalog.current();
        let stream = catalog.stream(&copy.stream);
        let stream = stream.ok_or_else(|| unknown(&catalog, ObjectKind::Stream, &copy.stream))?;
        if stream.primary_key.is_empty() {
            let name = &stream.name;
            let detail = format!("stream {name}: has no primary key: an import that is cut short would count twice");
            let problem = Problem::new(Code::Unsupported, detail);
            return Err(problem.with_hint("declare PRIMARY KEY, or send it with `bifold ingest`"));
        }
        let files = self.importer.files_of(copy, stream)?;
        let (importer, stream, file) = (Arc::clone(&self.importer), stream.clone(), copy.file.clone());
        let work = self.importer.tasks.spawn(async move { importer.import(&stream, &file, &files).await });
        let patience = Duration::from_millis(self.registry.parts.limits.query_timeout_ms);
        match tokio::time::timeout(patience, work).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(Problem::new(Code::Internal, format!("COPY: {error}"))),
            Err(_) => Ok(message(format!("the import of {} goes on: the same COPY waits for its end", copy.file))),
        }
    }
}

/// Imports, one after the other.
pub(super) struct Importer {
    registry: Arc<Registry>,
    ingest: Arc<IngestService>,
    /// The server is stopping.
    stop: CancellationToken,
    importing: Mutex<()>,
    /// Imports go on when their client goes away.
    tasks: TaskTracker,
}

impl Importer {
    pub(super) fn new(registry: Arc<Registry>, ingest: Arc<IngestService>, stop: CancellationToken) -> Arc<Self> {
        let (importing, tasks) = (Mutex::new(()), TaskTracker::new());
        Arc::new(Self { registry, ingest, stop, importing, tasks })
    }

    fn files_of(&self, copy: &CopyFrom, stream: &StreamDef) -> Result<Files, Problem> {
        let path = import_path(self.registry.parts.folder.import_folder(), &copy.file)?;
        let names = bodies::files(&path.to_string_lossy()).map_err(|error| unreadable(&error))?;
        let is_bare = |c: &&ColumnDef| matches!(c.sql_type, SqlType::Boolean | SqlType::Json | SqlType::Array(_));
        let bare = stream.columns.iter().filter(is_bare);
        let format = copy.format.map(|format| match format {
            CopyFormat::Json => InputFormat::Json,
            CopyFormat::Csv => InputFormat::Csv,
            CopyFormat::Parquet => InputFormat::Parquet,
        });
        Ok(Files { names, format, unquoted: bare.map(|column| column.name.clone()).collect() })
    }

    async fn import(&self, stream: &StreamDef, file: &str, files: &Files) -> Result<StatementAnswer, Problem> {
        let _one_at_a_time = self.importing.lock().await;
        let (rows, content) = self.check_files(stream, file, files).await?;
        let path = paths::import(stream.id, content);
        let known = self.import_document(&path).await?;
        let is_new = known.is_none();
        let mut document =
            known.unwrap_or_else(|| ImportDocument { format: 1, file: file.into(), rows, ..ImportDocument::default() });
        if document.rows_done == rows && !is_new {
            let first = &document.file;
            return Ok(message(format!("{file} is in {} already: {rows} events, copied as {first}", stream.name)));
        }
        if !is_new {
            self.check_resumable(stream, &document)?;
        }
        self.import_bodies(stream, files, &path, &mut document).await?;
        let ImportDocument { accepted, duplicates, .. } = document;
        Ok(message(format!("copied {rows} events into {}: {accepted} accepted, {duplicates} duplicates", stream.name)))
    }

    /// The first pass: the number of events, and a hash of them all.
    async fn check_files(&self, stream: &StreamDef, file: &str, files: &Files) -> Result<(u64, u128), Problem> {
        let (mut rows, mut hash) = (0, Xxh3::new());
        let mut feed = files.feed()?;
        while let Some(body) = self.next_body(&mut feed).await? {
            hash.update(&body.bytes);
            let options = IngestOptions { check: true, ..IngestOptions::default() };
            let answer = self.send(stream, body.bytes, options).await?;
            if let Some(error) = answer.errors.first() {
                let (number, bad, of) = (rows + error.index + 1, answer.quarantined, body.rows);
                let message = &error.message;
                let detail = format!("{file}: event {number}: {message} ({bad} of {of} are bad); nothing was written");
                return Err(Problem::new(Code::BadRecords, detail));
            }
            rows += body.rows;
        }
        Ok((rows, hash.digest128()))
    }

    /// What was under way when an import was cut short may be in the log: its ids tell, within their horizon.
    fn check_resumable(&self, stream: &StreamDef, document: &ImportDocument) -> Result<(), Problem> {
        let age_us = self.registry.parts.clock.now_us().saturating_sub(document.updated_at_us);
        if age_us < stream.dedup_horizon_us {
            return Ok(());
        }
        let detail = format!(
            "{}: was cut short after {} of {} events, longer ago than dedup_horizon: whether the next {BODY_ROWS} \
             are in the log is no longer known",
            document.file, document.rows_done, document.rows
        );
        Err(Problem::new(Code::Unsupported, detail).with_hint("look for one of them with GET /v1/events/{stream}/{id}"))
    }

    async fn import_bodies(
        &self,
        stream: &StreamDef,
        files: &Files,
        path: &str,
        document: &mut ImportDocument,
    ) -> Result<(), Problem> {
        let mut feed = files.feed()?;
        let mut before = 0;
        while let Some(body) = self.next_body(&mut feed).await? {
            let is_done = before + body.rows <= document.rows_done;
            before += body.rows;
            if is_done {
                continue;
            }
            if before > document.rows {
                return Err(unreadable(&"the files have changed while they were read"));
            }
            let options = IngestOptions { strict: true, ..IngestOptions::default() };
            let answer = self.send(stream, body.bytes, options).await?;
            document.rows_done = before;
            document.accepted += answer.accepted;
            document.duplicates += answer.duplicates;
            self.keep(path, document).await?;
            tracing::info!(stream = %stream.name, file = document.file, done = before, of = document.rows, "import");
        }
        if document.rows_done == document.rows {
            return self.keep(path, document).await;
        }
        Err(unreadable(&"the files have changed while they were read"))
    }

    async fn next_body(&self, feed: &mut Feed) -> Result<Option<Body>, Problem> {
        if self.stop.is_cancelled() {
            let detail = "the server is stopping: the same COPY goes on where this one ended";
            return Err(Problem::new(Code::Cancelled, detail));
        }
        feed.next().await.map_err(|error| unreadable(&error))
    }

    /// Sends a body; waits while the server is full, or its store is away, within bounds.
    async fn send(&self, stream: &StreamDef, bytes: Bytes, options: IngestOptions) -> Result<IngestAnswer, Problem> {
        let since = tokio::time::Instant::now();
        loop {
            let (bytes, content_type) = (bytes.clone(), "application/x-ndjson".into());
            let payload = Payload { bytes, content_type, ..Payload::default() };
            match self.ingest.ingest(&stream.name, payload, options.clone()).await {
                Err(problem)
                    if matches!(problem.code, Code::Overloaded | Code::StorageUnavailable)
                        && since.elapsed() < RETRY_MAX
                        && !self.stop.is_cancelled() =>
                {
                    let pause = Duration::from_secs(problem.retry_after_s.unwrap_or(1));
                    tokio::time::sleep(pause.min(PAUSE_MAX)).await;
                }
                answered => return answered,
            }
        }
    }

    async fn import_document(&self, path: &str) -> Result<Option<ImportDocument>, Problem> {
        let bytes = match self.registry.parts.store.get(path).await {
            Ok(bytes) => bytes,
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.problem()),
        };
        let document = serde_json::from_slice(&bytes);
        document.map(Some).map_err(|error| Problem::new(Code::Internal, format!("{path}: {error}")))
    }

    async fn keep(&self, path: &str, document: &mut ImportDocument) -> Result<(), Problem> {
        document.updated_at_us = self.registry.parts.clock.now_us();
        let bytes = serde_json::to_vec_pretty(document);
        let bytes = bytes.map_err(|error| Problem::new(Code::Internal, format!("{path}: {error}")))?;
        self.registry.parts.store.put(path, bytes.into()).await.map_err(|error| error.problem())
    }
}

/// The path of a file or folder below the import folder, and nowhere else, whatever links say.
fn import_path(folder: Option<&Path>, file: &str) -> Result<PathBuf, Problem> {
    let Some(folder) = folder else {
        let problem = Problem::new(Code::Forbidden, "COPY … FROM: this server has no import folder");
        return Err(problem.with_hint(
            "set import_dir in bifold.toml to a folder of the server's machine, or send the file with `bifold ingest`",
        ));
    };
    let missing = || Problem::new(Code::NotFound, format!("COPY: there is no {file} in the import folder"));
    let folder = folder.canonicalize().map_err(|_| missing())?;
    let path = folder.join(file).canonicalize().map_err(|_| missing())?;
    if path.starts_with(&folder) { Ok(path) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_the_import_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("a.csv"), "id\n").unwrap();
        std::fs::write(folder.path().join("secret.csv"), "id\n").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret.csv"), inside.join("link.csv")).unwrap();
        assert!(import_path(Some(&inside), "a.csv").unwrap().ends_with("in/a.csv"));
        for name in ["../secret.csv", "link.csv", "/etc/passwd", "none.csv"] {
            assert_eq!(import_path(Some(&inside), name).unwrap_err().code, Code::NotFound, "{name}");
        }
        assert_eq!(import_path(None, "a.csv").unwrap_err().code, Code::Forbidden);
    }
}
