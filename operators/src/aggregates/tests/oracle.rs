//! Sums, averages and variances against rational arithmetic, on numbers that break naive code.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion::common::Result;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use proptest::prelude::*;
use rstest::rstest;

use crate::aggregates::all;
use crate::laws::Argument;
use crate::laws::call::Call;

/// The answer of an aggregate, from two halves merged.
fn answer(name: &str, values: ArrayRef) -> Result<ArrayRef> {
    let aggregate = all().into_iter().find(|aggregate| aggregate.name() == name).unwrap();
    let call = Call::new(&aggregate, &[Argument::Column(values)])?;
    let rows = call.all_rows();
    let (early, late) = rows.split_at(rows.len() / 3);
    call.evaluate(&call.merge(&[&call.fold(early)?, &call.fold(late)?])?)
}

fn float(name: &str, values: &[f64]) -> Option<f64> {
    let answer = answer(name, Arc::new(Float64Array::from(values.to_vec()))).unwrap();
    answer.is_valid(0).then(|| answer.as_primitive::<Float64Type>().value(0))
}

fn rational(value: f64) -> BigRational {
    BigRational::from_float(value).unwrap()
}

/// Whether `rounded` is the double nearest to `exact`, ties to even.
fn is_nearest(rounded: f64, exact: &BigRational) -> bool {
    let limit = rational(f64::MAX) + rational(2_f64.powi(970)); // from here on it rounds to infinity
    if rounded.is_infinite() {
        return exact.abs() >= limit && exact.is_negative() == (rounded < 0.0);
    }
    if exact.abs() >= limit {
        return false;
    }
    let away = (rational(rounded) - exact).abs();
    [rounded.next_up(), rounded.next_down()].into_iter().filter(|near| near.is_finite()).all(|near| {
        let other = (rational(near) - exact).abs();
        away < other || (away == other && rounded.to_bits() & 1 == 0)
    })
}

fn oracle_agrees(values: &[f64]) {
    let exact: Vec<BigRational> = values.iter().copied().map(rational).collect();
    let sum: BigRational = exact.iter().sum();
    let squares: BigRational = exact.iter().map(|value| value * value).sum();
    let count = BigRational::from_integer(BigInt::from(values.len()));
    assert!(is_nearest(float("sum", values).unwrap(), &sum), "sum of {values:?}");
    assert!(is_nearest(float("avg", values).unwrap(), &(&sum / &count)), "avg of {values:?}");
    let deviation = &squares - &sum * &sum / &count;
    let population = float("var_pop", values).unwrap();
    assert!(is_nearest(population, &(&deviation / &count)), "var_pop of {values:?}: {population}");
    assert_eq!(float("stddev_pop", values), Some(population.sqrt()));
    let freedom = count - BigRational::from_integer(BigInt::from(1));
    if freedom.is_zero() {
        assert_eq!((float("var", values), float("stddev", values)), (None, None));
        return;
    }
    let sample = float("var", values).unwrap();
    assert!(is_nearest(sample, &(deviation / freedom)), "var of {values:?}: {sample}");
    assert_eq!(float("stddev", values), Some(sample.sqrt()));
}

