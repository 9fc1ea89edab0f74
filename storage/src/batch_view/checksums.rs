//! Checksums of a Parquet file: XXH3 of every block of it, kept by the manifest of a batch view, or the master's log.
//!
//! Parquet says nothing when a bit of a page has changed; a state would then answer another number, and a record
//! would be another one.
//! A block is checked when a reader first touches it, and not again by the same open file: what the
//! system then hands out again is what was checked.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a block; the last one of a file is shorter. Persisted: the checksums are of such blocks.
const BLOCK_BYTES: usize = 1 << 20;
/// Hexadecimal digits of one checksum.
const DIGITS: usize = 16;

/// Takes the bytes of a file as they are written.
#[derive(Default)]
pub(crate) struct BlockHasher {
    block: Xxh3,
    bytes_in_block: usize,
    digits: String,
}

impl std::fmt::Debug for BlockHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockHasher").field("digits", &self.digits).finish_non_exhaustive()
    }
}

impl BlockHasher {
    /// The next bytes of the file.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.bytes_in_block));
            self.block.update(now);
            self.bytes_in_block += now.len();
            if self.bytes_in_block == BLOCK_BYTES {
                self.end_block();
            }
            bytes = later;
        }
    }

    /// The checksums of all blocks, as the manifest has them.
    pub(crate) fn finish(mut self) -> String {
        if self.bytes_in_block > 0 {
            self.end_block();
        }
        self.digits
    }

    fn end_block(&mut self) {
        // Writing to a text cannot fail.
        let _ = write!(self.digits, "{:0DIGITS$x}", self.block.digest());
        self.block.reset();
        self.bytes_in_block = 0;
    }
}

/// What the blocks of an open file have to be.
#[derive(Debug)]
pub(crate) struct Blocks {
    expected: Vec<u64>,
    are_checked: Vec<AtomicBool>,
    /// One was not what was written.
    is_damaged: AtomicBool,
    /// Of the file, bytes.
    length: u64,
}

impl Blocks {
    /// The checksums of a manifest for a file of `length` bytes. None were written by the first version.
    ///
    /// # Errors
    /// They are none, or those of a file of another length.
    pub(crate) fn parse(digits: &str, length: u64) -> Result<Option<Self>, String> {
        if digits.is_empty() {
            return Ok(None);
        }
        let expected: Option<Vec<u64>> = digits
            .as_bytes()
            .chunks(DIGITS)
            .map(|one| u64::from_str_radix(std::str::from_utf8(one).ok().filter(|one| one.len() == DIGITS)?, 16).ok())
            .collect();
        let expected = expected.ok_or("the checksums are no checksums")?;
        if expected.len() as u64 != length.div_ceil(BLOCK_BYTES as u64) {
            return Err(format!("{length} bytes, there are checksums of {} blocks", expected.len()));
        }
        let are_checked = expected.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Some(Self { expected, are_checked, is_damaged: AtomicBool::new(false), length }))
    }

    /// True once a block was not what was written: whoever has lost the error on its way asks here.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Length of the file, bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The blocks that a range of bytes lies in and that are not checked yet, with their own ranges.
    pub(crate) fn unchecked(&self, bytes: &Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> {
        let block = BLOCK_BYTES as u64;
        let numbers = bytes.start / block..bytes.end.min(self.length).div_ceil(block);
        let length = self.length;
        numbers.filter_map(move |number| {
            let index = usize::try_from(number).ok()?;
            let is_checked = self.are_checked.get(index)?.load(Ordering::Relaxed);
            (!is_checked).then(|| (index, number * block..((number + 1) * block).min(length)))
        })
    }

    /// Checks the bytes of a block.
    ///
    /// # Errors
    /// `InvalidData`: it is not what was written.
    pub(crate) fn check(&self, number: usize, bytes: &[u8]) -> io::Result<()> {
        if self.expected.get(number) != Some(&xxh3_64(bytes)) {
            self.is_damaged.store(true, Ordering::Relaxed);
            let reason = format!("the checksum of block {number} does not fit");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        self.are_checked[number].store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(bytes: &[u8], piece: usize) -> String {
        let mut hasher = BlockHasher::default();
        bytes.chunks(piece).for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    #[test]
    fn checksums_do_not_depend_on_how_the_bytes_came() {
        let bytes: Vec<u8> = (0..2 * BLOCK_BYTES + 77).map(|n| (n % 251) as u8).collect();
        let all = digits(&bytes, bytes.len());
        assert_eq!(all.len(), 3 * DIGITS);
        assert_eq!(all, digits(&bytes, 1_000));
        assert_eq!(all, digits(&bytes, BLOCK_BYTES));
        assert_eq!(digits(b"", 1), "");
        // Stored contract.
        assert_eq!(digits(b"bifold", 6), format!("{:016x}", xxh3_64(b"bifold")));
    }

    #[test]
    fn a_changed_bit_is_found_where_it_is_read() {
        let mut bytes: Vec<u8> = (0..2 * BLOCK_BYTES + 77).map(|n| (n % 251) as u8).collect();
        let digits = digits(&bytes, bytes.len());
        bytes[BLOCK_BYTES + 5] ^= 16;
        let blocks = Blocks::parse(&digits, bytes.len() as u64).unwrap().unwrap();
        let read = |start: usize, length: usize| {
            let wanted = start as u64..(start + length) as u64;
            let found = blocks.unchecked(&wanted).collect::<Vec<_>>();
            found
                .into_iter()
                .try_for_each(|(n, range)| blocks.check(n, &bytes[range.start as usize..range.end as usize]))
        };
        read(0, BLOCK_BYTES).unwrap();
        read(2 * BLOCK_BYTES, 77).unwrap();
        for (start, length) in [(BLOCK_BYTES - 1, 2), (BLOCK_BYTES, 1), (0, bytes.len())] {
            assert_eq!(read(start, length).unwrap_err().to_string(), "the checksum of block 1 does not fit");
        }
        assert_eq!(blocks.unchecked(&(0..bytes.len() as u64)).map(|(n, _)| n).collect::<Vec<_>>(), [1], "only once");
    }

    #[test]
    fn checksums_of_another_file_are_refused() {
        let digits = digits(b"some", 4);
        assert!(Blocks::parse("", 4).unwrap().is_none());
        for (digits, length) in [(digits.clone(), 1 << 21), (digits[1..].to_owned(), 4), ("g".repeat(16), 4)] {
            assert!(Blocks::parse(&digits, length).is_err(), "{digits} {length}");
        }
    }
}
