//! A run: identities of an exact range of offsets, sorted, in one file that is never changed.
//!
//! ```text
//!  pages of 4,096 bytes: 170 × (u64 low half | u64 high half | u64 offset) | u32 entries | u32 checksum | 0
//!  fences: u64 low half of the first entry, one per page | the Bloom filter | steps: i64 step, u64 first offset
//!  "BFIDRUN1" | incarnation | u32 partition | u32 pages | u64 from | u64 to | u64 entries | u64 bytes of the filter
//!  u64 steps | u32 checksum of everything but the pages (low half of XXH3-64)
//! ```
//!
//! It says nothing that the log does not: whatever is wrong with one, the log is read instead.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use schemas::{Offset, Partition};
use storage::StorageError;
use uuid::Uuid;

use super::bloom::Bloom;
use crate::identity::Identity;

const PAGE: usize = 4_096;
const ENTRY: usize = 24;
const ENTRIES_PER_PAGE: usize = 170;
const MAGIC: &[u8; 8] = b"BFIDRUN1";
/// The fixed end of a file.
const FOOTER: usize = 8 + 16 + 4 + 4 + 8 + 8 + 8 + 8 + 8 + 4;

/// An identity and the record that was kept for it.
pub(super) type Entry = (Identity, Offset);

/// What a run is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) incarnation: Uuid,
    pub(super) partition: Partition,
    pub(super) offsets: Range<Offset>,
}

impl Span {
    fn file_name(&self) -> String {
        format!("{:05}-{:020}-{:020}.ids", self.partition, self.offsets.start, self.offsets.end)
    }
}

/// A step of append time and the first offset in it.
pub(super) type Step = (i64, Offset);

/// An open run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) span: Span,
    pub(super) entries: u64,
    path: PathBuf,
    file: File,
    fences: Vec<u64>,
    bloom: Bloom,
    /// The steps that begin in it.
    pub(super) steps: Vec<Step>,
}

/// Entries are in order of the low half, which is what pages and filter go by.
pub(super) fn order((identity, _): &Entry) -> (u64, u64) {
    (*identity as u64, (*identity >> 64) as u64)
}

impl Run {
    /// Writes a run of sorted entries, at most `entries_max`, durably. Blocks.
    pub(super) fn write(
        folder: &Path,
        span: &Span,
        steps: &[Step],
        entries_max: usize,
        entries: impl Iterator<Item = Result<Entry, StorageError>>,
    ) -> Result<Self, StorageError> {
        let path = folder.join(span.file_name());
        let failed = |error| StorageError::io(format!("writing {}", path.display()), error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let temporary = path.with_extension("new");
        let mut writer = Writer::new(File::create(&temporary).map_err(failed)?, entries_max);
        for entry in entries {
            writer.push(entry?).map_err(failed)?;
        }
        writer.finish(span, steps).map_err(failed)?;
        std::fs::rename(&temporary, &path).map_err(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Self::open(&path)?.ok_or_else(|| damaged(&path, "it cannot be read back"))
    }

    /// Opens a run; none if the file is not a whole one. Blocks.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, StorageError> {
        let failed = |error| StorageError::io(format!("opening {}", path.display()), error);
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let Some(footer_at) = length.checked_sub(FOOTER as u64) else { return Ok(None) };
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, footer_at).map_err(failed)?;
        let Some(footer) = Footer::parse(&footer) else { return Ok(None) };
        let pages_end = u64::from(footer.pages) * PAGE as u64;
        let index_bytes = u64::from(footer.pages) * 8 + footer.bloom_bytes + footer.steps * 16;
        if pages_end + index_bytes != footer_at {
            return Ok(None);
        }
        let mut index = vec![0; index_bytes as usize];
        file.read_exact_at(&mut index, pages_end).map_err(failed)?;
        if footer.crc(&index) != footer.crc {
            return Ok(None);
        }
        let (fences, rest) = index.split_at(footer.pages as usize * 8);
        let (bloom, steps) = rest.split_at(footer.bloom_bytes as usize);
        let fences = fences.as_chunks::<8>().0.iter().map(|fence| u64::from_le_bytes(*fence)).collect();
        let Some(bloom) = Bloom::from_bytes(bloom) else { return Ok(None) };
        let (span, entries, path) = (footer.span, footer.entries, path.to_owned());
        Ok(Some(Self { span, entries, path, file, fences, bloom, steps: read_steps(steps) }))
    }

    /// False if the identity is certainly not in it.
    #[inline]
    pub(super) fn may_contain(&self, identity: Identity) -> bool {
        self.bloom.may_contain(identity)
    }

    /// The record that was kept for an identity. Reads a page. Blocks.
    pub(super) fn find(&self, identity: Identity) -> Result<Option<Offset>, StorageError> {
        let key = order(&(identity, 0));
        // equal low halves may begin on the page before
        let last = self.fences.partition_point(|fence| *fence <= key.0);
        let first = self.fences.partition_point(|fence| *fence < key.0).saturating_sub(1);
        for page in first..last {
            let entries = self.page(page)?;
            if let Ok(found) = entries.binary_search_by_key(&key, order) {
                return Ok(Some(entries[found].1));
            }
        }
        Ok(None)
    }

