//! The bytes of a frame, version 1: rows of one partition as one Arrow IPC message.
//!
//! ```text
//!  u32 length of the frame | u32 crc32 of all that follows
//!  u32 partition | u32 rows | u64 base offset | u32 length of the metadata | u32 group and marks
//!  IPC message: metadata, padded | body | padding        a frame is a multiple of 64 bytes
//! ```
//!
//! The bytes of the body are the columns' own: nothing is copied between decoding and the file.
//!
//! A group is what was written and synced at once. Its number and the marks of its last frame tell a
//! recovery whether a bad frame had ever been acknowledged.

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::FileDecoder;
use arrow::ipc::writer::StreamEncoder;
use arrow::ipc::{Block, MetadataVersion};
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use schemas::{Offset, Partition};

use crate::guarded::guarded;

/// Bytes before the IPC message.
pub(in crate::log) const HEADER: usize = 32;
/// Frames begin at multiples of this in a segment.
pub(in crate::log) const ALIGNMENT: usize = 64;
/// Length and checksum: what the checksum does not cover.
const UNCHECKED: usize = 8;
/// Continuation marker and length before the metadata of an IPC message.
const IPC_PREFIX: usize = 8;

/// Mark of the last frame of a group.
pub(in crate::log) const LAST_OF_GROUP: u32 = 1 << 31;
/// Mark of the last frame of an append, which is there as a whole or not at all.
pub(in crate::log) const LAST_OF_APPEND: u32 = 1 << 30;
const GROUP: u32 = LAST_OF_APPEND - 1;

/// The fixed fields of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct Header {
    pub(in crate::log) length: u32,
    pub(in crate::log) crc: u32,
    pub(in crate::log) partition: Partition,
    pub(in crate::log) rows: u32,
    pub(in crate::log) base: Offset,
    pub(in crate::log) metadata: u32,
    pub(in crate::log) marks: u32,
}

impl Header {
    pub(in crate::log) fn parse(bytes: &[u8; HEADER]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            length: u32_at(0),
            crc: u32_at(4),
            partition: u32_at(8),
            rows: u32_at(12),
            base: u64::from(u32_at(16)) | (u64::from(u32_at(20)) << 32),
            metadata: u32_at(24),
            marks: u32_at(28),
        }
    }

    fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let low_high = [self.base as u32, (self.base >> 32) as u32];
        let fields =
            [self.length, self.crc, self.partition, self.rows, low_high[0], low_high[1], self.metadata, self.marks];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// False if no frame can have this header; true says nothing about the checksum.
    pub(in crate::log) fn is_plausible(&self, partitions: u32) -> bool {
        self.partition < partitions
            && self.rows > 0
            && self.base.checked_add(u64::from(self.rows)).is_some()
            && (self.length as usize).is_multiple_of(ALIGNMENT)
            && HEADER as u64 + u64::from(self.metadata) <= u64::from(self.length)
    }

    /// First offset beyond.
    pub(in crate::log) fn end(&self) -> Offset {
        self.base + u64::from(self.rows)
    }

    /// The number of its group, modulo 2³⁰.
    pub(in crate::log) fn group(&self) -> u32 {
        self.marks & GROUP
    }
}

/// The group after `group`.
pub(in crate::log) fn next_group(group: u32) -> u32 {
    (group + 1) & GROUP
}

/// Turns rows into IPC messages. For all threads of a log.
pub(in crate::log) struct FrameEncoder(Mutex<StreamEncoder>);

impl std::fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameEncoder").finish_non_exhaustive()
    }
}

impl FrameEncoder {
    pub(in crate::log) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let mut encoder = StreamEncoder::try_new(schema)?;
        // The first message of a stream has the schema before it; a segment has it once.
        encoder.encode(&RecordBatch::new_empty(SchemaRef::clone(schema)))?;
        Ok(Self(Mutex::new(encoder)))
    }

    /// Rows in the schema of the log, without dictionaries.
    pub(in crate::log) fn encode(&self, partition: Partition, rows: RecordBatch) -> Result<EncodedFrame, ArrowError> {
        let message = if rows.num_rows() == 0 { vec![] } else { self.0.lock().encode(&rows)? };
        EncodedFrame::new(partition, rows, message)
    }
}