fn nasty() -> impl Strategy<Value = f64> {
    let wide = (any::<bool>(), 0_u64..2047, any::<u64>()).prop_map(|(negative, exponent, mantissa)| {
        f64::from_bits(u64::from(negative) << 63 | exponent << 52 | mantissa >> 12)
    });
    prop_oneof![
        4 => (-10_000_000_i64..10_000_000).prop_map(|cents| cents as f64 / 100.0),
        2 => (-40_i32..40, -9_i64..9).prop_map(|(exponent, digit)| digit as f64 * 2_f64.powi(exponent * 3)),
        2 => wide,
        1 => prop::sample::select(vec![5e-324, -5e-324, f64::MAX, -f64::MAX, f64::MIN_POSITIVE, 1e16, -1e16, 1.0, -0.0]),
        1 => (0_i32..54).prop_map(|bits| 1.0 + 2_f64.powi(-bits)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn floats_agree_with_rationals(values in prop::collection::vec(nasty(), 1..40)) {
        oracle_agrees(&values);
    }

    #[test]
    fn floats_that_cancel_agree_with_rationals(half in prop::collection::vec(nasty(), 1..20), rest in nasty()) {
        let mut values: Vec<f64> = half.iter().flat_map(|value| [*value, -*value]).collect();
        values.push(rest);
        oracle_agrees(&values);
    }

    #[test]
    fn integers_agree_with_rationals(values in prop::collection::vec(any::<i64>(), 1..40), shift in 0_u32..63) {
        let values: Vec<i64> = values.into_iter().map(|value| value >> shift).collect();
        let exact: BigInt = values.iter().copied().map(BigInt::from).sum();
        let column: ArrayRef = Arc::new(Int64Array::from(values.clone()));
        let average = answer("avg", Arc::clone(&column)).unwrap().as_primitive::<Float64Type>().value(0);
        prop_assert!(is_nearest(average, &BigRational::new(exact.clone(), BigInt::from(values.len()))));
        match (answer("sum", column), exact.to_i64()) {
            (Ok(sum), Some(exact)) => prop_assert_eq!(sum.as_primitive::<Int64Type>().value(0), exact),
            (Err(error), None) => prop_assert!(error.to_string().contains("sum: bigint out of range")),
            (sum, exact) => prop_assert!(false, "{:?} instead of {:?}", sum, exact),
        }
    }
}

#[rstest]
#[case::one(&[3.25])]
#[case::equal_values(&[0.1, 0.1, 0.1])]
#[case::ends_of_the_range(&[f64::MAX, f64::MAX, -f64::MAX, 5e-324])]
#[case::overflow(&[f64::MAX, f64::MAX])]
#[case::half_to_even(&[9_007_199_254_740_992.0, 1.0])]
#[case::half_and_a_bit(&[9_007_199_254_740_992.0, 1.0, 5e-324])]
#[case::offset_hides_variance(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0])]
fn hard_floats_agree_with_rationals(#[case] values: &[f64]) {
    oracle_agrees(values);
}

#[test]
fn zero_has_no_sign() {
    assert_eq!(float("sum", &[-0.0, -0.0]).unwrap().to_bits(), 0);
    assert_eq!(float("avg", &[-0.0]).unwrap().to_bits(), 0);
    assert_eq!(float("sum", &[1e300, -1e300]).unwrap().to_bits(), 0);
    assert_eq!(float("min", &[-0.0]).unwrap().to_bits(), 0);
    assert_eq!(float("var_pop", &[0.1, 0.1, 0.1]).unwrap().to_bits(), 0);
}

#[test]
fn nan_and_infinities_are_as_in_postgres() {
    let infinite = [1.0, f64::INFINITY];
    assert_eq!(float("sum", &infinite), Some(f64::INFINITY));
    assert_eq!(float("avg", &[f64::NEG_INFINITY, 1.0]), Some(f64::NEG_INFINITY));
    assert!(float("sum", &[f64::INFINITY, f64::NEG_INFINITY]).unwrap().is_nan());
    assert!(float("sum", &[f64::INFINITY, f64::NAN]).unwrap().is_nan());
    assert!(float("var_pop", &infinite).unwrap().is_nan());
    assert_eq!(float("min", &[f64::NAN, 1.0]), Some(1.0));
    assert!(float("max", &[f64::INFINITY, f64::NAN]).unwrap().is_nan());
    let other_nan = f64::from_bits(0xfff8_0000_0000_0007);
    assert_eq!(float("max", &[other_nan]).unwrap().to_bits(), f64::NAN.to_bits());
}

#[test]
fn sums_overflow_only_at_the_end() {
    let (max, min) = (i64::MAX, i64::MIN);
    let sum = answer("sum", Arc::new(Int64Array::from(vec![max, max, min, min, 2]))).unwrap();
    assert_eq!(sum.as_primitive::<Int64Type>().value(0), 0);
    let error = answer("sum", Arc::new(Int64Array::from(vec![max, 1]))).unwrap_err();
    assert!(error.to_string().contains("sum: bigint out of range"), "{error}");
    let error = answer("sum", Arc::new(UInt64Array::from(vec![u64::MAX, 1]))).unwrap_err();
    assert!(error.to_string().contains("sum: unsigned bigint out of range"), "{error}");
}

fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
}

#[test]
fn decimals_are_exact() {
    let nines = 10_i128.pow(38) - 1;
    let sum = answer("sum", decimals(&[nines, nines, -nines], 38, 2)).unwrap();
    assert_eq!(sum.data_type(), &DataType::Decimal128(38, 2));
    assert_eq!(sum.as_primitive::<Decimal128Type>().value(0), nines);
    let error = answer("sum", decimals(&[nines, 1], 38, 2)).unwrap_err();
    assert!(error.to_string().contains("sum: Decimal128(38, 2) out of range"), "{error}");
}

/// 0.01 / 32 is 0.0003125: a tie.
fn one_in_32(one: i128) -> [i128; 32] {
    std::array::from_fn(|index| if index == 0 { one } else { 0 })
}

#[rstest]
#[case::third(&[100, 0, 0], 333_333)]
#[case::two_thirds(&[100, 100, 0], 666_667)]
#[case::half_away_from_zero(&one_in_32(1), 313)]
#[case::negative_half(&one_in_32(-1), -313)]
#[case::negative(&[-100, -100, 0], -666_667)]
fn decimal_averages_round_half_away_from_zero(#[case] cents: &[i128], #[case] expected: i128) {
    let average = answer("avg", decimals(cents, 12, 2)).unwrap();
    assert_eq!(average.data_type(), &DataType::Decimal128(16, 6));
    assert_eq!(average.as_primitive::<Decimal128Type>().value(0), expected);
}

/// The answer of an aggregate of pairs, from two halves merged.
fn pair_answer(name: &str, ys: &[Option<f64>], xs: &[Option<f64>]) -> Option<f64> {
    let aggregate = all().into_iter().find(|aggregate| aggregate.name() == name).unwrap();
    let column = |values: &[Option<f64>]| Argument::Column(Arc::new(Float64Array::from(values.to_vec())));
    let call = Call::new(&aggregate, &[column(ys), column(xs)]).unwrap();
    let rows = call.all_rows();
    let (early, late) = rows.split_at(rows.len() / 3);
    let merged = call.merge(&[&call.fold(early).unwrap(), &call.fold(late).unwrap()]).unwrap();
    let answer = call.evaluate(&merged).unwrap();
    answer.is_valid(0).then(|| answer.as_primitive::<Float64Type>().value(0))
}

/// Whether `rounded` is the double nearest to the root of `exact`, with the sign of `negative`.
fn is_nearest_root(rounded: f64, exact: &BigRational, negative: bool) -> bool {
    if exact.is_zero() {
        return rounded == 0.0;
    }
    let half = BigRational::new(1.into(), 2.into());
    let middle = |a: f64, b: f64| (rational(a) + rational(b)) * &half;
    let magnitude = rounded.abs();
    let above = middle(magnitude, magnitude.next_up());
    let below = if magnitude == 0.0 { rational(0.0) } else { middle(magnitude, magnitude.next_down()) };
    (magnitude == 0.0 || negative == (rounded < 0.0)) && &below * &below <= *exact && *exact <= &above * &above
}

fn pairs_agree(points: &[(f64, f64)]) {
    let (ys, xs): (Vec<_>, Vec<_>) = points.iter().map(|(y, x)| (Some(*y), Some(*x))).unzip();
    let answer = |name: &str| pair_answer(name, &ys, &xs);
    let sum = |of: &dyn Fn(&BigRational, &BigRational) -> BigRational| -> BigRational {
        points.iter().map(|(y, x)| of(&rational(*y), &rational(*x))).sum()
    };
    let count = BigRational::from_integer(BigInt::from(points.len()));
    let one = BigRational::from_integer(1.into());
    let (x, y) = (sum(&|_, x| x.clone()), sum(&|y, _| y.clone()));
    let xx = &count * sum(&|_, x| x * x) - &x * &x;
    let yy = &count * sum(&|y, _| y * y) - &y * &y;
    let xy = &count * sum(&|y, x| x * y) - &x * &y;
    let near = |name: &str, exact: BigRational| {
        let found = answer(name).unwrap();
        assert!(is_nearest(found, &exact), "{name} of {points:?}: {found}");
    };
    near("regr_avgx", &x / &count);
    near("regr_avgy", &y / &count);
    near("regr_sxx", &xx / &count);
    near("regr_syy", &yy / &count);
    near("regr_sxy", &xy / &count);
    near("covar_pop", &xy / (&count * &count));
    if count == one {
        assert_eq!(answer("covar_samp"), None);
    } else {
        near("covar_samp", &xy / (&count * (&count - &one)));
    }
    if xx.is_zero() {
        assert_eq!((answer("regr_slope"), answer("regr_intercept"), answer("regr_r2")), (None, None, None));
        assert_eq!(answer("corr"), None);
        return;
    }
    near("regr_slope", &xy / &xx);
    near("regr_intercept", (&y * &xx - &x * &xy) / (&count * &xx));
    if yy.is_zero() {
        assert_eq!((answer("regr_r2"), answer("corr")), (Some(1.0), None), "a horizontal line");
        return;
    }
    let strength = &xy * &xy / (&xx * &yy);
    near("regr_r2", strength.clone());
    let correlation = answer("corr").unwrap();
    assert!(is_nearest_root(correlation, &strength, xy.is_negative()), "corr of {points:?}: {correlation}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn statistics_of_pairs_agree_with_rationals(points in prop::collection::vec((nasty(), nasty()), 1..20)) {
        pairs_agree(&points);
    }

    #[test]
    fn lines_agree_with_rationals(points in prop::collection::vec((-50_i32..50, -50_i32..50), 1..30)) {
        let points: Vec<(f64, f64)> = points.into_iter().map(|(y, x)| (f64::from(y), f64::from(x) / 7.0)).collect();
        pairs_agree(&points);
    }
}

/// As in PostgreSQL 17: `float8_regr_accum` and its final functions.
#[test]
fn pairs_that_are_not_finite_are_as_in_postgres() {
    let of = |name: &str, points: &[(f64, f64)]| {
        let (ys, xs): (Vec<_>, Vec<_>) = points.iter().map(|(y, x)| (Some(*y), Some(*x))).unzip();
        pair_answer(name, &ys, &xs)
    };
    let is_nan = |name: &str, points: &[(f64, f64)]| of(name, points).is_some_and(f64::is_nan);
    let infinite_x = [(1.0, f64::INFINITY), (2.0, 3.0)];
    assert!(is_nan("regr_sxx", &infinite_x) && is_nan("regr_sxy", &infinite_x) && is_nan("corr", &infinite_x));
    assert_eq!(of("regr_syy", &infinite_x), Some(0.5), "y alone is finite");
    assert_eq!(of("regr_avgx", &infinite_x), Some(f64::INFINITY));
    assert!(is_nan("regr_slope", &infinite_x) && is_nan("regr_intercept", &infinite_x));
    let horizontal = [(1.0, f64::NAN), (1.0, 3.0)];
    assert_eq!((of("corr", &horizontal), of("regr_r2", &horizontal)), (None, Some(1.0)));
    let vertical = [(f64::INFINITY, 3.0), (1.0, 3.0)];
    assert_eq!((of("regr_slope", &vertical), of("regr_r2", &vertical), of("corr", &vertical)), (None, None, None));
    assert!(is_nan("covar_pop", &vertical));
}

#[test]
fn a_pair_with_a_null_is_skipped() {
    let (ys, xs) = ([Some(1.0), None, Some(3.0), Some(9.0)], [Some(1.0), Some(7.0), Some(2.0), None]);
    assert_eq!(pair_answer("regr_slope", &ys, &xs), Some(2.0));
    assert_eq!(pair_answer("regr_avgy", &ys, &xs), Some(2.0));
    assert_eq!(pair_answer("covar_samp", &[Some(1.0), None], &[Some(1.0), Some(1.0)]), None);
    assert_eq!(pair_answer("corr", &[None], &[None]), None);
}
