//! When a value of ours and one of plain SQL are the same.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::array_value_to_string;
use operators::states::same_value;

/// Plain SQL adds floats in some order: what it may be off by, relative to the column's largest value.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// Its variances and regressions lose more.
const STATISTICS_TOLERANCE: f64 = 1e-6;
const STATISTICS: [&str; 6] = ["var", "stddev", "covar", "corr(", "regr_", "regr"];
/// It interpolates between two values in steps of a millionth.
const QUANTILE_TOLERANCE: f64 = 1e-5;
/// Quotients of differences that plain SQL may have lost altogether.
const ILL_CONDITIONED: [&str; 4] = ["corr(", "regr_slope(", "regr_intercept(", "regr_r2("];

/// The first column in which two rows differ, in words.
pub(super) fn difference(
    ours: (&RecordBatch, usize),
    theirs: (&RecordBatch, usize),
    expressions: &[String],
) -> Option<String> {
    for (index, field) in ours.0.schema().fields().iter().enumerate() {
        let expression = expressions.get(index).map_or("", String::as_str);
        // approximate by declaration, and not by the same method
        if expression.contains("approx_") || ILL_CONDITIONED.iter().any(|name| expression.contains(name)) {
            continue;
        }
        let (a, b) = (ours.0.column(index), theirs.0.column(index));
        if !same((a, ours.1), (b, theirs.1), expression) {
            let text = |array: &ArrayRef, row| array_value_to_string(array, row).unwrap_or_default();
            return Some(format!("{}: {}, plain SQL: {}", field.name(), text(a, ours.1), text(b, theirs.1)));
        }
    }
    None
}

/// An array and a row of it.
type Value<'a> = (&'a ArrayRef, usize);

fn same(ours: Value<'_>, theirs: Value<'_>, expression: &str) -> bool {
    let ((a, i), (b, j)) = (ours, theirs);
    if a.is_null(i) || b.is_null(j) {
        return a.is_null(i) && b.is_null(j);
    }
    let averaged = expression.contains("avg(");
    let (our_type, their_type) = (a.data_type(), b.data_type());
    if our_type == their_type && !our_type.is_floating() && !averaged {
        return same_value(a.as_ref(), i, b.as_ref(), j);
    }
    if our_type.is_numeric() && their_type.is_numeric() {
        return close(ours, theirs, expression);
    }
    // the same value in another type, such as a string in a view or not
    cast(&b.slice(j, 1), our_type).is_ok_and(|b| same_value(a.as_ref(), i, b.as_ref(), 0))
}

fn close((a, i): Value<'_>, (b, j): Value<'_>, expression: &str) -> bool {
    let (Ok(ours), Ok(theirs)) = (cast(&a.slice(i, 1), &DataType::Float64), cast(b, &DataType::Float64)) else {
        return false;
    };
    let theirs = theirs.as_primitive::<Float64Type>();
    let (our_value, their_value) = (ours.as_primitive::<Float64Type>().value(0), theirs.value(j));
    if our_value.is_nan() || their_value.is_nan() {
        return our_value.is_nan() && their_value.is_nan();
    }
    if our_value.is_infinite() || their_value.is_infinite() {
        return our_value.to_bits() == their_value.to_bits();
    }
    let is_statistics = STATISTICS.iter().any(|name| expression.contains(name));
    let tolerance = if expression.contains("percentile_cont(") {
        QUANTILE_TOLERANCE
    } else if is_statistics {
        STATISTICS_TOLERANCE
    } else {
        FLOAT_TOLERANCE
    };
    let largest =
        theirs.iter().flatten().filter(|value| value.is_finite()).fold(0.0_f64, |max, value| max.max(value.abs()));
    (our_value - their_value).abs() <= tolerance * largest.max(our_value.abs()) + last_digit(a.data_type())
}

/// Averages of decimals may be cut off or rounded at the last digit.
fn last_digit(data_type: &DataType) -> f64 {
    match data_type {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => 10_f64.powi(-i32::from(*scale)),
        _ => 0.0,
    }
}
