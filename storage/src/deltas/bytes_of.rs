//! The bytes of a delta object, version 1. The same header and states give the same bytes (I5).
//!
//! ```text
//!  "BFDELTA1" | u32 length | header, JSON | per view: Arrow IPC stream, `bytes` long | u32 crc32 of all before
//! ```

use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use schemas::documents::delta::DeltaHeader;

use super::{Delta, path_of};
use crate::error::StorageError;
use crate::guarded::guarded;
use crate::ipc;

const MAGIC: &[u8; 8] = b"BFDELTA1";
/// Magic and length of the header.
pub(super) const PROLOGUE: usize = 12;
/// The checksum at the end.
pub(super) const CRC: usize = 4;
const FORMAT: u32 = 1;

/// Encodes a delta; returns its header with `cells` and `bytes` of each view filled in.
///
/// # Errors
/// `Io` when the states of a view have different schemas, or not every view of the header has some.
pub fn encode(header: &DeltaHeader, states: &[Vec<RecordBatch>]) -> Result<(DeltaHeader, Bytes), StorageError> {
    let path = path_of(header);
    let failed = |cause: arrow::error::ArrowError| StorageError::io(format!("encoding {path}"), cause);
    if header.views.len() != states.len() {
        let counts = format!("{} views, states of {}", header.views.len(), states.len());
        return Err(StorageError::io(format!("encoding {path}"), counts));
    }
    let mut header = DeltaHeader { format: FORMAT, ..header.clone() };
    let mut streams = vec![];
    for (view, states) in header.views.iter_mut().zip(states) {
        let before = streams.len();
        write_stream(&mut streams, states).map_err(failed)?;
        view.bytes = (streams.len() - before) as u64;
        view.cells = states.iter().map(|rows| rows.num_rows() as u64).sum();
    }
    let json = serde_json::to_vec(&header).map_err(|cause| StorageError::io(format!("encoding {path}"), cause))?;
    let json_bytes = u32::try_from(json.len()).map_err(|cause| StorageError::io(format!("encoding {path}"), cause))?;
    let mut bytes = Vec::with_capacity(PROLOGUE + json.len() + streams.len() + CRC);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&json_bytes.to_le_bytes());
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(&streams);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok((header, bytes.into()))
}

/// No batches: no bytes at all, as there is no schema then.
pub(crate) fn write_stream(out: &mut Vec<u8>, states: &[RecordBatch]) -> Result<(), arrow::error::ArrowError> {
    let Some(first) = states.first() else { return Ok(()) };
    let mut writer = StreamWriter::try_new(out, &first.schema())?;
    for rows in states {
        writer.write(&ipc::canonical(&ipc::with_schema(rows, &first.schema())?)?)?;
    }
    writer.finish()
}

/// Decodes a delta.
///
/// # Errors
/// `Damaged`, naming `path`.
pub fn decode(path: &str, bytes: &[u8]) -> Result<Delta, StorageError> {
    let damaged = |reason: &str| StorageError::Damaged { path: path.into(), reason: reason.into() };
    let length = head_length(bytes).ok_or_else(|| damaged("not a delta"))?;
    let (content, crc) = bytes.split_at(bytes.len() - CRC);
    if crc32fast::hash(content).to_le_bytes() != *crc {
        return Err(damaged("its checksum does not fit"));
    }
    let (head, mut rest) = content.split_at_checked(length).ok_or_else(|| damaged("its header is cut"))?;
    let header = parse_head(path, head)?;
    let mut streams = vec![];
    for length in lengths(path, &header, rest.len())? {
        let (stream, after) = rest.split_at(length);
        // a copy per view: the states of one view do not keep those of the others in memory
        streams.push(Buffer::from(stream));
        rest = after;
    }
    assemble(path, header, streams)
}

/// Bytes before the states, by the first [`PROLOGUE`] bytes at least of an object; none if it is no delta.
pub(super) fn head_length(start: &[u8]) -> Option<usize> {
    if start.len() < PROLOGUE + CRC || !start.starts_with(MAGIC) {
        return None;
    }
    let json_bytes = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
    PROLOGUE.checked_add(json_bytes as usize)
}

/// The header in the bytes before the states.
pub(super) fn parse_head(path: &str, head: &[u8]) -> Result<DeltaHeader, StorageError> {
    let damaged = |reason: String| StorageError::Damaged { path: path.into(), reason };
    let header: DeltaHeader = serde_json::from_slice(&head[PROLOGUE..]).map_err(|cause| damaged(cause.to_string()))?;
    if header.format == FORMAT {
        return Ok(header);
    }
    Err(damaged(format!("format {}, this program reads format {FORMAT}", header.format)))
}

/// How many bytes each view's states take: together all that are there.
pub(super) fn lengths(path: &str, header: &DeltaHeader, bytes: usize) -> Result<Vec<usize>, StorageError> {
    let damaged = |reason: String| StorageError::Damaged { path: path.into(), reason };
    let (mut rest, mut lengths) = (bytes, vec![]);
    for view in &header.views {
        let length = usize::try_from(view.bytes).ok().filter(|length| *length <= rest);
        let length = length.ok_or_else(|| damaged(format!("the states of view {} are cut", view.view)))?;
        rest -= length;
        lengths.push(length);
    }
    if rest == 0 { Ok(lengths) } else { Err(damaged(format!("{rest} bytes too many"))) }
}

/// A delta of its header and, per view, an Arrow IPC stream.
pub(super) fn assemble(path: &str, header: DeltaHeader, streams: Vec<Buffer>) -> Result<Delta, StorageError> {
    let read = |stream| {
        read_buffer(stream).map_err(|cause| StorageError::Damaged { path: path.into(), reason: cause.to_string() })
    };
    let states = streams.into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(Delta { header, states })
}

/// A copy per view: the states of one view do not keep those of the others in memory.
pub(crate) fn read_stream(stream: &[u8]) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    read_buffer(Buffer::from(stream))
}

fn read_buffer(stream: Buffer) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    guarded(|| read_batches(stream)).map_err(arrow::error::ArrowError::IpcError)?
}

fn read_batches(mut buffer: Buffer) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    let mut states = vec![];
    if buffer.is_empty() {
        return Ok(states);
    }
    let mut decoder = StreamDecoder::new();
    while !buffer.is_empty() {
        match decoder.decode(&mut buffer)? {
            Some(rows) => states.push(rows),
            None => break,
        }
    }
    decoder.finish()?;
    Ok(states)
}
