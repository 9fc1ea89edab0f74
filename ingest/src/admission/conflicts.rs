//! Same id, other values: looked at only where there are duplicates.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, make_comparator};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{SortOptions, or, take};
use arrow::error::ArrowError;
use schemas::StreamDef;
use schemas::column::{CREATED_TIME, ColumnDef, is_reserved};
use storage::StorageError;
use storage::log::{Frame, Log};

use super::Duplicate;
use super::parts::Part;

/// How many of a part's duplicates have other values than the records that stand for them. All of these are
/// durable. One that the log no longer holds is not compared.
pub(super) async fn count(
    stream: &Arc<StreamDef>,
    log: &Arc<dyn Log>,
    part: &Part,
    duplicates: &[Duplicate],
) -> Result<u64, StorageError> {
    let mut open: Vec<Duplicate> = duplicates.to_vec();
    open.sort_unstable_by_key(|duplicate| duplicate.original);
    let start = log.start().offset(part.partition);
    let mut rest = &open[open.partition_point(|duplicate| duplicate.original < start)..];
    let mut conflicts = 0;
    while let Some(first) = rest.first() {
        let frames = log.read(part.partition, first.original, 1).await?;
        let Some(frame) = frames.into_iter().next().filter(|frame| frame.end() > first.original) else { break };
        let (here, later) = rest.split_at(rest.partition_point(|duplicate| duplicate.original < frame.end()));
        let compared = compare(stream, part, here, &frame);
        conflicts += compared.map_err(|error| StorageError::io("comparing duplicates", error))?;
        rest = later;
    }
    Ok(conflicts)
}

fn compare(stream: &StreamDef, part: &Part, here: &[Duplicate], frame: &Frame) -> Result<u64, ArrowError> {
    let sent: UInt32Array = here.iter().map(|duplicate| duplicate.row).collect();
    let kept: UInt32Array = here.iter().map(|duplicate| (duplicate.original - frame.base) as u32).collect();
    let mut differs = BooleanArray::from(vec![false; here.len()]);
    for column in compared_columns(stream) {
        let sent = take(part.rows.column(column), &sent, None)?;
        let kept = take(frame.rows.column(column), &kept, None)?;
        differs = or(&differs, &different(&sent, &kept)?)?;
    }
    Ok(differs.true_count() as u64)
}

/// Row by row, whether the values differ. The kernel of comparison knows no arrays.
fn different(sent: &ArrayRef, kept: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    if !sent.data_type().is_nested() {
        return distinct(sent, kept);
    }
    let order = make_comparator(sent, kept, SortOptions::default())?;
    Ok((0..sent.len()).map(|row| Some(order(row, row).is_ne())).collect())
}

/// What the client sent, and not what the platform makes of it: of a corrected time, what it was made from.
fn compared_columns(stream: &StreamDef) -> Vec<usize> {
    let corrected = stream.time_column.as_deref().filter(|_| stream.corrects_time());
    let looked_up =
        |name: &str| stream.transport.frozen.as_ref().is_some_and(|frozen| frozen.source_of(name).is_some());
    let sent = |column: &&ColumnDef| {
        let name = column.name.as_str();
        !is_reserved(name) && Some(name) != corrected && !looked_up(name)
    };
    let names = stream.columns.iter().filter(sent).map(|column| column.name.as_str());
    let created = corrected.map(|_| CREATED_TIME);
    names.chain(created).filter_map(|name| stream.column_index(name)).collect()
}
