//! Every aggregate of the list keeps the laws, and the laws find what breaks them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, make_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::{array_agg::array_agg_udaf, sum::sum_udaf};
use proptest::prelude::*;

use super::chance::Chance;
use super::*;
use crate::aggregates::{all, forms};

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
        "approx_median" | "median_exact" | "var_pop" | "var" | "stddev_pop" | "stddev" => vec![Float64],
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

/// How an aggregate is called: columns of types, and literals.
enum Arg {
    Column(DataType),
    Literal(ScalarValue),
    /// The same column once more.
    Again,
    Partition,
    Offset,
}

/// The calls that an aggregate is tried with; none means that the case is missing.
fn calls_of(name: &str, lowered: bool, chance: &mut Chance) -> Vec<Vec<Arg>> {
    let share = || Arg::Literal(ScalarValue::Float64(Some(0.9)));
    let one = |types: Vec<DataType>| types.into_iter().map(|data_type| vec![Arg::Column(data_type)]).collect();
    let plain = name.strip_suffix("_distinct").filter(|_| lowered).unwrap_or(name);
    match plain {
        "approx_percentile_cont" | "percentile_cont" => vec![vec![Arg::Column(DataType::Float64), share()]],
        "approx_top_k" => {
            let k = || Arg::Literal(ScalarValue::Int64(Some(3)));
            ordered_types().into_iter().map(|values| vec![Arg::Column(values), k()]).collect()
        }
        "covar_pop" | "covar_samp" | "corr" => {
            vec![vec![Arg::Column(DataType::Float64), Arg::Column(DataType::Float64)]]
        }
        regression if regression.starts_with("regr_") => {
            vec![vec![Arg::Column(DataType::Float64), Arg::Column(DataType::Float64)]]
        }
        "arg_min" | "arg_max" => ordered_calls(1, lowered, &ordered_types(), chance),
        ordered if ordered.contains('[') => {
            let keys = ordered.rsplit("; ").next().map_or(0, |keys| keys.matches("nulls").count());
            let texts = [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View];
            let types = if ordered.starts_with("string_agg") { texts.to_vec() } else { ordered_types() };
            if ordered.contains("[distinct") {
                return types.into_iter().map(|data_type| vec![Arg::Column(data_type), Arg::Again]).collect();
            }
            ordered_calls(keys, true, &types, chance)
        }
        other => one(types_of(other)),
    }
}

/// Values of all types, by keys of some types.
fn ordered_calls(keys: usize, by_position: bool, types: &[DataType], chance: &mut Chance) -> Vec<Vec<Arg>> {
    let call = |value: &DataType| {
        let mut args = vec![Arg::Column(value.clone())];
        let keyed = ordered_types();
        args.extend((0..keys).map(|_| Arg::Column(keyed[chance.below(keyed.len())].clone())));
        if by_position {
            args.extend([Arg::Partition, Arg::Offset]);
        }
        args
    };
    types.iter().map(call).collect()
}

fn argument(arg: &Arg, rows: usize, chance: &mut Chance, before: &[Argument]) -> Argument {
    match arg {
        Arg::Column(data_type) => Argument::Column(column(data_type, rows, chance)),
        Arg::Literal(value) => Argument::Literal(value.clone()),
        Arg::Again => before[0].clone(),
        Arg::Partition => {
            Argument::Column(Arc::new((0..rows).map(|_| Some(chance.below(3) as i32)).collect::<Int32Array>()))
        }
        Arg::Offset => Argument::Column(Arc::new((0..rows).map(|row| Some(row as i64)).collect::<Int64Array>())),
    }
}

/// Of few rows, every seed tries some types: the seeds together try all of them.
const TYPES_AT_ONCE: usize = 4;
const ROWS_OF_ALL_TYPES: usize = 1_000;

fn check_all(rows: usize, seed: u64) {
    let listed = all().into_iter().map(|aggregate| (aggregate, false));
    for (aggregate, lowered) in listed.chain(forms().into_iter().map(|form| (form, true))) {
        let mut chance = Chance::new(seed);
        let mut calls = calls_of(aggregate.name(), lowered, &mut chance);
        assert!(!calls.is_empty(), "{}: no law case", aggregate.name());
        if rows < ROWS_OF_ALL_TYPES {
            calls = chance.shuffled(calls);
            calls.truncate(TYPES_AT_ONCE);
        }
        for call in calls {
            let mut args: Vec<Argument> = vec![];
            for arg in &call {
                let argument = argument(arg, rows, &mut chance, &args);
                args.push(argument);
            }
            let types: Vec<String> = args.iter().map(|arg| format!("{arg:.60?}")).collect();
            check(&aggregate, &args, seed).unwrap_or_else(|broken| panic!("{broken} ({types:?})"));
        }
    }
}

/// A cell past its cap is past it in every order and by every way of merging. (DESIGN §6)
#[test]
fn a_state_past_its_cap_keeps_the_laws() {
    let rows = schemas::limits::CELL_VALUES_MAX as i64 + 500;
    let numbers: ArrayRef = Arc::new((0..rows).map(|row| Some(row * 7)).collect::<Int64Array>());
    let texts = |row: i64| Some(format!("{row:0>600}"));
    let texts: ArrayRef = Arc::new((0..2_000).map(texts).collect::<arrow::array::StringViewArray>());
    let of = |name: &str| forms().into_iter().find(|form| form.name() == name).unwrap();
    check(&of("count_distinct"), &[Argument::Column(Arc::clone(&numbers))], 3).unwrap();
    check(&of("count_distinct"), &[Argument::Column(Arc::clone(&texts))], 3).unwrap();
    for (name, values) in [("count_distinct", numbers), ("sum_distinct", Arc::new(Int64Array::from(vec![1, 1])) as _)] {
        let call = super::call::Call::new(&of(name), &[Argument::Column(values)]).unwrap();
        let answer = call.evaluate(&call.fold(&call.all_rows()).unwrap()).unwrap();
        let over = answer.as_struct().column(1).as_boolean().value(0);
        assert_eq!(over, name == "count_distinct");
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
