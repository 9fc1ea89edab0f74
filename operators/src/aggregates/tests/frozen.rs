//! States of version 1, kept in a file: whatever changes, they are read and mean the same.
//!
//! A line is a call, its answer, and its state columns: `call -> answer <- state | state`. A new aggregate
//! adds lines (the test prints them); a line that is there never changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, LargeBinaryArray,
    RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::AggregateUDF;

use crate::aggregates::{all, forms};
use crate::laws::Argument;
use crate::laws::call::{Call, States};

const FROZEN: &str = include_str!("../../../frozen/states-v1.txt");

fn integers() -> ArrayRef {
    Arc::new(Int64Array::from(vec![Some(3), Some(i64::MIN), None, Some(3), Some(-500), Some(i64::MAX)]))
}

fn floats() -> ArrayRef {
    Arc::new(Float64Array::from(vec![Some(0.1), Some(-0.0), None, Some(1e300), Some(0.1), Some(-5e-324)]))
}

/// The inputs by type; they are a part of the file's meaning and never change.
fn column(data_type: &str) -> ArrayRef {
    let flags = vec![Some(true), None, Some(false), Some(true), Some(true), Some(true)];
    match data_type {
        "integer" => integers(),
        "float" => floats(),
        "number" => Arc::new(Float64Array::from(vec![Some(1.5), Some(2.25), None, Some(-3.0), Some(1.5), Some(8.0)])),
        "ramp" => Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        "special" => {
            Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(f64::NEG_INFINITY), Some(1.5), None, None, None]))
        }
        "text" => Arc::new(StringViewArray::from(vec![Some("a"), Some(""), None, Some("zé\0"), Some("a"), Some("b")])),
        "flag" => Arc::new(BooleanArray::from(flags)),
        "decimal" => Arc::new(
            Decimal128Array::from(vec![Some(100), Some(-1), None, Some(7), Some(100), Some(10_i128.pow(30))])
                .with_precision_and_scale(38, 2)
                .unwrap(),
        ),
        "time" => {
            Arc::new(TimestampMicrosecondArray::from(vec![5, -1, 0, 5, 1_700_000_000_000_000, 9]).with_timezone("UTC"))
        }
        "many" => Arc::new((0..6_000_i64).map(|i| Some(i * i % 5_003)).collect::<Int64Array>()),
        "partition" => Arc::new(Int32Array::from(vec![1, 0, 1, 0, 1, 0])),
        "offset" => Arc::new(Int64Array::from(vec![7, 1 << 40, 8, 300, 9, 2])),
        other => panic!("no column {other}"),
    }
}

/// The calls that are frozen: the names of the arguments' columns, and constants.
fn calls(name: &str, lowered: bool) -> Vec<Vec<&'static str>> {
    let plain = name.strip_suffix("_distinct").filter(|_| lowered).unwrap_or(name);
    let value = |columns: &[&'static str]| columns.iter().map(|column| vec![*column]).collect();
    let any = ["integer", "float", "text", "flag", "decimal", "time"];
    match plain {
        "approx_distinct" => value(&["integer", "float", "text", "flag", "decimal", "time", "many"]),
        "count" | "min" | "max" => value(&any),
        "sum" | "avg" => value(&["integer", "number", "float", "special", "decimal"]),
        "bool_and" | "bool_or" => value(&["flag"]),
        "bit_and" | "bit_or" | "bit_xor" => value(&["integer"]),
        "approx_percentile_cont" | "percentile_cont" => vec![vec!["float", "0.75"], vec!["special", "0.25"]],
        "approx_top_k" => any.map(|column| vec![column, "2"]).to_vec(),
        "arg_min" | "arg_max" if lowered => vec![vec!["text", "integer", "partition", "offset"]],
        "arg_min" | "arg_max" => vec![vec!["text", "integer"]],
        ordered if ordered.contains('[') => {
            let keys = ordered.rsplit("; ").next().map_or(0, |keys| keys.matches("nulls").count());
            let columns = if ordered.starts_with("string_agg") { vec!["text"] } else { any.to_vec() };
            let place = ["partition", "offset"];
            let call = |column: &'static str| match (ordered.contains("[distinct"), keys) {
                (true, _) => vec![column, column],
                (false, 0) => [&[column][..], &place].concat(),
                (false, _) => [&[column, if column == "text" { "decimal" } else { "text" }][..], &place].concat(),
            };
            columns.into_iter().map(call).collect()
        }
        pairs if pairs == "corr" || pairs.starts_with("covar") || pairs.starts_with("regr_") => {
            vec![vec!["number", "ramp"], vec!["special", "ramp"]]
        }
        _ => value(&["number", "float", "special"]),
    }
}

