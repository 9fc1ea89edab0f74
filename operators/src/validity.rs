//! When each row of a table is valid: from a time of its own to the time when the next row of its key begins, or to one
//! that it says itself. What is valid at a time is what `FOR SYSTEM_TIME AS OF` joins.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow_row::{RowConverter, SortField};
use schemas::column::{VALID_TO, timestamp_type};
use schemas::{Code, Problem, Validity};

/// The end of a row that no other follows: no time lies behind it.
const OPEN: i64 = i64::MAX;

type Times = PrimitiveArray<TimestampMicrosecondType>;

/// The rows with one more column, [`VALID_TO`]: when each of them is valid no longer.
///
/// # Errors
/// In words: two rows of a key are valid at the same time, or a row is never valid.
pub fn with_ends(table: &str, rows: &RecordBatch, validity: &Validity) -> Result<RecordBatch, Problem> {
    let bad = |what: String| Problem::new(Code::BadRequest, format!("table {table}: {what}"));
    let from = times(rows, &validity.from).map_err(|error| bad(error.to_string()))?;
    let order = in_order(rows, validity).map_err(|error| bad(error.to_string()))?;
    let mut ends = vec![OPEN; rows.num_rows()];
    if let Some(to) = &validity.to {
        let to = times(rows, to).map_err(|error| bad(error.to_string()))?;
        for (row, end) in ends.iter_mut().enumerate().filter(|(row, _)| to.is_valid(*row)) {
            *end = to.value(row);
        }
        if let Some(row) = (0..ends.len()).find(|row| ends[*row] <= from.value(*row)) {
            return Err(bad(format!("{} is not after {}: {}", shown(&to, row), validity.from, row_text(rows, row))));
        }
    }
    for (row, next) in order {
        let begins = from.value(next);
        let is_taken = begins == from.value(row) || (validity.to.is_some() && ends[row] > begins);
        if is_taken {
            let (row, next) = (row_text(rows, row), row_text(rows, next));
            return Err(bad(format!("two rows of one key are valid at the same time: {row} and {next}")));
        }
        if validity.to.is_none() {
            ends[row] = begins;
        }
    }
    let ends: ArrayRef = Arc::new(Times::from(ends).with_timezone("UTC"));
    let fields = rows.schema().fields().iter().cloned().collect::<Vec<_>>();
    let end = Arc::new(Field::new(VALID_TO, timestamp_type(), false));
    let schema = Arc::new(Schema::new(fields.into_iter().chain([end]).collect::<Vec<_>>()));
    let columns = rows.columns().iter().cloned().chain([ends]).collect();
    RecordBatch::try_new(schema, columns).map_err(|error| bad(error.to_string()))
}

fn times(rows: &RecordBatch, column: &str) -> Result<Times, ArrowError> {
    let column = rows.column(rows.schema().index_of(column)?);
    column.as_primitive_opt().cloned().ok_or_else(|| ArrowError::SchemaError("not a point in time".into()))
}

/// Pairs of rows that follow each other within a key, in time. None where there is no key.
fn in_order(rows: &RecordBatch, validity: &Validity) -> Result<Vec<(usize, usize)>, ArrowError> {
    if validity.key.is_empty() && validity.to.is_some() {
        return Ok(vec![]);
    }
    let column = |name: &String| Ok(Arc::clone(rows.column(rows.schema().index_of(name)?)));
    let columns: Vec<ArrayRef> = validity.key.iter().map(column).collect::<Result<_, ArrowError>>()?;
    let from = times(rows, &validity.from)?;
    let pairs = |sorted: &[usize]| sorted.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>();
    let mut sorted: Vec<usize> = (0..rows.num_rows()).collect();
    if columns.is_empty() {
        sorted.sort_by_key(|row| from.value(*row));
        return Ok(pairs(&sorted));
    }
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let keys = RowConverter::new(fields)?.convert_columns(&columns)?;
    sorted.sort_by(|a, b| (keys.row(*a), from.value(*a)).cmp(&(keys.row(*b), from.value(*b))));
    Ok(pairs(&sorted).into_iter().filter(|(row, next)| keys.row(*row) == keys.row(*next)).collect())
}

fn shown(times: &Times, row: usize) -> String {
    times.value_as_datetime(row).map_or_else(|| times.value(row).to_string(), |time| format!("{time}"))
}

/// A row in words.
fn row_text(rows: &RecordBatch, row: usize) -> String {
    let value = |column: &ArrayRef| arrow::util::display::array_value_to_string(column, row).unwrap_or_default();
    format!("({})", rows.columns().iter().map(value).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;
    use rstest::rstest;

    use super::*;

    /// Key, from, to.
    type Row = (&'static str, i64, Option<i64>);

    fn rows(of: &[Row]) -> RecordBatch {
        let times = |values: Vec<Option<i64>>| -> ArrayRef { Arc::new(Times::from(values).with_timezone("UTC")) };
        RecordBatch::try_from_iter([
            ("k", Arc::new(StringViewArray::from_iter_values(of.iter().map(|row| row.0))) as ArrayRef),
            ("since", times(of.iter().map(|row| Some(row.1)).collect())),
            ("until", times(of.iter().map(|row| row.2).collect())),
        ])
        .unwrap()
    }

    fn ends(of: &[Row], key: &[&str], to: Option<&str>) -> Result<Vec<i64>, Problem> {
        let key = key.iter().map(|name| (*name).to_owned()).collect();
        let validity = Validity { from: "since".into(), to: to.map(str::to_owned), key };
        let ended = with_ends("t", &rows(of), &validity)?;
        Ok(times(&ended, VALID_TO).unwrap().values().to_vec())
    }

    #[test]
    fn a_row_ends_where_the_next_of_its_key_begins() {
        let of = [("a", 30, None), ("b", 5, None), ("a", 10, None), ("a", -20, None)];
        assert_eq!(ends(&of, &["k"], None).unwrap(), [OPEN, OPEN, 30, 10]);
        assert_eq!(ends(&of, &[], None).unwrap(), [OPEN, 10, 30, 5], "all rows are of one key");
        assert!(ends(&[], &["k"], None).unwrap().is_empty());
    }

    #[test]
    fn a_row_ends_where_it_says() {
        let of = [("a", 10, Some(20)), ("a", 20, None), ("b", 10, Some(15))];
        assert_eq!(ends(&of, &["k"], Some("until")).unwrap(), [20, OPEN, 15]);
        let at_once = [("a", 10, Some(30)), ("a", 20, None)];
        assert_eq!(
            ends(&at_once, &[], Some("until")).unwrap(),
            [30, OPEN],
            "without a key nothing is said of two rows"
        );
    }

    #[rstest]
    #[case::same_time(&[("a", 10, None), ("a", 10, None)], None, "two rows of one key")]
    #[case::overlap(&[("a", 10, Some(30)), ("a", 20, None)], Some("until"), "two rows of one key")]
    #[case::open_before(&[("a", 10, None), ("a", 20, None)], Some("until"), "two rows of one key")]
    #[case::never(&[("a", 10, Some(10))], Some("until"), "is not after")]
    fn what_is_valid_at_one_time_must_be_one(#[case] of: &[Row], #[case] to: Option<&str>, #[case] words: &str) {
        let problem = ends(of, &["k"], to).unwrap_err();
        assert!(problem.detail.contains(words), "{}", problem.detail);
    }
}
