//! Segments: the files of a log, numbered without gaps.
//!
//! ```text
//!  "BFLOGSEG" | u32 format | u32 length of the rest | u32 crc32 of the rest | u32 0
//!  incarnation | u32 partitions | u32 length of the schema | u32 group that comes first | u32 0
//!  u64 per partition: its next offset | schema, IPC
//!  zeros up to a multiple of 64 | frames …
//! ```
//!
//! The offsets in the header keep the place of a partition whose frames are all gone.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow::ipc::writer::StreamWriter;
use schemas::{Cut, Offset, Partition};
use uuid::Uuid;

use super::Identity;
use super::frame::ALIGNMENT;
use crate::error::StorageError;
use crate::guarded::guarded;
use crate::store::durable;

const MAGIC: &[u8; 8] = b"BFLOGSEG";
const FORMAT: u32 = 1;
const PROLOGUE: usize = 24;
/// Incarnation, partitions, length of the schema, group, padding.
const FIXED: usize = 32;
/// Bytes of file between two entries of the index.
const INDEX_STRIDE: u64 = 65_536;

/// Where a segment begins.
#[derive(Debug, Clone)]
pub(super) struct Begin {
    /// The next offset of each partition.
    pub(super) bases: Cut,
    /// The next group.
    pub(super) group: u32,
}

/// A segment whose header is durable.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    /// The next offset of each partition when it was begun.
    pub(super) bases: Cut,
    /// The group of its first frame.
    pub(super) group: u32,
    /// Where the frames begin.
    pub(super) frames_at: u64,
    /// Everything below it is durable and whole.
    pub(super) length: u64,
    /// Per partition `(base offset, position)` of some frames, ascending.
    index: Vec<Vec<(Offset, u64)>>,
}

impl Segment {
    /// Creates the file with its header, durably.
    pub(super) fn create(identity: &Identity, number: u64, begin: Begin) -> Result<Self, StorageError> {
        let path = path_of(&identity.folder, number);
        let failed = |cause| StorageError::io(format!("creating {}", path.display()), cause);
        let header = encode_header(identity, &begin)?;
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary).map_err(failed)?;
        file.write_all(&header).map_err(failed)?;
        durable::publish(&temporary, &path).map_err(failed)?;
        let file = open(&path)?;
        Ok(Self::new(identity.partitions(), number, file, begin, header.len() as u64))
    }

    /// Opens an existing file and verifies its header; no frame is looked at yet.
    pub(super) fn open(identity: &Identity, number: u64) -> Result<Self, StorageError> {
        let path = path_of(&identity.folder, number);
        let file = open(&path)?;
        let damaged = |reason: String| StorageError::Damaged { path: path.display().to_string(), reason };
        let (begin, frames_at) = read_header(&file, identity).map_err(damaged)?;
        Ok(Self::new(identity.partitions(), number, file, begin, frames_at))
    }

    fn new(partitions: u32, number: u64, file: File, begin: Begin, frames_at: u64) -> Self {
        let index = vec![vec![]; partitions as usize];
        let Begin { bases, group } = begin;
        Self { number, file: Arc::new(file), bases, group, frames_at, length: frames_at, index }
    }

    /// Notes a durable frame, at or beyond all that were noted.
    pub(super) fn note(&mut self, partition: Partition, base: Offset, position: u64) {
        if self.index.len() <= partition as usize {
            self.index.resize(partition as usize + 1, vec![]);
        }
        let entries = &mut self.index[partition as usize];
        if entries.last().is_none_or(|(_, last)| last + INDEX_STRIDE <= position) {
            entries.push((base, position));
        }
    }

    /// Where to begin looking for the frame that holds `offset`.
    pub(super) fn seek(&self, partition: Partition, offset: Offset) -> Option<u64> {
        let entries = self.index.get(partition as usize)?;
        let after = entries.partition_point(|(base, _)| *base <= offset);
        entries.get(after.saturating_sub(1)).map(|(_, position)| *position)
    }
}

/// The file of a segment.
pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.log"))
}

