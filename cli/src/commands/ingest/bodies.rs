//! Cuts a file of events into bodies of NDJSON: unpacks gzip and zstd, reads lines, a JSON array, CSV or Parquet.

mod csv;
mod parquet;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::exit::{Exit, fail};

/// Bytes after which a body is sent even if it has fewer rows than asked for.
const BODY_BYTES: usize = 16 * 1_048_576;
/// Bytes of one event; far more than any server takes.
const EVENT_BYTES_MAX: usize = 64 * 1_048_576;
const BUFFER_BYTES: usize = 256 * 1_024;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What one request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Lines, each with its line feed.
    pub bytes: Bytes,
    /// How many.
    pub rows: u64,
    /// Bytes of the input, before unpacking, that had been read by then.
    pub read: u64,
}

/// The columns whose values stand as they are in JSON: numbers may stand in quotes, these may not.
pub type Unquoted = std::collections::BTreeSet<String>;

/// How the events of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum InputFormat {
    /// JSON: a line each, or one array
    Json,
    /// CSV with a header line that names the columns
    Csv,
    /// Parquet
    Parquet,
}

impl InputFormat {
    /// What the end of a name says; JSON unless it says something else.
    pub fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        match plain.rsplit_once('.') {
            Some((_, "csv")) => Self::Csv,
            Some((_, "parquet")) => Self::Parquet,
            _ => Self::Json,
        }
    }
}

/// An opened input.
pub struct Input {
    source: Source,
    size: Option<u64>,
}

enum Source {
    Json(Box<dyn Read + Send>),
    Csv(Box<dyn Read + Send>, Unquoted),
    Parquet(File),
}

/// The files that a name stands for: itself, or the files of a folder in order of their names.
///
/// # Errors
/// [`Exit::Usage`] if there is no such file, or a folder has none.
pub fn files(name: &str) -> anyhow::Result<Vec<String>> {
    if name == "-" || !std::path::Path::new(name).is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let mut files = vec![];
    for entry in std::fs::read_dir(name)? {
        let path = entry?.path();
        let is_hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with(['.', '_']));
        if path.is_file() && !is_hidden {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    files.sort();
    if files.is_empty() {
        return fail(Exit::Usage, format!("folder {name}: has no files"));
    }
    Ok(files)
}

/// Opens a file; `-` is stdin.
///
/// # Errors
/// [`Exit::Usage`] if there is no such file.
pub fn open(name: &str, format: InputFormat, unquoted: &Unquoted) -> anyhow::Result<Input> {
    let source = |reader: Box<dyn Read + Send>| match format {
        InputFormat::Csv => Source::Csv(reader, unquoted.clone()),
        _ => Source::Json(reader),
    };
    if name == "-" {
        if format == InputFormat::Parquet {
            return fail(Exit::Usage, "Parquet cannot be read from stdin: name the file");
        }
        return Ok(Input { source: source(Box::new(io::stdin())), size: None });
    }
    match File::open(name) {
        Ok(file) => {
            let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
            let source = if format == InputFormat::Parquet { Source::Parquet(file) } else { source(Box::new(file)) };
            Ok(Input { source, size })
        }
        Err(error) => fail(Exit::Usage, format!("file {name}: {error}")),
    }
}

impl Input {
    /// Bytes as they stand on disk, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// An input made of anything readable.
    pub fn from_reader(reader: impl Read + Send + 'static) -> Self {
        Self { source: Source::Json(Box::new(reader)), size: None }
    }

    /// Its events in bodies of so many rows. Nothing is read before the first is asked for.
    pub fn bodies(self, rows_max: u64) -> Bodies {
        Bodies { source: Some(self.source), events: None, rows_max, read: Arc::new(AtomicU64::new(0)) }
    }
}

struct Counting {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// The bodies of one input, in its order.
pub struct Bodies {
    source: Option<Source>,
    events: Option<Events>,
    rows_max: u64,
    read: Arc<AtomicU64>,
}

impl Bodies {
    fn next_body(&mut self) -> io::Result<Option<Body>> {
        if let Some(source) = self.source.take() {
            self.events = Some(Events::open(source, &self.read)?);
        }
        let Some(events) = &mut self.events else { return Ok(None) };
        let (mut text, mut rows) = (vec![], 0);
        while rows < self.rows_max && text.len() < BODY_BYTES && events.append_next(&mut text)? {
            rows += 1;
        }
        let read = self.read.load(Ordering::Relaxed);
        Ok((rows > 0).then(|| Body { bytes: text.into(), rows, read }))
    }
}

impl Iterator for Bodies {
    type Item = io::Result<Body>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_body().transpose();
        if matches!(next, Some(Err(_))) {
            self.events = None;
        }
        next
    }
}

/// Unpacks what begins like gzip or zstd, whatever its name.
fn unpacked(raw: Counting) -> io::Result<Box<dyn BufRead + Send>> {
    let mut buffered = BufReader::with_capacity(BUFFER_BYTES, raw);
    let start = buffered.fill_buf()?;
    if start.starts_with(&ZSTD) {
        let decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)));
    }
    if start.starts_with(&GZIP) {
        let decoder = flate2::bufread::MultiGzDecoder::new(buffered);
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)));
    }
    Ok(Box::new(buffered))
}

