//! A frame as it comes from a file or a broker: read, or no frame; never a panic. (The whole log is fuzzed by the
//! platform's tests; a record of a topic comes this way.)

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;

use super::*;

const PARTITIONS: u32 = 4;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8View, true), Field::new("n", DataType::Int64, false)]))
}

fn rows(count: i64) -> RecordBatch {
    let ids = (0..count).map(|n| (n % 3 > 0).then(|| format!("an id that is not inlined {n}")));
    let columns: [ArrayRef; 2] =
        [Arc::new(ids.collect::<StringViewArray>()), Arc::new(Int64Array::from_iter_values(0..count))];
    RecordBatch::try_new(schema(), columns.to_vec()).unwrap()
}

fn encoded(rows: RecordBatch, base: Offset) -> Vec<u8> {
    let mut frame = FrameEncoder::new(&schema()).unwrap().encode(2, rows).unwrap();
    frame.seal(base, 7, LAST_OF_APPEND | LAST_OF_GROUP);
    frame.parts().flatten().copied().collect()
}

fn read(bytes: &[u8]) -> Option<Result<RecordBatch, ArrowError>> {
    let header = whole_header(bytes, PARTITIONS)?;
    Some(decode(&header, &Buffer::from(bytes), &schema()))
}

/// The checksum fits whatever was changed: what comes behind it is tried.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes[UNCHECKED..]).to_le_bytes();
    bytes[4..8].copy_from_slice(&crc);
    bytes
}

#[test]
fn frame_that_is_read_becomes_the_same_bytes() {
    for count in [1, 9, 1_000] {
        let bytes = encoded(rows(count), 11);
        let again = read(&bytes).unwrap().unwrap();
        assert_eq!(again, rows(count));
        assert_eq!(encoded(again, 11), bytes);
    }
}

#[test]
fn lengths_that_do_not_fit_are_no_frame() {
    let bytes = encoded(rows(3), 0);
    for (at, value) in [(24, u32::MAX), (24, bytes.len() as u32), (12, 0), (8, PARTITIONS), (0, 64), (0, u32::MAX)] {
        let mut bent = bytes.clone();
        bent[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert!(read(&with_checksum(bent)).is_none_or(|read| read.is_err()), "{value} at {at}");
    }
    assert!(read(&bytes[..HEADER - 1]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bent_frame_is_read_or_refused(
        count in 1_i64..20,
        changes in proptest::collection::vec((8_usize..4_000, any::<u8>()), 1..6),
        wide in proptest::option::of((0_usize..500, proptest::sample::select(vec![0_u32, 1, 0x7fff_ffff, u32::MAX]))),
    ) {
        let mut bytes = encoded(rows(count), 5);
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[8 + at % (length - 8)] = byte;
        }
        if let Some((at, value)) = wide {
            let at = 8 + at * 4 % (length - 12);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(Ok(rows)) = read(&with_checksum(bytes)) {
            prop_assert!(rows.num_rows() > 0);
        }
    }
}
