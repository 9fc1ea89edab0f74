//! A snapshot as an owner hands it to a node that only answers queries: what is not in the store yet.
//!
//! ```text
//!  "BFTAIL01" | u32 length | header, JSON | per range: Arrow IPC stream, `bytes` long | u32 crc32 of all before
//! ```

use std::sync::Arc;

use schemas::documents::manifest::Manifest;
use schemas::{Cut, LedgerCounts, Problem};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{RangeStates, StreamSnapshot, ViewSnapshot};
use crate::deltas::{read_stream, write_stream};
use crate::error::StorageError;

const MAGIC: &[u8; 8] = b"BFTAIL01";
/// Magic and length of the header.
const PROLOGUE: usize = 12;
const CRC: usize = 4;

#[derive(Serialize, Deserialize)]
struct Header {
    stream: Uuid,
    to: Cut,
    taken_at_us: i64,
    oldest_missing_us: Option<i64>,
    tail_unknown: bool,
    max_event_time_us: Vec<Option<i64>>,
    views: Vec<ViewHeader>,
}

#[derive(Serialize, Deserialize)]
struct ViewHeader {
    view: Uuid,
    semantic_hash: String,
    from: Cut,
    manifest: Option<Manifest>,
    to: Cut,
    failed: Option<Problem>,
    ranges: Vec<RangeHeader>,
}

#[derive(Serialize, Deserialize)]
struct RangeHeader {
    from: Cut,
    to: Cut,
    sorted: bool,
    ledger: Vec<LedgerCounts>,
    bytes: u64,
}

/// Encodes a snapshot without the ranges that end at `after` or before. Where `after` is no boundary of a
/// view's ranges, all of them are in: the reader sees by where they begin.
///
/// # Errors
/// The states of a range have different schemas.
pub fn encode(snapshot: &StreamSnapshot, after: &Cut) -> Result<Vec<u8>, StorageError> {
    let failed = |e: arrow::error::ArrowError| StorageError::io("encoding a snapshot", e);
    let mut streams = vec![];
    let mut views = vec![];
    for view in snapshot.views.values() {
        let mut ranges = vec![];
        for range in beyond(view, after) {
            let before = streams.len();
            write_stream(&mut streams, &range.states).map_err(failed)?;
            ranges.push(RangeHeader {
                from: range.from.clone(),
                to: range.to.clone(),
                sorted: range.sorted,
                ledger: range.ledger.clone(),
                bytes: (streams.len() - before) as u64,
            });
        }
        views.push(ViewHeader {
            view: view.view,
            semantic_hash: view.semantic_hash.clone(),
            from: view.from.clone(),
            manifest: view.manifest.as_ref().map(|manifest| Manifest::clone(manifest)),
            to: view.to.clone(),
            failed: view.failed.clone(),
            ranges,
        });
    }
    let header = Header {
        stream: snapshot.stream,
        to: snapshot.to.clone(),
        taken_at_us: snapshot.taken_at_us,
        oldest_missing_us: snapshot.oldest_missing_us,
        tail_unknown: snapshot.tail_unknown,
        max_event_time_us: snapshot.max_event_time_us.clone(),
        views,
    };
    let json = serde_json::to_vec(&header).map_err(|e| StorageError::io("encoding a snapshot", e))?;
    let mut bytes = Vec::with_capacity(PROLOGUE + json.len() + streams.len() + CRC);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(&streams);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// The ranges of a view that the reader does not have.
fn beyond<'a>(view: &'a ViewSnapshot, after: &Cut) -> &'a [Arc<RangeStates>] {
    let ranges = view.ranges.as_slice();
    if after.same_position(&view.to) {
        return &[];
    }
    match ranges.iter().position(|range| range.from.same_position(after)) {
        Some(first) => &ranges[first..],
        None => ranges,
    }
}

/// Decodes a snapshot.
///
/// # Errors
/// `Damaged`, naming `source`.
pub fn decode(source: &str, bytes: &[u8]) -> Result<StreamSnapshot, StorageError> {
    let damaged = |reason: String| StorageError::Damaged { path: source.into(), reason };
    let content = verified(bytes).map_err(|reason| damaged(reason.into()))?;
    let length = u32::from_le_bytes([content[8], content[9], content[10], content[11]]) as usize;
    let json = content.get(PROLOGUE..PROLOGUE + length).ok_or_else(|| damaged("its header is cut".into()))?;
    let header: Header = serde_json::from_slice(json).map_err(|e| damaged(e.to_string()))?;
    let mut rest = &content[PROLOGUE + length..];
    let mut snapshot = StreamSnapshot {
        stream: header.stream,
        to: header.to,
        taken_at_us: header.taken_at_us,
        oldest_missing_us: header.oldest_missing_us,
        tail_unknown: header.tail_unknown,
        max_event_time_us: header.max_event_time_us,
        views: std::collections::BTreeMap::new(),
    };
    for view in header.views {
        let mut ranges = vec![];
        for range in view.ranges {
            let length = usize::try_from(range.bytes).unwrap_or(usize::MAX);
            let (stream, after) = rest.split_at_checked(length).ok_or_else(|| damaged("its states are cut".into()))?;
            rest = after;
            let states = read_stream(stream).map_err(|e| damaged(e.to_string()))?;
            let RangeHeader { from, to, sorted, ledger, .. } = range;
            ranges.push(Arc::new(RangeStates { from, to, states, sorted, ledger }));
        }
        let decoded = ViewSnapshot {
            view: view.view,
            semantic_hash: view.semantic_hash,
            from: view.from,
            manifest: view.manifest.map(Arc::new),
            ranges,
            to: view.to,
            failed: view.failed,
        };
        snapshot.views.insert(decoded.view, Arc::new(decoded));
    }
    Ok(snapshot)
}