/// A frame that is written but for its offset, its group and thus its checksum.
#[derive(Debug)]
pub(in crate::log) struct EncodedFrame {
    pub(in crate::log) rows: RecordBatch,
    header: Header,
    header_bytes: [u8; HEADER],
    /// The IPC message and the padding: everything behind the header.
    message: Vec<Buffer>,
    /// Of the message.
    crc: crc32fast::Hasher,
}

impl EncodedFrame {
    fn new(partition: Partition, rows: RecordBatch, mut message: Vec<Buffer>) -> Result<Self, ArrowError> {
        let length = HEADER + message.iter().map(Buffer::len).sum::<usize>();
        let padding = length.next_multiple_of(ALIGNMENT) - length;
        message.push(Buffer::from(&[0; ALIGNMENT][..padding]));
        let too_long = |_| ArrowError::IpcError("a frame is longer than 4 GiB".into());
        let header = Header {
            length: u32::try_from(length + padding).map_err(too_long)?,
            crc: 0,
            partition,
            rows: u32::try_from(rows.num_rows()).map_err(too_long)?,
            base: 0,
            metadata: metadata_bytes(&message),
            marks: 0,
        };
        let mut crc = crc32fast::Hasher::new();
        for part in &message {
            crc.update(part);
        }
        Ok(Self { rows, header, header_bytes: header.bytes(), message, crc })
    }

    pub(in crate::log) fn partition(&self) -> Partition {
        self.header.partition
    }

    /// The checksum, once it has its place.
    pub(in crate::log) fn crc(&self) -> u32 {
        self.header.crc
    }

    /// Length in the file.
    pub(in crate::log) fn bytes(&self) -> usize {
        self.header.length as usize
    }

    /// Gives it its place; the checksum of the rest is not computed again.
    pub(in crate::log) fn seal(&mut self, base: Offset, group: u32, marks: u32) -> Header {
        self.header.base = base;
        self.header.marks = group | marks;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.header.bytes()[UNCHECKED..]);
        crc.combine(&self.crc);
        self.header.crc = crc.finalize();
        self.header_bytes = self.header.bytes();
        self.header
    }

    /// What goes into the file, in order.
    pub(in crate::log) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.header_bytes.as_slice()).chain(self.message.iter().map(Buffer::as_slice))
    }
}

/// Bytes of a message before its body: continuation marker, length, and as much as that says.
fn metadata_bytes(message: &[Buffer]) -> u32 {
    let mut prefix = [0; IPC_PREFIX];
    for (to, from) in prefix.iter_mut().zip(message.iter().flat_map(Buffer::as_slice)) {
        *to = *from;
    }
    let [.., a, b, c, d] = prefix;
    if message.len() > 1 { IPC_PREFIX as u32 + u32::from_le_bytes([a, b, c, d]) } else { 0 }
}

/// True if the checksum of a whole frame fits.
pub(in crate::log) fn is_intact(header: &Header, frame: &[u8]) -> bool {
    frame.len() == header.length as usize && crc32fast::hash(&frame[UNCHECKED..]) == header.crc
}

/// The header of bytes that are one whole frame, with a checksum that fits; none if they are not.
pub(in crate::log) fn whole_header(bytes: &[u8], partitions: u32) -> Option<Header> {
    let header = bytes.first_chunk::<HEADER>().map(Header::parse)?;
    Some(header).filter(|header| header.is_plausible(partitions) && is_intact(header, bytes))
}

/// The rows of an intact frame, in place: their columns are parts of `frame`.
pub(in crate::log) fn decode(header: &Header, frame: &Buffer, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let body = i64::from(header.length) - i64::from(header.metadata) - HEADER as i64;
    let metadata = i32::try_from(header.metadata).map_err(|cause| ArrowError::IpcError(cause.to_string()))?;
    let block = Block::new(0, metadata, body);
    let decoder = FileDecoder::new(SchemaRef::clone(schema), MetadataVersion::V5);
    let read = guarded(|| decoder.read_record_batch(&block, &frame.slice(HEADER)));
    let rows = read.map_err(ArrowError::IpcError)??;
    match rows {
        Some(rows) if rows.num_rows() == header.rows as usize => Ok(rows),
        Some(rows) => Err(ArrowError::IpcError(format!("{} rows, {} in the header", rows.num_rows(), header.rows))),
        None => Err(ArrowError::IpcError("no rows".into())),
    }
}

#[cfg(test)]
mod tests;
