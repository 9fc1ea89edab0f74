//! The bytes of a frame, version 1: rows of one partition as one Arrow IPC message.
//!
//! ```text
//!  u32 length of the frame | u32 crc32 of all that follows
//!  u32 partition | u32 rows | u64 base offset | u32 length of the metadata | u32 group and marks
//!  IPC message: metadata, padded | body, padded          a frame is a multiple of 64 bytes
//! ```
//!
//! A group is what was written and synced at once. Its number and the marks of its last frame tell a
//! recovery whether a bad frame had ever been acknowledged.

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::FileDecoder;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{Block, MetadataVersion};
use arrow::record_batch::RecordBatch;
use schemas::{Offset, Partition};

/// Bytes before the IPC message.
pub(super) const HEADER: usize = 32;
/// Frames begin at multiples of this in a segment, bodies at multiples of it in a frame.
pub(super) const ALIGNMENT: usize = 64;
/// Length and checksum: what the checksum does not cover.
const UNCHECKED: usize = 8;
/// Continuation marker and length before the metadata of an IPC message.
const IPC_PREFIX: usize = 8;

/// Mark of the last frame of a group.
pub(super) const LAST_OF_GROUP: u32 = 1 << 31;
/// Mark of the last frame of an append, which is there as a whole or not at all.
pub(super) const LAST_OF_APPEND: u32 = 1 << 30;
const GROUP: u32 = LAST_OF_APPEND - 1;

/// The fixed fields of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: u32,
    pub(super) crc: u32,
    pub(super) partition: Partition,
    pub(super) rows: u32,
    pub(super) base: Offset,
    pub(super) metadata: u32,
    pub(super) marks: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
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
    pub(super) fn is_plausible(&self, partitions: u32) -> bool {
        self.partition < partitions
            && self.rows > 0
            && (self.length as usize).is_multiple_of(ALIGNMENT)
            && HEADER as u64 + u64::from(self.metadata) <= u64::from(self.length)
    }

    /// First offset beyond.
    pub(super) fn end(&self) -> Offset {
        self.base + u64::from(self.rows)
    }

    /// The number of its group, modulo 2³⁰.
    pub(super) fn group(&self) -> u32 {
        self.marks & GROUP
    }
}

/// The group after `group`.
pub(super) fn next_group(group: u32) -> u32 {
    (group + 1) & GROUP
}

/// A frame that is written but for its offset, its group and thus its checksum.
#[derive(Debug)]
pub(super) struct EncodedFrame {
    pub(super) rows: RecordBatch,
    header: Header,
    /// Header and metadata.
    head: Vec<u8>,
    body: Vec<u8>,
    /// Of everything behind the header.
    crc: crc32fast::Hasher,
}

impl EncodedFrame {
    pub(super) fn new(partition: Partition, rows: RecordBatch) -> Result<Self, ArrowError> {
        let (mut head, body) = if rows.num_rows() == 0 { (vec![0; HEADER], vec![]) } else { encode(&rows)? };
        let too_long = |_| ArrowError::IpcError("a frame is longer than 4 GiB".into());
        let header = Header {
            length: u32::try_from(head.len() + body.len()).map_err(too_long)?,
            crc: 0,
            partition,
            rows: u32::try_from(rows.num_rows()).map_err(too_long)?,
            base: 0,
            metadata: (head.len() - HEADER) as u32,
            marks: 0,
        };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[HEADER..]);
        crc.update(&body);
        head[..HEADER].copy_from_slice(&header.bytes());
        Ok(Self { rows, header, head, body, crc })
    }

    pub(super) fn partition(&self) -> Partition {
        self.header.partition
    }

    /// Length in the file.
    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Gives it its place; the checksum of the rest is not computed again.
    pub(super) fn seal(&mut self, base: Offset, group: u32, marks: u32) -> Header {
        self.header.base = base;
        self.header.marks = group | marks;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.header.bytes()[UNCHECKED..]);
        crc.combine(&self.crc);
        self.header.crc = crc.finalize();
        self.head[..HEADER].copy_from_slice(&self.header.bytes());
        self.header
    }

    /// What goes into the file, in order.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.body]
    }
}

/// Room for the header with the metadata behind it; the body.
fn encode(rows: &RecordBatch) -> Result<(Vec<u8>, Vec<u8>), ArrowError> {
    let options = IpcWriteOptions::default();
    let mut dictionaries = DictionaryTracker::new(true);
    let (dictionary, message) =
        IpcDataGenerator {}.encode(rows, &mut dictionaries, &options, &mut IpcWriteContext::default())?;
    if !dictionary.is_empty() {
        return Err(ArrowError::IpcError("dictionary columns are not kept in a log".into()));
    }
    let head_bytes = (HEADER + IPC_PREFIX + message.ipc_message.len()).next_multiple_of(ALIGNMENT);
    let mut head = Vec::with_capacity(head_bytes);
    head.resize(HEADER, 0);
    head.extend_from_slice(&[0xff; 4]);
    head.extend_from_slice(&((head_bytes - HEADER - IPC_PREFIX) as u32).to_le_bytes());
    head.extend_from_slice(&message.ipc_message);
    head.resize(head_bytes, 0);
    let mut body = message.arrow_data;
    body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
    Ok((head, body))
}

/// True if the checksum of a whole frame fits.
pub(super) fn is_intact(header: &Header, frame: &[u8]) -> bool {
    frame.len() == header.length as usize && crc32fast::hash(&frame[UNCHECKED..]) == header.crc
}

/// The rows of an intact frame, in place: their columns are parts of `frame`.
pub(super) fn decode(header: &Header, frame: &Buffer, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let body = i64::from(header.length) - i64::from(header.metadata) - HEADER as i64;
    let metadata = i32::try_from(header.metadata).map_err(|cause| ArrowError::IpcError(cause.to_string()))?;
    let block = Block::new(0, metadata, body);
    let decoder = FileDecoder::new(SchemaRef::clone(schema), MetadataVersion::V5);
    let rows = decoder.read_record_batch(&block, &frame.slice(HEADER))?;
    match rows {
        Some(rows) if rows.num_rows() == header.rows as usize => Ok(rows),
        Some(rows) => Err(ArrowError::IpcError(format!("{} rows, {} in the header", rows.num_rows(), header.rows))),
        None => Err(ArrowError::IpcError("no rows".into())),
    }
}