/// The bytes without their checksum, once it fits.
fn verified(bytes: &[u8]) -> Result<&[u8], &'static str> {
    if bytes.len() < PROLOGUE + CRC || !bytes.starts_with(MAGIC) {
        return Err("not a snapshot");
    }
    let (content, crc) = bytes.split_at(bytes.len() - CRC);
    if crc32fast::hash(content).to_le_bytes() == *crc { Ok(content) } else { Err("its checksum does not fit") }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
    use rstest::rstest;
    use schemas::{Code, Verdict};

    use super::*;

    const VIEW: Uuid = Uuid::from_u128(5);
    const OTHER: Uuid = Uuid::from_u128(6);

    fn states(from: i64) -> RecordBatch {
        let columns: [(&str, ArrayRef); 2] = [
            ("key", Arc::new(StringViewArray::from(vec![Some("a key that is long enough"), None]))),
            ("_n", Arc::new(Int64Array::from(vec![from, from + 1]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn range(from: u64, to: u64) -> Arc<RangeStates> {
        let (from, to) = (Cut(vec![from]), Cut(vec![to]));
        let batches = vec![states(from.total() as i64), states(to.total() as i64)];
        Arc::new(RangeStates { from, to, states: batches, sorted: false, ledger: vec![LedgerCounts::default()] })
    }

    fn snapshot() -> StreamSnapshot {
        let manifest = Manifest {
            format: 1,
            sequence: 2,
            view: VIEW,
            semantic_hash: "h".into(),
            run: 1,
            cut: Cut(vec![10]),
            files: vec![],
            cells: 0,
            ledger: vec![],
            verdict: Verdict::Exact,
            published_at_us: 1,
            rolled_back_from: None,
            epoch: 0,
        };
        let view = ViewSnapshot {
            view: VIEW,
            semantic_hash: "h".into(),
            from: Cut(vec![0]),
            manifest: Some(Arc::new(manifest)),
            ranges: vec![range(10, 20), range(20, 25), range(25, 31)],
            to: Cut(vec![31]),
            failed: None,
        };
        let problem = Problem::new(Code::ComputationFailed, "a division by zero");
        let other = ViewSnapshot {
            view: OTHER,
            manifest: None,
            from: Cut(vec![31]),
            ranges: vec![],
            failed: Some(problem),
            ..view.clone()
        };
        StreamSnapshot {
            stream: Uuid::from_u128(1),
            to: Cut(vec![31]),
            taken_at_us: 7,
            oldest_missing_us: Some(5),
            tail_unknown: false,
            max_event_time_us: vec![Some(3), None],
            views: [(VIEW, Arc::new(view)), (OTHER, Arc::new(other))].into(),
        }
    }

    #[rstest]
    #[case::everything(0, 3)]
    #[case::after_the_first_delta(20, 2)]
    #[case::after_the_last_but_one(25, 1)]
    #[case::nothing_is_newer(31, 0)]
    #[case::no_boundary(22, 3)]
    fn reader_gets_what_it_lacks(#[case] after: u64, #[case] ranges: usize) {
        let whole = snapshot();
        let read = decode("owner", &encode(&whole, &Cut(vec![after])).unwrap()).unwrap();
        assert_eq!((read.stream, &read.to, read.oldest_missing_us), (whole.stream, &whole.to, Some(5)));
        assert_eq!(read.max_event_time_us, whole.max_event_time_us);
        let (sent, had) = (&read.views[&VIEW], &whole.views[&VIEW]);
        assert_eq!(sent.manifest, had.manifest);
        assert_eq!(sent.ranges.len(), ranges);
        for (sent, had) in sent.ranges.iter().zip(&had.ranges[3 - ranges..]) {
            assert_eq!((&sent.from, &sent.to, &sent.states), (&had.from, &had.to, &had.states));
        }
        assert_eq!(read.views[&OTHER].failed, whole.views[&OTHER].failed);
    }

    #[test]
    fn damage_is_found() {
        let bytes = encode(&snapshot(), &Cut::default()).unwrap();
        for at in [0, 9, 20, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(matches!(decode("owner", &damaged), Err(StorageError::Damaged { .. })), "{at}");
            assert!(decode("owner", &bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
