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
const PROLOGUE: usize = 12;
const CRC: usize = 4;
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
    let damaged = |reason: String| StorageError::Damaged { path: path.into(), reason };
    let content = verified(bytes).map_err(|reason| damaged(reason.into()))?;
    let json_bytes = u32::from_le_bytes([content[8], content[9], content[10], content[11]]) as usize;
    let json = content.get(PROLOGUE..PROLOGUE + json_bytes).ok_or_else(|| damaged("its header is cut".into()))?;
    let header: DeltaHeader = serde_json::from_slice(json).map_err(|cause| damaged(cause.to_string()))?;
    if header.format != FORMAT {
        return Err(damaged(format!("format {}, this program reads format {FORMAT}", header.format)));
    }
    let mut rest = &content[PROLOGUE + json_bytes..];
    let mut states = vec![];
    for view in &header.views {
        let length = usize::try_from(view.bytes).unwrap_or(usize::MAX);
        let Some((stream, after)) = rest.split_at_checked(length) else {
            return Err(damaged(format!("the states of view {} are cut", view.view)));
        };
        rest = after;
        states.push(read_stream(stream).map_err(|cause| damaged(cause.to_string()))?);
    }
    if !rest.is_empty() {
        return Err(damaged(format!("{} bytes too many", rest.len())));
    }
    Ok(Delta { header, states })
}

/// The bytes without their checksum, once it fits.
fn verified(bytes: &[u8]) -> Result<&[u8], &'static str> {
    if bytes.len() < PROLOGUE + CRC || !bytes.starts_with(MAGIC) {
        return Err("not a delta");
    }
    let (content, crc) = bytes.split_at(bytes.len() - CRC);
    if crc32fast::hash(content).to_le_bytes() == *crc { Ok(content) } else { Err("its checksum does not fit") }
}

/// A copy per view: the states of one view do not keep those of the others in memory.
pub(crate) fn read_stream(stream: &[u8]) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    guarded(|| read_batches(stream)).map_err(arrow::error::ArrowError::IpcError)?
}

fn read_batches(stream: &[u8]) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    let mut states = vec![];
    if stream.is_empty() {
        return Ok(states);
    }
    let mut buffer = Buffer::from(stream);
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
