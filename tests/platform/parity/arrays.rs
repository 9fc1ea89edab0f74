//! The tests' values as Arrow arrays, and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, ListBuilder,
    StringBuilder, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use super::value::Value;

/// Values of a column as an array of the type.
pub(super) fn array<'a>(data_type: &DataType, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    let int = |value: &Value| if let Value::Int(value) = value { Some(i64::try_from(*value).unwrap()) } else { None };
    let time = |value: &Value| if let Value::Time(value) = value { Some(*value) } else { None };
    match data_type {
        DataType::Boolean => Arc::new(values.map(Value::truth).collect::<BooleanArray>()),
        DataType::Int32 => Arc::new(values.map(|v| int(v).map(|v| i32::try_from(v).unwrap())).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(values.map(int).collect::<Int64Array>()),
        DataType::Float64 => {
            Arc::new(values.map(|v| if let Value::Float(v) = v { Some(*v) } else { None }).collect::<Float64Array>())
        }
        DataType::Decimal128(..) => {
            let unscaled = values.map(|v| if let Value::Decimal(v, _) = v { Some(*v) } else { None });
            Arc::new(unscaled.collect::<Decimal128Array>().with_data_type(data_type.clone()))
        }
        DataType::Utf8View => Arc::new(
            values.map(|v| if let Value::Text(v) = v { Some(v.as_str()) } else { None }).collect::<StringViewArray>(),
        ),
        DataType::Timestamp(..) => {
            Arc::new(values.map(time).collect::<TimestampMicrosecondArray>().with_data_type(data_type.clone()))
        }
        DataType::List(item) if *item.data_type() == DataType::Utf8 => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for value in values {
                let Value::List(items) = value else {
                    lists.append_null();
                    continue;
                };
                lists.append_value(
                    items.iter().map(|item| if let Value::Text(text) = item { Some(text) } else { None }),
                );
            }
            Arc::new(lists.finish())
        }
        other => panic!("no column of the tests has type {other}"),
    }
}

/// The same with other values in the places of nulls: what lies there is no value.
pub(super) fn over_garbage(data_type: &DataType, values: &[&Value]) -> ArrayRef {
    let garbage = match data_type {
        DataType::Boolean => Value::Bool(true),
        DataType::Float64 => Value::Float(f64::NAN),
        DataType::Decimal128(_, scale) => Value::Decimal(7, (*scale).try_into().unwrap()),
        DataType::Utf8View => Value::Text("in the place of a null".into()),
        DataType::Timestamp(..) => Value::Time(7),
        DataType::List(_) => Value::List(vec![Value::Text("in the place of a null".into()), Value::Null]),
        _ => Value::Int(7),
    };
    let filled = values.iter().map(|value| if value.is_null() { &garbage } else { value });
    let nulls: BooleanArray = values.iter().map(|value| Some(value.is_null())).collect();
    arrow::compute::nullif(&array(data_type, filled), &nulls).unwrap()
}

/// The rows of answers.
pub(super) fn rows(answers: &[RecordBatch]) -> Vec<Vec<Value>> {
    let of_answer = |answer: &RecordBatch| -> Vec<Vec<Value>> {
        let row = |row: usize| answer.columns().iter().map(|column| value(column, row)).collect();
        (0..answer.num_rows()).map(row).collect()
    };
    answers.iter().flat_map(of_answer).collect()
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Int16 => Value::Int(column.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Value::Int(column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row).into()),
        DataType::UInt64 => Value::Int(column.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            Value::Decimal(column.as_primitive::<Decimal128Type>().value(row), (*scale).try_into().unwrap())
        }
        DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Value::Text(column.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Value::Text(column.as_string_view().value(row).to_owned()),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
            Value::Time(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::List(_) => Value::List(list(&column.as_list::<i32>().value(row))),
        other => panic!("no answer of the tests has type {other}"),
    }
}

/// The values of a list; those of structures one after the other.
fn list(items: &ArrayRef) -> Vec<Value> {
    let columns = match items.data_type() {
        DataType::Struct(_) => items.as_struct().columns(),
        _ => std::slice::from_ref(items),
    };
    (0..items.len()).flat_map(|row| columns.iter().map(move |column| value(column, row))).collect()
}

/// The bytes of states as an Arrow IPC stream, with every array laid out afresh: what lies in the slots of
/// nulls, and where in its buffers the text of a view array stands, is no part of a value.
pub(super) fn ipc(states: &RecordBatch) -> Vec<u8> {
    let fields = states.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields).unwrap();
    let rows = converter.convert_columns(states.columns()).unwrap();
    let afresh = RecordBatch::try_new(states.schema(), converter.convert_rows(&rows).unwrap()).unwrap();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &states.schema()).unwrap();
    writer.write(&afresh).unwrap();
    writer.into_inner().unwrap()
}
