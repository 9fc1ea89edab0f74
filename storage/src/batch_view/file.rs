//! A local file that Parquet reads by position: several look-ups share it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use super::checksums::Blocks;

#[derive(Debug, Clone)]
pub(crate) struct PositionedFile {
    file: Arc<File>,
    length: u64,
    blocks: Arc<Option<Blocks>>,
}

impl PositionedFile {
    /// A file and its checksums as the manifest has them; without any nothing is checked.
    pub(crate) fn new(file: File, checksums: &str) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let blocks =
            Blocks::parse(checksums, length).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        Ok(Self { file: Arc::new(file), length, blocks: Arc::new(blocks) })
    }

    /// A file that others have open too: what one has checked none checks again.
    pub(crate) fn with_blocks(file: File, blocks: Arc<Option<Blocks>>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), length, blocks })
    }

    fn check(&self, start: u64, length: usize) -> io::Result<()> {
        let Some(blocks) = self.blocks.as_ref() else { return Ok(()) };
        for (number, range) in blocks.unchecked(&(start..start.saturating_add(length as u64))) {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.file.read_exact_at(&mut bytes, range.start)?;
            blocks.check(number, &bytes)?;
        }
        Ok(())
    }
}

impl Length for PositionedFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for PositionedFile {
    type T = Cursor;

    fn get_read(&self, start: u64) -> Result<Cursor> {
        Ok(Cursor { file: self.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // a footer may claim any length
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of a file of {}", self.length)));
        }
        self.check(start, length)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// A place in a [`PositionedFile`] that moves as it is read, and no other with it.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: PositionedFile,
    position: u64,
}

impl Read for Cursor {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.check(self.position, bytes.len())?;
        let read = self.file.file.read_at(bytes, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
