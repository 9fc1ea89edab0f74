use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray,
    StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;
use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;
use rstest::rstest;
use schemas::freshness::{Freshness, Statistics};
use serde_json::{Value, json};

use super::*;

fn answer_of(columns: Vec<(&str, ArrayRef)>) -> QueryAnswer {
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    QueryAnswer {
        schema: rows.schema(),
        rows: vec![rows],
        truncated: false,
        next: None,
        statistics: Statistics { elapsed_ms: 1.5, cells_read: 3, bytes_read: 4, query_id: "q".into() },
        freshness: Freshness { as_of: "2026-01-01T00:00:00.000000Z".into(), complete: true, ..Freshness::default() },
    }
}

fn all_types() -> QueryAnswer {
    let decimal = Decimal128Array::from(vec![Some(1250), None]).with_precision_and_scale(10, 2).unwrap();
    let long = Decimal128Array::from(vec![Some(12_345_678_901_234_567), Some(-5)]);
    let long = long.with_precision_and_scale(38, 3).unwrap();
    let time = TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_001), None]).with_timezone("UTC");
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    answer_of(vec![
        ("big", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
        ("float", Arc::new(Float64Array::from(vec![0.1, f64::NEG_INFINITY]))),
        ("money", Arc::new(decimal)),
        ("long", Arc::new(long)),
        ("text", Arc::new(StringViewArray::from(vec!["a \"b\",\nc", ""]))),
        ("at", Arc::new(time)),
        ("day", Arc::new(Date32Array::from(vec![Some(19_675), None]))),
        ("yes", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("raw", Arc::new(BinaryArray::from(vec![Some(b"\x00\xff".as_slice()), None]))),
        ("list", Arc::new(list)),
    ])
}

#[test]
fn json_has_the_shape_of_the_interface() {
    let parsed: Value = serde_json::from_slice(&body(Format::Json, &all_types()).unwrap()).unwrap();
    assert_eq!(parsed["columns"][0], json!({"name": "big", "type": "BIGINT"}));
    assert_eq!(parsed["columns"][2]["type"], "NUMERIC(10, 2)");
    let first = json!([
        i64::MAX,
        0.1,
        12.5,
        "12345678901234.567",
        "a \"b\",\nc",
        "2023-11-14T22:13:20.000001Z",
        "2023-11-14",
        true,
        "\\x00ff",
        [1, null]
    ]);
    assert_eq!(parsed["rows"][0], first);
    assert_eq!(parsed["rows"][1], json!([null, "-Infinity", null, -0.005, "", null, null, null, null, null]));
    assert_eq!(parsed["row_count"], 2);
    assert_eq!(parsed["truncated"], false);
    assert_eq!(parsed["next"], Value::Null);
    assert_eq!(parsed["statistics"]["cells_read"], 3);
    assert_eq!(parsed["freshness"]["complete"], true);
}

#[test]
fn ndjson_ends_with_its_marker() {
    let text = String::from_utf8(body(Format::Ndjson, &all_types()).unwrap()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["money"], json!(12.5));
    assert_eq!(lines[2]["end"], true);
    assert_eq!(lines[2]["rows"], 2);
    assert_eq!(lines[2]["freshness"]["as_of"], "2026-01-01T00:00:00.000000Z");
}

#[test]
fn csv_quotes_and_tells_null_from_empty() {
    let answer = answer_of(vec![
        ("a", Arc::new(StringViewArray::from(vec![Some("x,\"y\""), None, Some("")])) as ArrayRef),
        ("b,c", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ]);
    let text = String::from_utf8(body(Format::Csv, &answer).unwrap()).unwrap();
    assert_eq!(text, "a,\"b,c\"\r\n\"x,\"\"y\"\"\",1\r\n,2\r\n\"\",3\r\n");
}

#[test]
fn arrow_stream_reads_back() {
    let answer = all_types();
    let bytes = body(Format::Arrow, &answer).unwrap();
    let read: Vec<RecordBatch> = StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, answer.rows);
}

#[rstest]
#[case(None, "text/csv", Format::Csv)]
#[case(None, "text/html, application/x-ndjson;q=0.9", Format::Ndjson)]
#[case(None, "*/*", Format::Json)]
#[case(Some("arrow"), "text/csv", Format::Arrow)]
fn format_is_chosen(#[case] parameter: Option<&str>, #[case] accept: &'static str, #[case] expected: Format) {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    assert_eq!(Format::choose(parameter, &headers).unwrap(), expected);
}

#[test]
fn unknown_format_is_refused() {
    assert_eq!(Format::choose(Some("xml"), &HeaderMap::new()).unwrap_err().code, Code::BadRequest);
}