fn argument(name: &str) -> Argument {
    match (name.parse::<i64>(), name.parse::<f64>()) {
        (Ok(integer), _) => Argument::Literal(ScalarValue::Int64(Some(integer))),
        (_, Ok(float)) => Argument::Literal(ScalarValue::Float64(Some(float))),
        _ => Argument::Column(column(name)),
    }
}

fn cell(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".into();
    }
    if array.data_type() == &DataType::LargeBinary {
        let hex = array.as_binary::<i64>().value(row).iter().map(|byte| format!("{byte:02x}"));
        format!("x{}", hex.collect::<String>())
    } else {
        let options = FormatOptions::new().with_null("NULL");
        let text = ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string();
        format!("{text:?}")
    }
}

fn parse(text: &str, data_type: &DataType) -> ArrayRef {
    if text == "NULL" {
        return ScalarValue::try_from(data_type).unwrap().to_array().unwrap();
    }
    if let Some(hex) = text.strip_prefix('x') {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        return Arc::new(LargeBinaryArray::from(vec![Some(bytes.as_slice())]));
    }
    let text: String = unescaped(text);
    ScalarValue::try_from_string(text, data_type).unwrap().to_array().unwrap()
}

/// The way back of `{:?}` of the texts that are in the file.
fn unescaped(text: &str) -> String {
    text.trim_matches('"').replace("\\0", "\0").replace("\\\"", "\"").replace("\\\\", "\\")
}

fn answer_of(call: &Call, states: &States) -> String {
    match call.evaluate(states) {
        Ok(answer) => cell(answer.as_ref(), 0),
        Err(error) => format!("error: {}", error.strip_backtrace()),
    }
}

/// Every call of the list, by name.
fn resolved() -> BTreeMap<String, Call> {
    let listed = all().into_iter().map(|aggregate| (aggregate, false));
    let lowered = forms().into_iter().map(|form| (form, true));
    let mut resolved = BTreeMap::new();
    let one = |(aggregate, lowered): (Arc<AggregateUDF>, bool)| {
        let kind = if lowered { "view" } else { "plain" };
        calls(aggregate.name(), lowered).into_iter().map(move |columns| {
            let args: Vec<Argument> = columns.iter().map(|column| argument(column)).collect();
            let name = format!("{kind} {}({})", aggregate.name(), columns.join(", "));
            (name, Call::new(&aggregate, &args).unwrap())
        })
    };
    for (name, call) in listed.chain(lowered).flat_map(one) {
        assert!(resolved.insert(name.clone(), call).is_none(), "{name} twice");
    }
    resolved
}

#[test]
fn states_of_version_1_are_written_and_read() {
    let frozen: BTreeMap<&str, (&str, &str)> = FROZEN
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (call, rest) = line.split_once(" -> ").unwrap();
            (call, rest.split_once(" <- ").unwrap())
        })
        .collect();
    let resolved = resolved();
    let mut missing = String::new();
    for (name, call) in &resolved {
        let states = call.fold(&call.all_rows()).unwrap();
        let columns: Vec<String> = states.rows().columns().iter().map(|column| cell(column.as_ref(), 0)).collect();
        let (answer, state) = (answer_of(call, &states), columns.join(" | "));
        let Some(line) = frozen.get(name.as_str()) else {
            missing += &[name, " -> ", &answer, " <- ", &state, "\n"].concat();
            continue;
        };
        assert_eq!(*line, (answer.as_str(), state.as_str()), "{name} is folded otherwise");
        let schema = states.rows().schema();
        let columns = line.1.split(" | ").zip(schema.fields()).map(|(text, field)| parse(text, field.data_type()));
        let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
        let read = States::of_parts(&schema, &[batch]).unwrap();
        assert_eq!(answer_of(call, &call.merge(&[&read]).unwrap()), line.0, "{name} is read otherwise");
    }
    assert!(missing.is_empty(), "not frozen:\n{missing}");
    let gone: Vec<&&str> = frozen.keys().filter(|name| !resolved.contains_key(**name)).collect();
    assert!(gone.is_empty(), "frozen, but not read by anything: {gone:?}");
}
