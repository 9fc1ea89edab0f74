//! A delta on a local disk, read on all cores into the memory that its states are then in: no byte is copied twice.
//!
//! ```text
//!  file      │ header │ states of a view                             │ states of another │ crc │
//!  threads            │▒▒▒▒▒▒▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│     each reads its piece and
//!                                                                                           takes its checksum
//! ```

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use arrow::buffer::Buffer;
use crc32fast::Hasher;
use parking_lot::Mutex;

use super::Delta;
use super::bytes_of::{CRC, PROLOGUE, assemble, head_length, lengths, parse_head};
use crate::error::StorageError;

/// Bytes that a thread reads at once.
const PIECE_BYTES: usize = 4 << 20;

/// Reads and decodes a delta. Blocks.
///
/// # Errors
/// `NotFound`, `Damaged`, naming `path`; `Io`
pub(super) fn read(path: &str, file: &Path) -> Result<Delta, StorageError> {
    let damaged = |reason: &str| StorageError::Damaged { path: path.into(), reason: reason.into() };
    let failed = |cause: Error| match cause.kind() {
        ErrorKind::NotFound => StorageError::NotFound { path: path.into() },
        _ => StorageError::io(format!("reading {path}"), cause),
    };
    let file = File::open(file).map_err(failed)?;
    let bytes = usize::try_from(file.metadata().map_err(failed)?.len()).unwrap_or(usize::MAX);
    let mut prologue = vec![0; bytes.min(PROLOGUE + CRC)];
    file.read_exact_at(&mut prologue, 0).map_err(failed)?;
    let head_bytes = head_length(&prologue).ok_or_else(|| damaged("not a delta"))?;
    let Some(states_bytes) = bytes.checked_sub(CRC).and_then(|content| content.checked_sub(head_bytes)) else {
        return Err(damaged("its header is cut"));
    };
    let (head, mut checksum) = read_part(&file, 0, head_bytes).map_err(failed)?;
    let header = parse_head(path, &head)?;
    let (mut streams, mut at) = (vec![], head_bytes);
    for length in lengths(path, &header, states_bytes)? {
        let (stream, of_stream) = read_part(&file, at, length).map_err(failed)?;
        checksum.combine(&of_stream);
        streams.push(Buffer::from_vec(stream));
        at += length;
    }
    let mut stored = [0; CRC];
    file.read_exact_at(&mut stored, at as u64).map_err(failed)?;
    if checksum.finalize().to_le_bytes() != stored {
        return Err(damaged("its checksum does not fit"));
    }
    assemble(path, header, streams)
}

/// A part of a file and its checksum.
fn read_part(file: &File, at: usize, bytes: usize) -> std::io::Result<(Vec<u8>, Hasher)> {
    // memory from the kernel is zero: no page of it is touched before the thread that fills it does
    let mut part = vec![0; bytes];
    let checksum = read_pieces(file, at, &mut part)?;
    Ok((part, checksum))
}

fn read_pieces(file: &File, at: usize, part: &mut [u8]) -> std::io::Result<Hasher> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(part.len().div_ceil(PIECE_BYTES));
    let mut checksums = vec![Hasher::new(); part.len().div_ceil(PIECE_BYTES)];
    let starts = (at..).step_by(PIECE_BYTES);
    let pieces = Mutex::new(part.chunks_mut(PIECE_BYTES).zip(&mut checksums).zip(starts));
    let read_next = || -> std::io::Result<bool> {
        let next = pieces.lock().next();
        let Some(((piece, checksum), start)) = next else { return Ok(false) };
        file.read_exact_at(piece, start as u64)?;
        checksum.update(piece);
        Ok(true)
    };
    let read_all = || -> std::io::Result<()> {
        while read_next()? {}
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(read_all)).collect();
        let mine = read_all();
        let ended = others.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.fold(mine, |so_far, end| {
            so_far.and(end.unwrap_or_else(|_| Err(Error::other("a thread that read the file panicked"))))
        })
    })?;
    Ok(checksums.into_iter().fold(Hasher::new(), |mut all, piece| {
        all.combine(&piece);
        all
    }))
}
