//! What a user sees.

use schemas::freshness::{BatchFreshness, SpeedFreshness, ViewFreshness};
use schemas::{Verdict, freshness::AnswerColumn};
use serde_json::json;

use super::*;

fn sample() -> Table {
    let column = |name: &str, sql_type: &str| AnswerColumn { name: name.into(), sql_type: sql_type.into() };
    Table {
        columns: vec![column("repo", "TEXT"), column("commits", "BIGINT"), column("share", "NUMERIC(4, 2)")],
        rows: vec![
            vec!["influxdata/influxdb".into(), json!(38959).into(), "28.33".into()],
            vec!["a,\"b\"".into(), json!(7).into(), Value::Null.into()],
        ],
    }
}

#[test]
fn table_aligns_numbers_to_the_right() {
    insta::assert_snapshot!("table", sample().render(Format::Table));
}

#[test]
fn json_is_an_array_of_objects_in_column_order() {
    let text = sample().render(Format::Json);
    insta::assert_snapshot!("json", text);
    let parsed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed[0]["commits"], json!(38959));
    assert_eq!(Table::default().render(Format::Json), "[]\n");
}

#[test]
fn ndjson_is_one_object_a_line() {
    let text = sample().render(Format::Ndjson);
    assert_eq!(
        text,
        "{\"repo\":\"influxdata/influxdb\",\"commits\":38959,\"share\":\"28.33\"}\n\
         {\"repo\":\"a,\\\"b\\\"\",\"commits\":7,\"share\":null}\n"
    );
}

#[test]
fn csv_quotes_what_needs_it_and_leaves_null_empty() {
    assert_eq!(
        sample().render(Format::Csv),
        "repo,commits,share\ninfluxdata/influxdb,38959,28.33\n\"a,\"\"b\"\"\",7,\n"
    );
}

#[test]
fn numbers_keep_the_digits_that_the_server_sent() {
    // a parser that rounds less than perfectly makes another number of the first one
    let sent = "[[51.248178375505404, 1e400, 0.10, [1.0, 51.248178375505404], 12345678901234567890123]]";
    let columns = ["a", "b", "c", "d", "e"];
    let table = Table { rows: serde_json::from_str(sent).unwrap(), ..Table::with_columns(columns) };
    let line = "{\"a\":51.248178375505404,\"b\":1e400,\"c\":0.10,\"d\":[1.0, 51.248178375505404],\"e\":12345678901234567890123}";
    assert_eq!(table.render(Format::Ndjson), format!("{line}\n"));
    assert_eq!(table.render(Format::Json), format!("[\n  {line}\n]\n"));
    assert!(table.render(Format::Csv).starts_with("a,b,c,d,e\n51.248178375505404,1e400,0.10,"));
    assert!(table.render(Format::Table).contains("51.248178375505404"));
    let answer = answer_text(&format!("{{\"rows\":{sent},\"columns\":[{{\"name\":\"a\"}}]}}")).unwrap();
    let start = "{\n  \"columns\": [\n    {\n      \"name\": \"a\"\n    }\n  ],\n  \"rows\": [\n    [\n      51.248178375505404,\n      1e400,";
    assert!(answer.starts_with(start), "{answer}");
}

#[test]
fn facts_of_a_document_have_dotted_names() {
    let table = Table::facts(&json!({"run": 8, "cells": {"compared": 3, "differing": 0}, "list": [1]}));
    let lines: Vec<String> = table.rows.iter().map(|row| format!("{}={}", row[0].text(), row[1].text())).collect();
    assert_eq!(lines, ["cells.compared=3", "cells.differing=0", "list=[1]", "run=8"]);
}

#[test]
fn objects_keep_the_named_columns_in_front() {
    let table = Table::of_objects(&[json!({"a": 1, "id": 2}), json!({"id": 3})], &["id", "absent"]);
    assert_eq!(table.render(Format::Ndjson), "{\"id\":2,\"a\":1}\n{\"id\":3,\"a\":null}\n");
}

#[test]
fn freshness_is_one_line() {
    let mut view = ViewFreshness {
        view: "v".into(),
        version: 1,
        batch: Some(BatchFreshness {
            run: 7,
            published_at: String::new(),
            cut: [(0, 34378), (1, 34001)].into(),
            certificate: Verdict::Exact,
        }),
        speed: Some(SpeedFreshness {
            from: [(0, 34378)].into(),
            to: [(0, 34380), (1, 34001)].into(),
            watermark: None,
            lag_ms: 4,
            late_since_cut: 0,
        }),
    };
    assert_eq!(
        freshness_line(&view),
        "batch run 7 (exact) to {0:34378,1:34001} + speed to {0:34380,1:34001}, lag 4 ms"
    );
    view.batch = None;
    assert_eq!(freshness_line(&view), "speed to {0:34380,1:34001}, lag 4 ms");
}

#[test]
fn counts_are_grouped_by_thousands() {
    assert_eq!([0, 999, 1_000, 137_512, 1_000_000].map(grouped), ["0", "999", "1,000", "137,512", "1,000,000"]);
}
