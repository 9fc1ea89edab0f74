use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use super::*;

fn frame(partition: Partition, base: Offset, rows: usize) -> Frame {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|n| base as i64 + n)));
    Frame { partition, base, rows: RecordBatch::try_from_iter([("n", column)]).unwrap() }
}

/// a hot partition is many pieces, and the pieces are the frames.
#[test]
fn pieces_are_small_and_hold_every_record_once() {
    let frames = [frame(0, 7, 100_000), frame(0, 100_007, 1), frame(3, 0, PIECE_ROWS), frame(2, 5, PIECE_ROWS + 1)];
    let found = pieces(&frames);
    assert!(found.len() >= 16, "{} pieces", found.len());
    assert!(found.iter().all(|piece| (1..=PIECE_ROWS).contains(&piece.rows.num_rows())));
    let offsets = |partition| -> Vec<Offset> {
        found.iter().filter(|p| p.partition == partition).flat_map(|piece| piece.base..piece.end()).collect()
    };
    assert_eq!(offsets(0), (7..100_008).collect::<Vec<_>>());
    assert_eq!(offsets(2), (5..=5 + PIECE_ROWS as u64).collect::<Vec<_>>());
    assert_eq!(offsets(3), (0..PIECE_ROWS as u64).collect::<Vec<_>>());
    for piece in found {
        assert_eq!(piece.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), piece.base as i64);
    }
}

#[test]
fn positions_grow_with_the_partitions_and_stay_where_they_were() {
    let mut reached = Reached { next: Cut(vec![5]), max_event_time_us: vec![Some(9)], time_column: None };
    reached.grow(3);
    reached.note(&frame(2, 0, 4));
    reached.note(&frame(0, 5, 1));
    assert_eq!((reached.next, reached.max_event_time_us), (Cut(vec![6, 0, 4]), vec![Some(9), None, None]));
}

#[test]
#[should_panic(expected = "partition 0: 6 follows 5")]
fn a_gap_is_never_folded() {
    let mut reached = Reached { next: Cut(vec![5]), max_event_time_us: vec![None], time_column: None };
    reached.note(&frame(0, 6, 1));
}