    fn page(&self, page: usize) -> Result<Vec<Entry>, StorageError> {
        let mut bytes = [0; PAGE];
        let read = self.file.read_exact_at(&mut bytes, (page * PAGE) as u64);
        read.map_err(|error| StorageError::io(format!("reading {}", self.path.display()), error))?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let (count, crc) = (number(PAGE - 16) as u32 as usize, (number(PAGE - 16) >> 32) as u32);
        if count > ENTRIES_PER_PAGE || page_crc(&bytes) != crc {
            // the log has it all: whoever reads it again must not find this file
            self.remove();
            return Err(damaged(&self.path, "a page's checksum does not fit"));
        }
        let entry = |index: usize| {
            let at = index * ENTRY;
            ((u128::from(number(at + 8)) << 64) | u128::from(number(at)), number(at + 16))
        };
        Ok((0..count).map(entry).collect())
    }

    /// All entries in order. Blocks.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<Entry, StorageError>> + '_ {
        (0..self.fences.len()).flat_map(|page| match self.page(page) {
            Ok(entries) => entries.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        })
    }

    /// Removes the file. What cannot be removed is removed by the next start.
    pub(super) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a run of ids remains");
        }
    }
}

fn read_steps(bytes: &[u8]) -> Vec<Step> {
    let numbers: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number)).collect();
    numbers.as_chunks::<2>().0.iter().map(|[step, first]| (*step as i64, *first)).collect()
}

fn damaged(path: &Path, reason: &str) -> StorageError {
    StorageError::Damaged { path: path.display().to_string(), reason: reason.into() }
}

fn page_crc(page: &[u8; PAGE]) -> u32 {
    xxhash_rust::xxh3::xxh3_64(&page[..PAGE - 12]) as u32
}

struct Footer {
    span: Span,
    pages: u32,
    entries: u64,
    bloom_bytes: u64,
    steps: u64,
    crc: u32,
}

impl Footer {
    fn fields(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(self.span.incarnation.as_bytes());
        bytes.extend_from_slice(&self.span.partition.to_le_bytes());
        bytes.extend_from_slice(&self.pages.to_le_bytes());
        let Span { offsets, .. } = &self.span;
        for number in [offsets.start, offsets.end, self.entries, self.bloom_bytes, self.steps] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn crc(&self, index: &[u8]) -> u32 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(index);
        hash.update(&self.fields());
        hash.digest() as u32
    }

    fn parse(bytes: &[u8; FOOTER]) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        if &bytes[..8] != MAGIC {
            return None;
        }
        let incarnation = Uuid::from_slice(&bytes[8..24]).ok()?;
        let span = Span { incarnation, partition: u32_at(24), offsets: u64_at(32)..u64_at(40) };
        let (pages, crc) = (u32_at(28), u32_at(72));
        Some(Self { span, pages, entries: u64_at(48), bloom_bytes: u64_at(56), steps: u64_at(64), crc })
    }
}

struct Writer {
    file: BufWriter<File>,
    page: Vec<u8>,
    fences: Vec<u64>,
    bloom: Bloom,
    entries: u64,
}

impl Writer {
    fn new(file: File, entries_max: usize) -> Self {
        let file = BufWriter::with_capacity(PAGE * 64, file);
        Self { file, page: Vec::with_capacity(PAGE), fences: vec![], bloom: Bloom::new(entries_max), entries: 0 }
    }

    fn push(&mut self, (identity, offset): Entry) -> std::io::Result<()> {
        if self.page.is_empty() {
            self.fences.push(identity as u64);
        }
        self.bloom.insert(identity);
        for half in [identity as u64, (identity >> 64) as u64, offset] {
            self.page.extend_from_slice(&half.to_le_bytes());
        }
        self.entries += 1;
        if self.page.len() == ENTRIES_PER_PAGE * ENTRY { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> std::io::Result<()> {
        let count = (self.page.len() / ENTRY) as u32;
        let mut bytes = [0; PAGE];
        bytes[..self.page.len()].copy_from_slice(&self.page);
        bytes[PAGE - 16..PAGE - 12].copy_from_slice(&count.to_le_bytes());
        let crc = page_crc(&bytes);
        bytes[PAGE - 12..PAGE - 8].copy_from_slice(&crc.to_le_bytes());
        self.page.clear();
        self.file.write_all(&bytes)
    }

    fn finish(mut self, span: &Span, steps: &[Step]) -> std::io::Result<()> {
        if !self.page.is_empty() {
            self.end_page()?;
        }
        let mut index: Vec<u8> = self.fences.iter().flat_map(|fence| fence.to_le_bytes()).collect();
        let bloom = self.bloom.to_bytes();
        index.extend_from_slice(&bloom);
        index.extend(steps.iter().flat_map(|(step, first)| [*step as u64, *first]).flat_map(u64::to_le_bytes));
        let (pages, entries, bloom_bytes) = (self.fences.len() as u32, self.entries, bloom.len() as u64);
        let footer = Footer { span: span.clone(), pages, entries, bloom_bytes, steps: steps.len() as u64, crc: 0 };
        self.file.write_all(&index)?;
        self.file.write_all(&footer.fields())?;
        self.file.write_all(&footer.crc(&index).to_le_bytes())?;
        self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    }
}
