//! Deltas, and the tails that nodes hand to each other: the same shape, two readers. The first byte of an input says
//! which.
//!
//! Most mutations put the lengths and the checksum right again: what is tried is what comes behind them. What has to
//! hold: what is read is written as something that is read as the same.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use schemas::documents::delta::{DeltaHeader, DeltaView};
use schemas::{Cut, LedgerCounts};
use storage::deltas;
use storage::snapshot::{RangeStates, StreamSnapshot, ViewSnapshot, wire};
use uuid::Uuid;

use super::Target;
use super::mutate::Mutator;

/// Magic and length of the header.
const PROLOGUE: usize = 12;
const CRC: usize = 4;

pub(super) struct Deltas;

fn states(rows: i64) -> RecordBatch {
    let keys = (0..rows).map(|n| (n % 3 > 0).then(|| format!("a key that is long enough {n}")));
    let columns: [(&str, ArrayRef); 2] =
        [("g0", Arc::new(keys.collect::<StringViewArray>())), ("_n", Arc::new(Int64Array::from_iter_values(0..rows)))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn header(views: u128) -> DeltaHeader {
    let view = |id| DeltaView {
        view: Uuid::from_u128(id),
        semantic_hash: "h".into(),
        from: Cut(vec![1, 2]),
        cells: 0,
        ledger: vec![LedgerCounts::default(); 2],
        bytes: 0,
    };
    DeltaHeader {
        format: 1,
        stream: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        first_checkpoint: 3,
        last_checkpoint: 4,
        from: Cut(vec![1, 2]),
        to: Cut(vec![10, 20]),
        max_event_time_us: vec![Some(5), None],
        views: (0..views).map(view).collect(),
        failed: vec![],
        created_at_us: 7,
        as_of_us: Some(6),
    }
}

fn snapshot() -> StreamSnapshot {
    let range = |from: u64, to: u64| {
        let (from, to) = (Cut(vec![from]), Cut(vec![to]));
        Arc::new(RangeStates {
            from,
            to,
            states: vec![states(4)],
            sorted: false,
            ledger: vec![LedgerCounts::default()],
        })
    };
    let view = ViewSnapshot {
        view: Uuid::from_u128(5),
        semantic_hash: "h".into(),
        from: Cut(vec![0]),
        manifest: None,
        ranges: vec![range(0, 10), range(10, 12)],
        to: Cut(vec![12]),
        failed: None,
    };
    StreamSnapshot {
        stream: Uuid::from_u128(1),
        to: Cut(vec![12]),
        taken_at_us: 7,
        oldest_missing_us: Some(5),
        tail_unknown: false,
        max_event_time_us: vec![Some(3)],
        views: [(view.view, Arc::new(view))].into(),
    }
}

/// Header and states of an object, if it has that shape.
fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let content = bytes.get(..bytes.len().checked_sub(CRC)?)?;
    let length = content.get(8..PROLOGUE)?.try_into().ok().map(u32::from_le_bytes)? as usize;
    let json = content.get(PROLOGUE..PROLOGUE.checked_add(length)?)?;
    Some((&content[..8], json, &content[PROLOGUE + length..]))
}

fn whole(magic: &[u8], json: &[u8], states: &[u8]) -> Vec<u8> {
    let mut bytes = [magic, &(json.len() as u32).to_le_bytes()[..], json, states].concat();
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

impl Target for Deltas {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let delta = |views: u128, states: &[Vec<RecordBatch>]| {
            [&b"d"[..], &deltas::encode(&header(views), states).unwrap().1[..]].concat()
        };
        let tail = wire::encode(&snapshot(), &Cut::default()).unwrap();
        vec![
            delta(0, &[]),
            delta(1, &[vec![states(5)]]),
            delta(3, &[vec![states(5), states(1)], vec![], vec![states(100)]]),
            [&b"t"[..], &tail[..]].concat(),
        ]
    }

    fn mutate(&self, mutator: &mut Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        let Some((kind, object)) = input.split_first() else { return b"d".to_vec() };
        let Some((magic, json, states)) = parts(object).filter(|_| !mutator.one_in(8)) else {
            return [&[*kind][..], &mutator.bytes(object, other, &[])[..]].concat();
        };
        let other = other.get(1..).and_then(parts);
        let other_json = other.map_or(json, |(_, json, _)| json);
        let mutated = match mutator.below(4) {
            0 | 1 => whole(magic, json, &mutator.bytes(states, other.map_or(states, |(.., states)| states), &[])),
            2 => whole(magic, &mutator.json(json, other_json).unwrap_or_else(|| json.to_vec()), states),
            _ => whole(magic, &mutator.bytes(json, other_json, &["\"bytes\":", "\"cells\":", "null"]), states),
        };
        [&[*kind][..], &mutated[..]].concat()
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        let Some((kind, object)) = input.split_first() else { return Ok("nothing".into()) };
        if *kind == b't' { tail(object) } else { delta(object) }
    }
}

fn delta(object: &[u8]) -> Result<String, String> {
    let delta = match deltas::decode("it", object) {
        Ok(delta) => delta,
        Err(refused) => return Ok(refused.to_string()),
    };
    let written = deltas::encode(&delta.header, &delta.states);
    // what is read may have batches of several schemas, which is never written
    let Ok((_, bytes)) = written else { return Ok("read, and cannot be written".into()) };
    let again = deltas::decode("it", &bytes).map_err(|error| format!("written, and not read again: {error}"))?;
    if again.states == delta.states { Ok("read".into()) } else { Err("read, written and read as another".into()) }
}

fn tail(object: &[u8]) -> Result<String, String> {
    let tail = match wire::decode("it", object) {
        Ok(tail) => tail,
        Err(refused) => return Ok(refused.to_string()),
    };
    let Ok(bytes) = wire::encode(&tail, &Cut::default()) else { return Ok("read, and cannot be written".into()) };
    let again = wire::decode("it", &bytes).map_err(|error| format!("written, and not read again: {error}"))?;
    if again.to == tail.to { Ok("read".into()) } else { Err("read, written and read as another".into()) }
}
