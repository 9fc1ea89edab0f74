//! Reads frames from the files, where the tail does not reach back far enough.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use arrow::buffer::{Buffer, MutableBuffer};
use schemas::limits::LOG_READ_BYTES;
use schemas::{Offset, Partition};

use super::frame::{self, HEADER, Header};
use super::segment;
use super::state::{Place, State};
use super::{Identity, StorageError};
use crate::log::Frame;

/// Frames of `range` (not empty, its end is durable), about `rows_max` rows and not many more than [`LOG_READ_BYTES`]
/// bytes. Blocks.
pub(super) fn read(
    state: &State,
    identity: &Identity,
    partition: Partition,
    range: Range<Offset>,
    rows_max: usize,
) -> Result<Vec<Frame>, StorageError> {
    let mut frames = vec![];
    let (mut rows, mut bytes) = (0, 0);
    let mut next = range.start;
    let is_enough = |frames: &[Frame], rows: usize, bytes: usize| {
        !frames.is_empty() && (rows >= rows_max || bytes >= LOG_READ_BYTES)
    };
    while next < range.end && !is_enough(&frames, rows, bytes) {
        let Some(place) = state.find(partition, next) else {
            return Err(StorageError::NotFound { path: format!("partition {partition}, offset {next} of the log") });
        };
        let mut walk = Walk { identity, place };
        let before = next;
        while next < range.end && !is_enough(&frames, rows, bytes) {
            let Some((frame, length)) = walk.next_of(partition, next)? else { break };
            bytes += length;
            if frame.base > next {
                return Err(walk.damaged(format!("partition {partition} goes on at {}, not {next}", frame.base)));
            }
            if let Some(frame) = frame.clip(&(next..range.end)) {
                rows += frame.rows.num_rows();
                next = frame.end();
                frames.push(frame);
            }
        }
        if next == before {
            return Err(walk.damaged(format!("partition {partition} has no offset {next}")));
        }
    }
    Ok(frames)
}

/// A way through the durable frames of a segment.
struct Walk<'a> {
    identity: &'a Identity,
    place: Place,
}

impl Walk<'_> {
    /// The next frame of the partition that reaches beyond `offset`, with its rows, and its length in the file.
    fn next_of(&mut self, partition: Partition, offset: Offset) -> Result<Option<(Frame, usize)>, StorageError> {
        while self.place.position < self.place.length {
            let header = header_at(&self.place.file, self.place.position)
                .map_err(|cause| self.damaged(format!("at {}: {cause}", self.place.position)))?;
            let room = self.place.length - self.place.position;
            if !header.is_plausible(self.identity.partitions()) || u64::from(header.length) > room {
                return Err(self.damaged(format!("no frame at {}", self.place.position)));
            }
            let position = self.place.position;
            self.place.position += u64::from(header.length);
            if header.partition == partition && header.end() > offset {
                let frame = self.frame_at(position, &header)?;
                return Ok(Some((frame, header.length as usize)));
            }
        }
        Ok(None)
    }

    fn frame_at(&self, position: u64, header: &Header) -> Result<Frame, StorageError> {
        let bytes = bytes_at(&self.place.file, position, header.length as usize)
            .map_err(|cause| self.damaged(format!("at {position}: {cause}")))?;
        if !frame::is_intact(header, &bytes) {
            return Err(self.damaged(format!("the checksum of the frame at {position} does not fit")));
        }
        let rows = frame::decode(header, &bytes, &self.identity.schema)
            .map_err(|cause| self.damaged(format!("the frame at {position}: {cause}")))?;
        Ok(Frame { partition: header.partition, base: header.base, rows })
    }

    fn damaged(&self, reason: String) -> StorageError {
        let path = segment::path_of(&self.identity.folder, self.place.number);
        StorageError::Damaged { path: path.display().to_string(), reason }
    }
}

/// The header of the frame at a position.
pub(super) fn header_at(file: &File, position: u64) -> std::io::Result<Header> {
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, position)?;
    Ok(Header::parse(&bytes))
}

/// A part of the file, aligned so that Arrow arrays can stand in it.
pub(super) fn bytes_at(file: &File, position: u64, length: usize) -> std::io::Result<Buffer> {
    let mut bytes = MutableBuffer::from_len_zeroed(length);
    file.read_exact_at(bytes.as_slice_mut(), position)?;
    Ok(bytes.into())
}