/// The events of an unpacked input, one after the other.
enum Events {
    Lines(Box<dyn BufRead + Send>),
    /// The elements of one JSON array. The server judges them; this only finds where each ends.
    Array(Box<dyn BufRead + Send>),
    Csv(Box<csv::Records>),
    Parquet(Box<parquet::Records>),
}

impl Events {
    fn open(source: Source, read: &Arc<AtomicU64>) -> io::Result<Self> {
        let counting = |inner| Counting { inner, read: Arc::clone(read) };
        match source {
            Source::Json(inner) => Self::new(unpacked(counting(inner))?),
            Source::Csv(inner, unquoted) => {
                let records = csv::Records::new(unpacked(counting(inner))?, &unquoted)?;
                Ok(Self::Csv(Box::new(records)))
            }
            Source::Parquet(file) => Ok(Self::Parquet(Box::new(parquet::Records::new(file, Arc::clone(read))?))),
        }
    }

    fn new(mut reader: Box<dyn BufRead + Send>) -> io::Result<Self> {
        match peek(&mut *reader)? {
            Some(b'[') => {
                reader.consume(1);
                Ok(Self::Array(reader))
            }
            _ => Ok(Self::Lines(reader)),
        }
    }

    /// Appends the next event and a line feed; false at the end.
    fn append_next(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Lines(reader) => append_line(&mut **reader, text),
            Self::Array(reader) => append_element(&mut **reader, text),
            Self::Csv(records) => records.append_next(text),
            Self::Parquet(records) => records.append_next(text),
        }
    }
}

/// The next byte that is no white space, not consumed.
fn peek(reader: &mut dyn BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let found = buffer.get(blanks).copied();
        reader.consume(blanks);
        if found.is_some() {
            return Ok(found);
        }
    }
}

fn append_line(reader: &mut dyn BufRead, text: &mut Vec<u8>) -> io::Result<bool> {
    if peek(reader)?.is_none() {
        return Ok(false);
    }
    let start = text.len();
    <&mut dyn BufRead as Read>::take(reader, EVENT_BYTES_MAX as u64).read_until(b'\n', text)?;
    if text.len() - start >= EVENT_BYTES_MAX {
        return Err(too_large());
    }
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    Ok(true)
}

fn append_element(reader: &mut dyn BufRead, text: &mut Vec<u8>) -> io::Result<bool> {
    match peek(reader)? {
        None => return Err(unfinished()),
        Some(b']') => return Ok(false),
        Some(_) => {}
    }
    let start = text.len();
    let mut scan = Scan::default();
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Err(unfinished());
        }
        let end = buffer.iter().position(|byte| scan.ends_before(*byte));
        let taken = end.unwrap_or(buffer.len());
        // Line feeds can only be white space between tokens: a string must escape them.
        text.extend(buffer[..taken].iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        let is_comma = end.is_some_and(|end| buffer[end] == b',');
        reader.consume(taken + usize::from(is_comma));
        if text.len() - start > EVENT_BYTES_MAX {
            return Err(too_large());
        }
        if end.is_some() {
            text.push(b'\n');
            return Ok(true);
        }
    }
}

/// Where an element of an array ends: at a comma or bracket outside of strings and brackets.
#[derive(Default)]
struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return false;
        }
        match byte {
            b',' | b']' if self.depth == 0 => return true,
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "one event has more than 64 MiB")
}

fn unfinished() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the JSON array has no end")
}
