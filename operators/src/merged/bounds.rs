//! Which windows a filter asks for, so that only their panes are read.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::windows::{ALL_WINDOWS, Part, WindowFunction, WindowRange};

/// The smallest range that has every window in it for which the filters can hold. `name` is the column with
/// the bound that tells windows apart.
pub(super) fn windows_asked_for(filters: &[Expr], name: &str) -> WindowRange {
    filters.iter().fold(ALL_WINDOWS, |range, filter| both(&range, &of(filter, name)))
}

fn both(a: &WindowRange, b: &WindowRange) -> WindowRange {
    *a.start().max(b.start())..=*a.end().min(b.end())
}

fn either(a: &WindowRange, b: &WindowRange) -> WindowRange {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => *a.start().min(b.start())..=*a.end().max(b.end()),
    }
}

fn of(filter: &Expr, name: &str) -> WindowRange {
    match filter {
        Expr::Alias(alias) => of(&alias.expr, name),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => both(&of(left, name), &of(right, name)),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => either(&of(left, name), &of(right, name)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (bound(left, name), time(right)) {
            (Some(shift), Some(time)) => compared(*op, time.saturating_sub(shift)),
            _ => match (time(left), bound(right, name), op.swap()) {
                (Some(time), Some(shift), Some(op)) => compared(op, time.saturating_sub(shift)),
                _ => ALL_WINDOWS,
            },
        },
        Expr::Between(Between { expr, negated: false, low, high }) => {
            match (bound(expr, name), time(low), time(high)) {
                (Some(shift), Some(low), Some(high)) => low.saturating_sub(shift)..=high.saturating_sub(shift),
                _ => ALL_WINDOWS,
            }
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let times: Option<Vec<i64>> = list.iter().map(time).collect();
            match (bound(expr, name), times) {
                (Some(shift), Some(times)) => {
                    let one = |time: &i64| time.saturating_sub(shift)..=time.saturating_sub(shift);
                    times.iter().map(one).reduce(|a, b| either(&a, &b)).unwrap_or(ALL_WINDOWS)
                }
                _ => ALL_WINDOWS,
            }
        }
        _ => ALL_WINDOWS,
    }
}

fn compared(op: Operator, time_us: i64) -> WindowRange {
    match op {
        Operator::Eq => time_us..=time_us,
        Operator::Lt => i64::MIN..=time_us.saturating_sub(1),
        Operator::LtEq => i64::MIN..=time_us,
        Operator::Gt => time_us.saturating_add(1)..=i64::MAX,
        Operator::GtEq => time_us..=i64::MAX,
        _ => ALL_WINDOWS,
    }
}

/// By how much an expression is more than the bound that tells windows apart; none if it is something else.
fn bound(expression: &Expr, name: &str) -> Option<i64> {
    match expression {
        Expr::Column(column) => (column.name == name).then_some(0),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let function = func.inner().downcast_ref::<WindowFunction>()?;
            let is_end = function.part == Part::EndOfBound && function.spec.is_known_by_start();
            bound(args.first().filter(|_| is_end)?, name)?.checked_add(function.spec.end_of(0))
        }
        _ => None,
    }
}

fn time(expression: &Expr) -> Option<i64> {
    match expression {
        Expr::Literal(ScalarValue::TimestampMicrosecond(time_us, _), _) => *time_us,
        Expr::Literal(ScalarValue::Int64(offset), _) => *offset,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};
    use rstest::rstest;

    use super::*;
    use crate::windows::{WindowSpec, window_call};

    fn at(time_us: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())))
    }

    fn end() -> Expr {
        let spec = WindowSpec::Hop { slide_us: 10, size_us: 60, offset_us: 0 };
        window_call(&spec, Part::EndOfBound, vec![col("g1")])
    }

    #[rstest]
    #[case::one(col("g1").eq(at(40)), 40..=40)]
    #[case::the_other_way_round(at(40).lt(col("g1")), 41..=i64::MAX)]
    #[case::below(col("g1").lt(at(40)), i64::MIN..=39)]
    #[case::not_above(col("g1").lt_eq(at(40)), i64::MIN..=40)]
    #[case::above(col("g1").gt(at(40)), 41..=i64::MAX)]
    #[case::by_its_end(end().eq(at(100)), 40..=40)]
    #[case::between(col("g1").between(at(3), at(9)), 3..=9)]
    #[case::and(col("g1").gt_eq(at(3)).and(end().lt_eq(at(69))), 3..=9)]
    #[case::or(col("g1").eq(at(3)).or(col("g1").eq(at(9))), 3..=9)]
    #[case::in_a_list(col("g1").in_list(vec![at(9), at(3), at(4)], false), 3..=9)]
    #[case::another_column(col("g0").eq(at(3)), ALL_WINDOWS)]
    #[case::or_another_column(col("g1").eq(at(3)).or(col("g0").eq(at(9))), ALL_WINDOWS)]
    #[case::not_in_a_list(col("g1").in_list(vec![at(9)], true), ALL_WINDOWS)]
    fn windows_are_known_from_the_filter(#[case] filter: Expr, #[case] wanted: WindowRange) {
        assert_eq!(windows_asked_for(&[filter], "g1"), wanted);
    }
}
