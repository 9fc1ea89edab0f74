//! Answers against what the reference interpreter expects.

use super::aggregate::{Expected, Tolerance};
use super::value::{Key, Value};

/// The first difference between the rows of an answer and the expected ones, in any order of rows.
pub(super) fn compare(found: &[Vec<Value>], expected: &[Vec<Expected>]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!(
            "{} rows, expected {}\nfound {found:?}\nexpected {expected:?}",
            found.len(),
            expected.len()
        ));
    }
    let width = expected.first().map_or(0, Vec::len);
    let is_exact = |column: &usize| expected.iter().all(|row| row[*column].tolerance == Tolerance::Exact);
    let exact: Vec<usize> = (0..width).filter(is_exact).collect();
    let mut found: Vec<&Vec<Value>> = found.iter().collect();
    let mut expected: Vec<&Vec<Expected>> = expected.iter().collect();
    found.sort_by_cached_key(|row| exact.iter().map(|column| row[*column].key()).collect::<Vec<Key>>());
    expected.sort_by_cached_key(|row| exact.iter().map(|column| row[*column].value.key()).collect::<Vec<Key>>());
    for (found, expected) in found.iter().zip(&expected) {
        if found.len() != width {
            return Err(format!("{} columns, expected {width}", found.len()));
        }
        if let Some(column) = (0..width).find(|column| !fits(&found[*column], &expected[*column])) {
            let values = expected.iter().map(|cell| &cell.value).collect::<Vec<_>>();
            return Err(format!("column o{column} differs\nfound    {found:?}\nexpected {values:?}"));
        }
    }
    Ok(())
}

fn fits(found: &Value, expected: &Expected) -> bool {
    match (expected.tolerance, found, &expected.value) {
        (Tolerance::Within(bound), Value::Float(found), Value::Float(wanted)) if wanted.is_finite() => {
            (found - wanted).abs() <= bound
        }
        (Tolerance::Distinct(off), Value::Int(found), Value::Int(wanted)) => found.abs_diff(*wanted) <= u128::from(off),
        _ => found.key() == expected.value.key(),
    }
}
