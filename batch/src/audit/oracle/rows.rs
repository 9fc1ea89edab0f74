//! Rows without a key: both sides have the same ones, equally often.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow_row::{RowConverter, SortField};
use schemas::documents::certificate::OracleCheck;

use super::{SAMPLES_IN_WORDS_MAX, not_sampled, row_text};

/// How often a row is there on our side and on theirs, and where it is on one of them.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    ours: u64,
    theirs: u64,
    in_ours: bool,
    row: usize,
}

/// Compares all rows; their columns are found by name.
pub(super) fn compare(ours: &RecordBatch, theirs: &RecordBatch) -> OracleCheck {
    match counted(ours, theirs) {
        Ok(found) => checked(&found, ours, theirs),
        Err(error) => not_sampled(format!("rows cannot be compared: {error}")),
    }
}

fn counted(ours: &RecordBatch, theirs: &RecordBatch) -> Result<BTreeMap<Box<[u8]>, Found>, ArrowError> {
    let schema = ours.schema();
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let mut of_theirs = vec![];
    for field in schema.fields() {
        let column = theirs.column(theirs.schema().index_of(field.name())?);
        of_theirs.push(one_of_a_kind(&cast(column, field.data_type())?));
    }
    let of_ours: Vec<ArrayRef> = ours.columns().iter().map(one_of_a_kind).collect();
    let mut found: BTreeMap<Box<[u8]>, Found> = BTreeMap::new();
    for (row, key) in converter.convert_columns(&of_ours)?.iter().enumerate() {
        let entry = found.entry(Box::from(key.as_ref())).or_insert(Found { in_ours: true, row, ..Found::default() });
        entry.ours += 1;
    }
    for (row, key) in converter.convert_columns(&of_theirs)?.iter().enumerate() {
        let entry = found.entry(Box::from(key.as_ref())).or_insert(Found { row, ..Found::default() });
        entry.theirs += 1;
    }
    Ok(found)
}

/// Floats with one NaN and one zero, as views have them.
fn one_of_a_kind(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => Arc::new(
            column
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }),
        ),
        DataType::Float32 => Arc::new(
            column
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }),
        ),
        _ => Arc::clone(column),
    }
}

fn checked(found: &BTreeMap<Box<[u8]>, Found>, ours: &RecordBatch, theirs: &RecordBatch) -> OracleCheck {
    let mut check = OracleCheck { sampled: 0, differing: 0, skipped: None, samples: vec![] };
    for Found { ours: here, theirs: there, in_ours, row } in found.values().copied() {
        check.sampled += here.max(there);
        check.differing += here.abs_diff(there);
        if here != there && check.samples.len() < SAMPLES_IN_WORDS_MAX {
            let text = row_text(if in_ours { ours } else { theirs }, row);
            check.samples.push(format!("[{text}]: {here} times, by plain SQL {there} times"));
        }
    }
    check
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray, StringViewArray};

    use super::*;

    fn rows(names: ArrayRef, values: Vec<f64>) -> RecordBatch {
        let values: ArrayRef = Arc::new(Float64Array::from(values));
        RecordBatch::try_from_iter([("name", names), ("x", values)]).unwrap()
    }

    #[test]
    fn rows_are_compared_with_their_number() {
        let ours = rows(Arc::new(StringViewArray::from(vec!["a", "a", "b"])), vec![0.0, 0.0, f64::NAN]);
        let theirs = rows(Arc::new(StringArray::from(vec!["b", "a", "a"])), vec![-f64::NAN, -0.0, 0.0]);
        let check = compare(&ours, &theirs);
        assert_eq!((check.sampled, check.differing, check.skipped), (3, 0, None));
        let check = compare(&ours, &theirs.slice(0, 2));
        assert_eq!((check.sampled, check.differing), (3, 1));
        assert_eq!(check.samples, ["[a, 0.0]: 2 times, by plain SQL 1 times"]);
        let check = compare(&ours.slice(0, 2), &theirs);
        assert_eq!(check.samples, ["[b, NaN]: 0 times, by plain SQL 1 times"]);
    }
}
