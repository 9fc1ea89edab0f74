//! A bounded folder of pieces of objects that never change, the least recently used one goes first.
//!
//! ```text
//!  "BFCACHE1" | u32 length | key | u64 size of the object | bytes of the piece | u32 crc32 of all before
//! ```
//!
//! A file is believed only if its key and its checksum fit, so one that a killed process left torn, or a
//! disk has damaged, is a miss. Nothing is synced: what a power cut takes is read again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

const MAGIC: &[u8; 8] = b"BFCACHE1";
/// Magic, length of the key, size of the object, checksum.
const FRAME_BYTES: usize = 8 + 4 + 8 + 4;
/// Ending of a file that is being written.
const UNFINISHED: &str = "new";

/// A piece of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes of the whole object.
    pub(super) size: u64,
    pub(super) bytes: Bytes,
}

/// Pieces on disk. All functions block.
#[derive(Debug)]
pub(super) struct DiskCache {
    folder: PathBuf,
    bytes_max: u64,
    index: Mutex<Index>,
    next_file: AtomicU64,
}

/// Which files there are. A file's name is the hash of its key.
#[derive(Debug, Default)]
struct Index {
    files: BTreeMap<u128, Entry>,
    /// Last use → file.
    uses: BTreeMap<u64, u128>,
    next_use: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    last_use: u64,
}

impl Index {
    fn enter(&mut self, name: u128, bytes: u64) {
        self.forget(name);
        self.next_use += 1;
        self.files.insert(name, Entry { bytes, last_use: self.next_use });
        self.uses.insert(self.next_use, name);
        self.bytes += bytes;
    }

    fn forget(&mut self, name: u128) {
        if let Some(entry) = self.files.remove(&name) {
            self.uses.remove(&entry.last_use);
            self.bytes -= entry.bytes;
        }
    }

    /// Marks a file as just used; false if there is none.
    fn touch(&mut self, name: u128) -> bool {
        let Some(bytes) = self.files.get(&name).map(|entry| entry.bytes) else { return false };
        self.enter(name, bytes);
        true
    }

    /// Takes out what is used least, until the rest is within the bound.
    fn surplus(&mut self, bytes_max: u64) -> Vec<u128> {
        let mut names = vec![];
        while self.bytes > bytes_max {
            let Some((_, &name)) = self.uses.first_key_value() else { break };
            self.forget(name);
            names.push(name);
        }
        names
    }
}

impl DiskCache {
    /// Takes up what an earlier process left in the folder, and removes what it left unfinished.
    pub(super) fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut found = vec![];
        for file in fs::read_dir(folder)? {
            let file = file?;
            let metadata = file.metadata()?;
            match name_of(&file.path()) {
                Some(name) => found.push((metadata.modified()?, name, metadata.len())),
                None if metadata.is_file() => fs::remove_file(file.path())?,
                None => {}
            }
        }
        found.sort_unstable();
        let mut index = Index::default();
        for (_, name, bytes) in found {
            index.enter(name, bytes);
        }
        let cache =
            Self { folder: folder.to_owned(), bytes_max, index: Mutex::new(index), next_file: AtomicU64::new(0) };
        cache.evict();
        Ok(cache)
    }

    /// The piece that was put under this key, if it is still here and whole.
    pub(super) fn get(&self, key: &str) -> Option<Piece> {
        let name = xxh3_128(key.as_bytes());
        if !self.index.lock().touch(name) {
            return None;
        }
        let read = fs::read(self.path(name)).ok().and_then(|bytes| decode(key, &bytes.into()));
        if read.is_none() {
            self.index.lock().forget(name);
            metrics::counter!("bifold_store_cache_damaged_total").increment(1);
        }
        read
    }

    /// Keeps a piece. One that would take the place of too many others is not kept.
    pub(super) fn put(&self, key: &str, piece: &Piece) -> io::Result<()> {
        let bytes = encode(key, piece);
        if bytes.len() as u64 > self.piece_bytes_max() {
            return Ok(());
        }
        let name = xxh3_128(key.as_bytes());
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.folder.join(format!("{}-{number}.{UNFINISHED}", std::process::id()));
        fs::write(&unfinished, &bytes)?;
        fs::rename(&unfinished, self.path(name))?;
        self.index.lock().enter(name, bytes.len() as u64);
        self.evict();
        Ok(())
    }

    /// Pieces that are larger are not kept.
    pub(super) fn piece_bytes_max(&self) -> u64 {
        self.bytes_max / 4
    }

    fn evict(&self) {
        let (surplus, bytes) = {
            let mut index = self.index.lock();
            (index.surplus(self.bytes_max), index.bytes)
        };
        for name in surplus {
            metrics::counter!("bifold_store_cache_evictions_total").increment(1);
            if let Err(error) = fs::remove_file(self.path(name)) {
                tracing::debug!(%error, "a piece in the cache was not removed");
            }
        }
        metrics::gauge!("bifold_store_cache_bytes").set(bytes as f64);
    }

    fn path(&self, name: u128) -> PathBuf {
        self.folder.join(format!("{name:032x}"))
    }
}

/// The name of a finished file; none for another one.
fn name_of(path: &Path) -> Option<u128> {
    let name = path.file_name()?.to_str()?;
    if name.len() == 32 { u128::from_str_radix(name, 16).ok() } else { None }
}

fn encode(key: &str, piece: &Piece) -> Vec<u8> {
    let mut file = Vec::with_capacity(FRAME_BYTES + key.len() + piece.bytes.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&(key.len() as u32).to_le_bytes());
    file.extend_from_slice(key.as_bytes());
    file.extend_from_slice(&piece.size.to_le_bytes());
    file.extend_from_slice(&piece.bytes);
    let crc = crc32fast::hash(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    file
}

/// None for bytes that are not, as a whole, what was put under this key.
fn decode(key: &str, file: &Bytes) -> Option<Piece> {
    let (content, crc) = file.split_at_checked(file.len().checked_sub(4)?)?;
    if crc32fast::hash(content).to_le_bytes() != *crc {
        return None;
    }
    let rest = content.strip_prefix(MAGIC)?;
    let rest = rest.strip_prefix((key.len() as u32).to_le_bytes().as_slice())?.strip_prefix(key.as_bytes())?;
    let (size, bytes) = rest.split_first_chunk::<8>()?;
    Some(Piece { size: u64::from_le_bytes(*size), bytes: file.slice_ref(bytes) })
}

#[cfg(test)]
mod tests;