/// The numbers of the segments in a folder, ascending; half-made ones are removed.
pub(super) fn list(folder: &Path) -> Result<Vec<u64>, StorageError> {
    let failed = |cause| StorageError::io(format!("listing {}", folder.display()), cause);
    let mut numbers = vec![];
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.strip_suffix(".new").is_some() {
            std::fs::remove_file(folder.join(&name)).map_err(failed)?;
        }
        numbers.extend(name.strip_suffix(".log").and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes segments, the oldest first, so that what is left has no gap whenever it is interrupted.
pub(super) fn remove(folder: &Path, segments: &[Segment]) -> Result<(), StorageError> {
    for segment in segments {
        let path = path_of(folder, segment.number);
        let removed = std::fs::remove_file(&path).and_then(|()| durable::sync_folder(&path));
        removed.map_err(|cause| StorageError::io(format!("removing {}", path.display()), cause))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, StorageError> {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|cause| StorageError::io(format!("opening {}", path.display()), cause))
}

fn encode_header(identity: &Identity, begin: &Begin) -> Result<Vec<u8>, StorageError> {
    let failed = |cause| StorageError::io("encoding the log's schema", cause);
    let mut schema = vec![];
    // A stream without batches is its schema message (and an end marker, which no reader of ours gets to).
    StreamWriter::try_new(&mut schema, &identity.schema).and_then(|mut w| w.finish()).map_err(failed)?;
    let mut rest = vec![];
    rest.extend_from_slice(identity.incarnation.as_bytes());
    rest.extend_from_slice(&identity.partitions().to_le_bytes());
    rest.extend_from_slice(&(schema.len() as u32).to_le_bytes());
    rest.extend_from_slice(&begin.group.to_le_bytes());
    rest.extend_from_slice(&[0; 4]);
    for partition in 0..identity.partitions() {
        rest.extend_from_slice(&begin.bases.offset(partition).to_le_bytes());
    }
    rest.extend_from_slice(&schema);
    rest.resize((PROLOGUE + rest.len()).next_multiple_of(ALIGNMENT) - PROLOGUE, 0);
    let mut header = MAGIC.to_vec();
    for field in [FORMAT, rest.len() as u32, crc32fast::hash(&rest), 0] {
        header.extend_from_slice(&field.to_le_bytes());
    }
    header.extend_from_slice(&rest);
    Ok(header)
}

/// Where it begins and where its frames are in the file; or what does not fit.
fn read_header(file: &File, identity: &Identity) -> Result<(Begin, u64), String> {
    let mut prologue = [0; PROLOGUE];
    file.read_exact_at(&mut prologue, 0).map_err(|cause| cause.to_string())?;
    let field = |at: usize| u32::from_le_bytes([prologue[at], prologue[at + 1], prologue[at + 2], prologue[at + 3]]);
    if !prologue.starts_with(MAGIC) {
        return Err("not a log segment".into());
    }
    if field(8) != FORMAT {
        return Err(format!("format {}, this program reads format {FORMAT}", field(8)));
    }
    let length = file.metadata().map_err(|cause| cause.to_string())?.len();
    let rest_bytes = u64::from(field(12));
    if PROLOGUE as u64 + rest_bytes > length || rest_bytes < FIXED as u64 {
        return Err("its header is cut".into());
    }
    let mut rest = vec![0; field(12) as usize];
    file.read_exact_at(&mut rest, PROLOGUE as u64).map_err(|cause| cause.to_string())?;
    if crc32fast::hash(&rest) != field(16) {
        return Err("the checksum of its header does not fit".into());
    }
    Ok((check_header(&rest, identity)?, PROLOGUE as u64 + rest_bytes))
}

/// Checks the intact part of a header against what the log is.
fn check_header(rest: &[u8], identity: &Identity) -> Result<Begin, String> {
    let (fixed, rest) = rest.split_at_checked(FIXED).ok_or("its header is cut")?;
    let field = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let incarnation = Uuid::from_slice(&fixed[..16]).map_err(|cause| cause.to_string())?;
    if incarnation != identity.incarnation {
        return Err(format!("it belongs to the incarnation {incarnation}, not to {}", identity.incarnation));
    }
    // fewer: partitions were added since it was begun
    if field(16) > identity.partitions() {
        return Err(format!("it has {} partitions, not {}", field(16), identity.partitions()));
    }
    let (offsets, rest) = rest.split_at_checked(8 * field(16) as usize).ok_or("its header is cut")?;
    let schema = rest.get(..field(20) as usize).ok_or("its header is cut")?;
    let schema = read_schema(schema)?;
    if schema.fields() != identity.schema.fields() {
        return Err(format!("its rows are {schema}, not {}", identity.schema));
    }
    let offset = |bytes: &[u8]| bytes.iter().rev().fold(0, |offset, byte| (offset << 8) | u64::from(*byte));
    Ok(Begin { bases: Cut(offsets.chunks_exact(8).map(offset).collect()), group: field(24) })
}

fn read_schema(bytes: &[u8]) -> Result<Schema, String> {
    // A copy, for its alignment.
    let aligned = Buffer::from(bytes);
    guarded(|| try_schema_from_ipc_buffer(&aligned))?.map_err(|cause| cause.to_string())
}
