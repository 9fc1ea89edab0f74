//! Whole files in a folder: each step is one file, named by its number, and says at its end up to where it reaches.
//!
//! ```text
//!  page_views/00000000000000000001.ndjson     rows …, {"end":true,"rows":3,"cursor":"v1.…"}
//!  page_views/00000000000000000002.ndjson
//!  page_views/position.json                   a later cursor, where steps had no rows
//! ```
//! A file is written under another name, synced, and linked to its own only if that is free: a reader sees whole files,
//! and the folder itself says how far it has got, so that a step that is done again after a crash is never there twice.
//! In mode `complete` there is one file, which is replaced.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemas::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::lines;
use super::target::{Layout, Target};
use crate::changes::{Changes, Cursor};

const POSITION: &str = "position.json";
/// How much of the end of a file is read for its last line.
const TAIL_BYTES: u64 = 65_536;

pub(super) struct FileTarget {
    /// None while a thread that may block works on them.
    files: Option<Box<Files>>,
}

struct Files {
    folder: PathBuf,
    corrections: PathBuf,
    layout: Layout,
    /// Number of the last whole file.
    number: u64,
    open: Option<Part>,
    corrected: Option<Part>,
}

/// A file that is being written.
struct Part {
    temporary: PathBuf,
    file: BufWriter<File>,
    rows: u64,
}

/// The last line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    #[serde(rename = "end")]
    is_last: bool,
    rows: u64,
    cursor: String,
}

/// A cursor beyond the last file.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    /// The last file then.
    after: u64,
    cursor: String,
}

fn failed(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code::StorageUnavailable, format!("{}: {error}", path.display()))
}

impl Part {
    fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let temporary = folder.join(".writing");
        Ok(Self { file: BufWriter::new(File::create(&temporary)?), temporary, rows: 0 })
    }

    fn add(&mut self, text: &str) -> io::Result<()> {
        self.rows += text.lines().count() as u64;
        self.file.write_all(text.as_bytes())
    }

    /// Syncs it with its last line.
    fn finish(mut self, cursor: &Cursor) -> io::Result<PathBuf> {
        let end = End { is_last: true, rows: self.rows, cursor: cursor.to_string() };
        serde_json::to_writer(&mut self.file, &end)?;
        self.file.write_all(b"\n")?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(self.temporary)
    }
}

/// The names of a folder are durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Gives a whole file its name, if nobody has it.
fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(temporary, path)?;
    fs::remove_file(temporary)
}

fn last_line(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
    let mut last = vec![];
    for line in BufReader::new(file).split(b'\n') {
        last = line?;
    }
    String::from_utf8(last).map_err(io::Error::other)
}

impl Files {
    fn name(number: u64) -> String {
        format!("{number:020}.ndjson")
    }

    /// The one file of mode `complete`.
    fn whole(&self) -> PathBuf {
        self.folder.join(format!("{}.ndjson", self.layout.view))
    }

    fn try_open(&mut self) -> io::Result<Option<Cursor>> {
        fs::create_dir_all(&self.folder)?;
        let number = |name: &std::ffi::OsStr| name.to_str()?.strip_suffix(".ndjson")?.parse::<u64>().ok();
        let mut last = 0;
        for entry in fs::read_dir(&self.folder)? {
            last = last.max(number(&entry?.file_name()).unwrap_or(0));
        }
        self.number = last;
        let path = if self.layout.is_complete() { self.whole() } else { self.folder.join(Self::name(last)) };
        let written = match last_line(&path) {
            Ok(line) => serde_json::from_str::<End>(&line).map(|end| Some(end.cursor)).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let beyond = match fs::read(self.folder.join(POSITION)) {
            Ok(bytes) => serde_json::from_slice::<Position>(&bytes).ok().filter(|position| position.after == last),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(beyond.map(|position| position.cursor).or(written).and_then(|cursor| cursor.parse().ok()))
    }

    fn try_add(&mut self, text: &str) -> io::Result<()> {
        if self.open.is_none() {
            self.open = Some(Part::create(&self.folder)?);
        }
        self.open.as_mut().map_or(Ok(()), |part| part.add(text))
    }

    fn try_correct(&mut self, text: &str) -> io::Result<()> {
        if self.corrected.is_none() {
            self.corrected = Some(Part::create(&self.corrections)?);
        }
        self.corrected.as_mut().map_or(Ok(()), |part| part.add(text))
    }

    fn try_commit(&mut self, cursor: &Cursor) -> io::Result<()> {
        let number = self.number + 1;
        // the folder of corrections follows the other one: a file of it that was written before a crash is replaced
        if let Some(part) = self.corrected.take() {
            let temporary = part.finish(cursor)?;
            fs::rename(&temporary, self.corrections.join(Self::name(number)))?;
            sync_folder(&self.corrections)?;
        }
        let part = match self.open.take() {
            Some(part) => part,
            None => Part::create(&self.folder)?,
        };
        let temporary = part.finish(cursor)?;
        if self.layout.is_complete() {
            fs::rename(&temporary, self.whole())?;
        } else {
            publish(&temporary, &self.folder.join(Self::name(number)))?;
            self.number = number;
        }
        sync_folder(&self.folder)
    }

    fn try_advance(&mut self, cursor: &Cursor) -> io::Result<()> {
        let temporary = self.folder.join(".position");
        let mut file = File::create(&temporary)?;
        serde_json::to_writer(&mut file, &Position { after: self.number, cursor: cursor.to_string() })?;
        file.sync_all()?;
        fs::rename(&temporary, self.folder.join(POSITION))?;
        sync_folder(&self.folder)
    }
}

impl FileTarget {
    pub(super) fn new(folder: PathBuf, layout: Layout) -> Self {
        let mut corrections = folder.as_os_str().to_owned();
        corrections.push("_corrections");
        let corrections = corrections.into();
        let files = Files { corrections, folder, layout, number: 0, open: None, corrected: None };
        Self { files: Some(Box::new(files)) }
    }

    /// Runs file work where it may block.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Files) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let stopped = |what: String| Problem::new(Code::Internal, format!("writing files stopped: {what}"));
        let Some(mut files) = self.files.take() else { return Err(stopped("another call was given up".into())) };
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut files);
            (files, done)
        });
        let (files, done) = done.await.map_err(|e| stopped(e.to_string()))?;
        let done = done.map_err(|error| failed(&files.folder, &error));
        self.files = Some(files);
        done
    }
}

#[async_trait]
impl Target for FileTarget {
    async fn open(&mut self) -> Result<Option<Cursor>, Problem> {
        self.blocking(Files::try_open).await
    }

    async fn snapshot(&mut self, version: u64) -> Result<(), Problem> {
        let begin = move |files: &mut Files| {
            let line = if files.layout.is_complete() { String::new() } else { lines::snapshot(version) };
            files.try_add(&line)
        };
        self.blocking(begin).await
    }

    async fn changes(&mut self, changes: &Changes) -> Result<(), Problem> {
        let text = lines::changes(changes, "")?;
        self.blocking(move |files| files.try_add(&text)).await
    }

    async fn corrections(&mut self, changes: &Changes) -> Result<(), Problem> {
        let text = lines::changes(changes, "")?;
        self.blocking(move |files| files.try_correct(&text)).await
    }

    async fn commit(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        let cursor = cursor.clone();
        self.blocking(move |files| files.try_commit(&cursor)).await
    }

    async fn advance(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        let cursor = cursor.clone();
        self.blocking(move |files| files.try_advance(&cursor)).await
    }
}
