//! Every aggregate of the list keeps the laws, and the laws find what breaks them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, make_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::{array_agg::array_agg_udaf, sum::sum_udaf};
use proptest::prelude::*;

use super::chance::Chance;
use super::*;
use crate::aggregates::all;

/// The argument types that an aggregate is tried with; empty means that the case is missing.
fn types_of(aggregate: &str) -> Vec<DataType> {
    use DataType::{Boolean, Decimal128, Decimal256, Float64, Int64, UInt64};
    let numbers = vec![Int64, UInt64, Float64, Decimal128(12, 2), Decimal128(38, 4), Decimal256(50, 3)];
    match aggregate {
        "count" | "approx_distinct" | "min" | "max" => ordered_types(),
        "sum" | "avg" => numbers,
        "bool_and" | "bool_or" => vec![Boolean],
        "bit_and" | "bit_or" | "bit_xor" => {
            vec![DataType::Int8, DataType::Int32, Int64, DataType::UInt16, UInt64]
        }
        "approx_percentile_cont" | "approx_median" | "var_pop" | "var" | "stddev_pop" | "stddev" => vec![Float64],
        _ => Vec::new(),
    }
}

fn ordered_types() -> Vec<DataType> {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Decimal32, Decimal64, Decimal128, Decimal256, Duration, Float32, Float64,
        Int8, Int64, LargeUtf8, Time64, Timestamp, UInt64, Utf8, Utf8View,
    };
    vec![
        Int8,
        Int64,
        UInt64,
        Float32,
        Float64,
        Boolean,
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        BinaryView,
        Date32,
        Decimal32(7, 2),
        Decimal64(15, 2),
        Decimal128(12, 2),
        Decimal256(50, 3),
        Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Timestamp(TimeUnit::Second, None),
        Time64(TimeUnit::Microsecond),
        Duration(TimeUnit::Millisecond),
    ]
}

/// Values that break naive code, beside ordinary ones; about one in six is null.
fn column(data_type: &DataType, rows: usize, chance: &mut Chance) -> ArrayRef {
    if data_type.is_floating() {
        let floats: Float64Array = nullable(rows, chance, nasty_float);
        return cast(&floats, data_type).unwrap();
    }
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::BinaryView => {
            let strings: arrow::array::StringArray = nullable(rows, chance, |chance| {
                let length = [0, 1, 5, 12, 13, 40][chance.below(6)];
                (0..length).map(|_| ["a", "é", "z"][chance.below(3)]).collect::<String>()
            });
            let bytes = if matches!(data_type, DataType::BinaryView) { DataType::Binary } else { data_type.clone() };
            cast(&cast(&strings, &bytes).unwrap(), data_type).unwrap()
        }
        DataType::Boolean => Arc::new(nullable::<_, BooleanArray>(rows, chance, |chance| chance.below(2) == 0)),
        other => integers_as(other, rows, chance),
    }
}

fn integers_as(data_type: &DataType, rows: usize, chance: &mut Chance) -> ArrayRef {
    let extremes = matches!(data_type, DataType::Int64 | DataType::UInt64 | DataType::Decimal128(38, _));
    let narrow = matches!(data_type, DataType::Int8 | DataType::UInt16 | DataType::Decimal32(..));
    let integers: Int64Array = nullable(rows, chance, |chance| match chance.below(4) {
        0 if extremes => [i64::MIN, i64::MAX, i64::MAX - 1][chance.below(3)],
        1 if !narrow => chance.next() as u32 as i64,
        _ => chance.below(200) as i64 - 100,
    });
    match data_type {
        // The bits as they are: casts would refuse half of them.
        DataType::Int64 | DataType::Timestamp(..) | DataType::Time64(_) | DataType::Duration(_) | DataType::UInt64 => {
            make_array(integers.into_data().into_builder().data_type(data_type.clone()).build().unwrap())
        }
        DataType::UInt16 | DataType::Date32 => cast(&cast(&integers, &DataType::Int32).unwrap(), data_type).unwrap(),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(12, scale) => {
            cast(&cast(&integers, &DataType::Decimal128(38, *scale)).unwrap(), data_type).unwrap()
        }
        other => cast(&integers, other).unwrap(),
    }
}

fn nasty_float(chance: &mut Chance) -> f64 {
    const NASTY: [f64; 16] = [
        0.0,
        -0.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        -f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        1e300,
        -1e300,
        1e-300,
        0.1,
        9_007_199_254_740_993.0,
        -1.5,
    ];
    match chance.below(8) {
        // NaN and infinities hide everything else, so most columns should have none.
        0 => NASTY[chance.below(16)],
        1 => [f64::MAX, -f64::MAX, 5e-324, -5e-324, 1e300, -1e300][chance.below(6)],
        2 => f64::from_bits(chance.next() & 0x7fdf_ffff_ffff_ffff),
        3 | 4 => (chance.below(100_000) as f64 - 50_000.0) / 100.0,
        _ => chance.below(300) as f64 - 100.0,
    }
}

fn nullable<T, A: FromIterator<Option<T>>>(
    rows: usize,
    chance: &mut Chance,
    mut value: impl FnMut(&mut Chance) -> T,
) -> A {
    let nulls = chance.below(2) == 0;
    (0..rows).map(|_| if nulls && chance.below(3) == 0 { None } else { Some(value(chance)) }).collect()
}

fn check_all(rows: usize, seed: u64) {
    for aggregate in all() {
        let types = types_of(aggregate.name());
        assert!(!types.is_empty(), "{}: no law case", aggregate.name());
        for data_type in types {
            let values = column(&data_type, rows, &mut Chance::new(seed));
            let mut args = vec![Argument::Column(values)];
            if aggregate.name() == "approx_percentile_cont" {
                args.push(Argument::Literal(ScalarValue::Float64(Some(0.9))));
            }
            check(&aggregate, &args, seed).unwrap_or_else(|broken| panic!("{broken} ({data_type})"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    // order and transmission delay change nothing.
    #[test]
    fn every_aggregate_keeps_the_laws(seed in any::<u64>(), rows in 0_usize..60) {
        check_all(rows, seed);
    }
}

/// Enough rows for dense sketches, counted histograms and promoted sums.
#[test]
fn every_aggregate_keeps_the_laws_on_many_rows() {
    check_all(5_000, 1);
}

#[test]
fn rounded_float_sum_of_datafusion_breaks_a_law() {
    let values: ArrayRef = Arc::new((0..1000).map(|i| Some(f64::from(i).exp2().sin() * 0.1)).collect::<Float64Array>());
    let broken = check(&sum_udaf(), &[Argument::Column(values)], 7).unwrap_err();
    assert_eq!(broken.aggregate, "sum");
}

#[test]
fn unordered_list_of_datafusion_breaks_the_law_of_order() {
    let values: ArrayRef = Arc::new((0..100).map(Some).collect::<Int64Array>());
    let broken = check(&array_agg_udaf(), &[Argument::Column(values)], 7).unwrap_err();
    assert_eq!(broken.law, "the order of the rows does not matter");
}
