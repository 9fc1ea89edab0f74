use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Float64Type, Int32Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;
use rstest::rstest;
use schemas::column::ColumnDef;
use schemas::{ItemType, SqlType};
use serde_json::{Value as Json, json};

use super::*;
use crate::payload::{Format, split};
use crate::testing::stream;

fn typed(name: &str, sql_type: SqlType) -> StreamDef {
    let mut def = stream("s", 1);
    def.columns = vec![ColumnDef { name: name.into(), sql_type, nullable: true }];
    def
}

fn decode_all(def: &StreamDef, limits: &Limits, body: &[u8], format: Format) -> Decoded {
    let records = split(body, format).unwrap();
    decode(def, limits, body, &records).unwrap()
}

/// The value of the only column as text, or the code of the verdict.
fn one(sql_type: SqlType, value: &str) -> String {
    let def = typed("v", sql_type);
    let body = format!(r#"{{"v":{value}}}"#);
    let decoded = decode_all(&def, &Limits::default(), body.as_bytes(), Format::Ndjson);
    match decoded.bad.first() {
        Some(bad) => bad.error.code.clone(),
        None if decoded.rows.column(0).is_null(0) => "null".into(),
        None => array_value_to_string(decoded.rows.column(0), 0).unwrap(),
    }
}

const NUMERIC: SqlType = SqlType::Numeric { precision: 5, scale: 2 };

#[rstest]
#[case(SqlType::Int, "7", "7")]
#[case(SqlType::Int, "\"7\"", "7")]
#[case(SqlType::Int, "-0", "0")]
#[case(SqlType::Int, "2.0", "2")]
#[case(SqlType::Int, "1e3", "1000")]
#[case(SqlType::Int, "null", "null")]
#[case(SqlType::Int, "1.5", "bad_value")]
#[case(SqlType::Int, "\"x\"", "bad_value")]
#[case(SqlType::Int, "\"\"", "bad_value")]
#[case(SqlType::Int, "\" 7\"", "bad_value")]
#[case(SqlType::Int, "2147483648", "bad_value")]
#[case(SqlType::Int, "true", "bad_value")]
#[case(SqlType::Int, "[1]", "bad_value")]
#[case(SqlType::Array(ItemType::Int), "[1, \"2\",null , 3e0]", "[1, 2, , 3]")]
#[case(SqlType::Array(ItemType::Int), "[ ]", "[]")]
#[case(SqlType::Array(ItemType::Int), "null", "null")]
#[case(SqlType::Array(ItemType::Int), "7", "bad_value")]
#[case(SqlType::Array(ItemType::Int), "\"[1]\"", "bad_value")]
#[case(SqlType::Array(ItemType::Int), "[1.5]", "bad_value")]
#[case(SqlType::Array(ItemType::Int), "[[1]]", "bad_value")]
#[case(SqlType::Array(ItemType::Int), "[1,true,{\"a\":[]}]", "bad_value")]
#[case(SqlType::Array(ItemType::Int), "[1,]", "bad_json")]
#[case(SqlType::Array(ItemType::Int), "[1 2]", "bad_json")]
#[case(SqlType::Array(ItemType::Int), "[true,]", "bad_json")]
#[case(SqlType::Array(ItemType::Int), "[1", "bad_json")]
#[case(SqlType::Array(ItemType::Text), "[\"a\\u00e9\", \"\", null]", "[aé, , ]")]
#[case(SqlType::Array(ItemType::Boolean), "[true,false]", "[true, false]")]
#[case(SqlType::Array(ItemType::Date), "[\"2024-02-29\"]", "[2024-02-29]")]
#[case(SqlType::Array(ItemType::Numeric { precision: 5, scale: 2 }), "[1.5, \"2\"]", "[1.50, 2.00]")]
#[case(SqlType::Array(ItemType::Double), "[\"NaN\"]", "[NaN]")]
#[case(SqlType::Int, "{\"a\":1}", "bad_value")]
#[case(SqlType::Int, "07", "bad_json")]
#[case(SqlType::Int, "+7", "bad_json")]
#[case(SqlType::Int, "7.", "bad_json")]
#[case(SqlType::Int, "7e", "bad_json")]
#[case(SqlType::Int, "", "bad_json")]
#[case(SqlType::Int, "nul", "bad_json")]
#[case(SqlType::Int, "1-2", "bad_json")]
#[case(SqlType::SmallInt, "-32768", "-32768")]
#[case(SqlType::SmallInt, "32768", "bad_value")]
#[case(SqlType::BigInt, "9223372036854775807", "9223372036854775807")]
#[case(SqlType::BigInt, "-9223372036854775808", "-9223372036854775808")]
#[case(SqlType::BigInt, "9223372036854775808", "bad_value")]
#[case(SqlType::Double, "0.1", "0.1")]
#[case(SqlType::Double, "\"NaN\"", "NaN")]
#[case(SqlType::Double, "\"-Infinity\"", "-inf")]
#[case(SqlType::Double, "1e999", "bad_value")]
#[case(SqlType::Double, "NaN", "bad_json")]
#[case(SqlType::Double, "\"inf\"", "bad_value")]
#[case(SqlType::Real, "0.1", "0.1")]
#[case(SqlType::Real, "1e39", "bad_value")]
#[case(NUMERIC, "12.345", "12.35")]
#[case(NUMERIC, "\"-999.99\"", "-999.99")]
#[case(NUMERIC, "999.995", "bad_value")]
#[case(NUMERIC, "1e2", "100.00")]
#[case(SqlType::Boolean, "true", "true")]
#[case(SqlType::Boolean, "false", "false")]
#[case(SqlType::Boolean, "\"true\"", "bad_value")]
#[case(SqlType::Boolean, "1", "bad_value")]
#[case(SqlType::Boolean, "tru", "bad_json")]
#[case(SqlType::Text, r#""a\"b\\\/\n\u00e9\ud83d\ude00""#, "a\"b\\/\né😀")]
#[case(SqlType::Text, "\"null\"", "null")]
#[case(SqlType::Text, "7", "bad_value")]
#[case(SqlType::Text, "true", "bad_value")]
#[case(SqlType::Text, r#""\x""#, "bad_json")]
#[case(SqlType::Text, r#""\ud83d""#, "bad_json")]
#[case(SqlType::Text, r#""\ud83dé\u00e9""#, "bad_json")]
#[case(SqlType::Text, r#""\u00é""#, "bad_json")]
#[case(SqlType::Text, "\"open", "bad_json")]
#[case(SqlType::Text, "\"open\\", "bad_json")]
#[case(SqlType::Date, "\"2024-02-29\"", "2024-02-29")]
#[case(SqlType::Date, "\"2023-02-29\"", "bad_value")]
#[case(SqlType::Date, "19723", "bad_value")]
#[case(SqlType::TimestampTz, "\"2024-02-29T12:00:00.123456+01:00\"", "2024-02-29T11:00:00.123456Z")]
#[case(SqlType::TimestampTz, "1709208000123", "2024-02-29T12:00:00.123Z")]
#[case(SqlType::TimestampTz, "1709208000123.5", "2024-02-29T12:00:00.123500Z")]
#[case(SqlType::TimestampTz, "-1", "1969-12-31T23:59:59.999Z")]
#[case(SqlType::TimestampTz, "999999999999999999", "bad_value")]
#[case(SqlType::TimestampTz, "\"yesterday\"", "bad_value")]
#[case(SqlType::Json, "{\"a\" : [1, \"x\\u00e9\"]}", "{\"a\" : [1, \"x\\u00e9\"]}")]
#[case(SqlType::Json, "\"text\"", "\"text\"")]
#[case(SqlType::Json, "1.50", "1.50")]
#[case(SqlType::Json, "{\"a\":}", "bad_json")]
#[case(SqlType::Json, "[1,]", "bad_json")]
#[case(SqlType::Json, "[1}", "bad_json")]
fn a_value_is_typed_or_refused(#[case] sql_type: SqlType, #[case] value: &str, #[case] expected: &str) {
    assert_eq!(one(sql_type, value), expected);
}

#[rstest]
#[case::no_object("7", "bad_json", None, "stream s: not JSON: expected a JSON object at byte 0")]
#[case::torn(r#"{"id":"a","#, "bad_json", None, "stream s: not JSON: expected a string at byte 10")]
#[case::trailing_comma(r#"{"id":"a",}"#, "bad_json", None, "stream s: not JSON: expected a string at byte 10")]
#[case::no_comma(r#"{"id":"a" "b":1}"#, "bad_json", None, "stream s: not JSON: expected \",\" or \"}\" at byte 10")]
#[case::two_on_a_line(
    r#"{"id":"a","event_time":1}{"id":"b"}"#,
    "bad_json",
    None,
    "stream s: not JSON: expected the end of the record at byte 25"
)]
#[case::unknown_key_broken(
    r#"{"id":"a","x":[1,}"#,
    "bad_json",
    None,
    "stream s: not JSON: expected a value at byte 17"
)]
#[case::missing(
    r#"{"event_time":1}"#,
    "missing_value",
    Some("id"),
    "stream s: column id: is NOT NULL and has no value"
)]
#[case::null(
    r#"{"id":"a","event_time":null}"#,
    "missing_value",
    Some("event_time"),
    "stream s: column event_time: is NOT NULL and has no value"
)]
#[case::wrong_type(
    r#"{"id":"a","files":"x","event_time":1}"#,
    "bad_value",
    Some("files"),
    "stream s: column files: expected INT, found \"x\""
)]
#[case::wrong_time(
    r#"{"id":"a","event_time":"soon"}"#,
    "bad_value",
    Some("event_time"),
    "stream s: column event_time: expected TIMESTAMPTZ, found \"soon\""
)]
fn a_bad_record_is_named(#[case] line: &str, #[case] code: &str, #[case] column: Option<&str>, #[case] message: &str) {
    let body = format!("{{\"id\":\"ok\",\"event_time\":1}}\n{line}\n{{\"id\":\"ok2\",\"event_time\":2}}\n");
    let decoded = decode_all(&stream("s", 1), &Limits::default(), body.as_bytes(), Format::Ndjson);
    assert_eq!(decoded.rows.num_rows(), 2);
    let error = &decoded.bad[0].error;
    assert_eq!((error.index, error.code.as_str(), error.column.as_deref()), (1, code, column));
    assert_eq!(error.message, message);
    assert_eq!(&body[decoded.bad[0].bytes.clone()], line);
}

#[test]
fn a_long_wrong_value_is_shortened() {
    let body = format!(r#"{{"id":"a","files":"{}","event_time":1}}"#, "é".repeat(500));
    let decoded = decode_all(&stream("s", 1), &Limits::default(), body.as_bytes(), Format::Ndjson);
    assert!(decoded.bad[0].error.message.chars().count() < 120, "{}", decoded.bad[0].error.message);
}

#[test]
fn three_bad_of_a_thousand_keep_the_others() {
    let lines: Vec<String> = (0..1_000)
        .map(|i| match i {
            17 => "{".to_owned(),
            500 => r#"{"id":"x","files":[],"event_time":1}"#.to_owned(),
            999 => r#"{"files":1,"event_time":1}"#.to_owned(),
            i => format!(r#"{{"event_time":{i},"id":"e{i}","unknown":{{"a":[null]}},"files":{i}}}"#),
        })
        .collect();
    let decoded = decode_all(&stream("s", 1), &Limits::default(), lines.join("\r\n").as_bytes(), Format::Ndjson);
    let bad: Vec<(u64, &str)> = decoded.bad.iter().map(|b| (b.error.index, b.error.code.as_str())).collect();
    assert_eq!(bad, [(17, "bad_json"), (500, "bad_value"), (999, "missing_value")]);
    assert_eq!((decoded.rows.num_rows(), decoded.received()), (997, 1_000));
    let files = decoded.rows.column(2).as_primitive::<Int32Type>();
    assert_eq!((files.value(16), files.value(17), files.value(996)), (16, 18, 998));
}

#[test]
fn bytes_that_are_no_text_spoil_only_their_record() {
    let mut body = b"{\"id\":\"a\",\"event_time\":1}\n{\"id\":\"".to_vec();
    body.extend(b"\xff\xfe\",\"event_time\":1}\n{\"id\":\"\xc3\xa9\",\"event_time\":1}\n");
    let decoded = decode_all(&stream("s", 1), &Limits::default(), &body, Format::Ndjson);
    assert_eq!(decoded.bad[0].error.message, "record: not UTF-8 at byte 7");
    assert_eq!(decoded.rows.column(0).as_string_view().iter().flatten().collect::<Vec<_>>(), ["a", "é"]);
}

#[test]
fn size_and_depth_are_bounded() {
    let limits = Limits { record_bytes_max: 100, record_depth_max: 3, ..Limits::default() };
    let good = r#"{"id":"a","event_time":1,"x":{"y":[]}}"#;
    let deep = r#"{"id":"a","event_time":1,"x":{"y":[{}]}}"#;
    let deep_in_column = r#"{"id":[[[[]]]],"event_time":1}"#;
    let long = format!(r#"{{"id":"{}","event_time":1}}"#, "a".repeat(100));
    let body = [good, deep, deep_in_column, &long].join("\n");
    let decoded = decode_all(&stream("s", 1), &limits, body.as_bytes(), Format::Ndjson);
    let bad: Vec<(u64, &str)> = decoded.bad.iter().map(|b| (b.error.index, b.error.code.as_str())).collect();
    assert_eq!(bad, [(1, "too_deep"), (2, "too_deep"), (3, "too_large")]);
}

/// Recursion would overflow the stack.
#[test]
fn a_million_brackets_are_only_too_deep() {
    let limits = Limits { record_depth_max: usize::MAX, ..Limits::default() };
    for bracket in ["[", "{\"a\":"] {
        let body = format!(r#"{{"id":{}"#, bracket.repeat(200_000));
        assert_eq!(
            decode_all(&stream("s", 1), &Limits::default(), body.as_bytes(), Format::Ndjson).bad[0].error.code,
            "too_deep"
        );
        assert_eq!(decode_all(&stream("s", 1), &limits, body.as_bytes(), Format::Ndjson).bad[0].error.code, "bad_json");
    }
}

#[test]
fn order_of_keys_may_change_and_the_last_of_two_counts() {
    let body = r#"{"id":"a","files":1,"event_time":1}
{"event_time":2,"id":"b","files":2}
{"other":0,"files":3,"id":"x","id":"c","event_time":3}
{"\u0069d":"d","files":4,"event_time":4}"#;
    let decoded = decode_all(&stream("s", 1), &Limits::default(), body.as_bytes(), Format::Ndjson);
    assert_eq!(decoded.bad, vec![]);
    assert_eq!(decoded.rows.column(0).as_string_view().iter().flatten().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(decoded.rows.column(2).as_primitive::<Int32Type>().values(), &[1, 2, 3, 4]);
    assert_eq!(
        decoded.rows.column(3).as_primitive::<TimestampMicrosecondType>().values(),
        &[1_000, 2_000, 3_000, 4_000]
    );
}

fn wide_stream() -> StreamDef {
    let mut def = stream("s", 1);
    let types = [
        ("t", SqlType::Text),
        ("i", SqlType::Int),
        ("l", SqlType::BigInt),
        ("d", SqlType::Double),
        ("n", SqlType::Numeric { precision: 20, scale: 3 }),
        ("b", SqlType::Boolean),
        ("j", SqlType::Json),
    ];
    def.columns = types.map(|(name, sql_type)| ColumnDef { name: name.into(), sql_type, nullable: true }).into();
    def
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-1_000_i64..1_000).prop_map(Json::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Json::from),
        ".{0,20}".prop_map(Json::from),
        any::<i32>().prop_map(|i| Json::from(i.to_string())),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map("[a-z\"\\\\]{0,3}", inner, 0..4).prop_map(|m| json!(m)),
        ]
    })
}

fn any_record() -> impl Strategy<Value = serde_json::Map<String, Json>> {
    let key = prop_oneof![4 => proptest::sample::select(vec!["t", "i", "l", "d", "n", "b", "j"]).prop_map(str::to_owned), 1 => ".{0,4}"];
    let typed = prop_oneof![
        proptest::collection::vec((key, any_json()), 0..6).prop_map(|pairs| pairs.into_iter().collect()),
        (".{0,30}", any::<i32>(), any::<i64>(), -1e9..1e9_f64, any::<bool>(), any_json()).prop_map(
            |(t, i, l, d, b, j)| json!({"t":t,"i":i,"l":l,"d":d,"n":d,"b":b,"j":j}).as_object().unwrap().clone()
        ),
    ];
    typed
}

/// What serde_json's value means for a column; `Err` if it does not fit.
fn oracle(value: Option<&Json>, sql_type: SqlType) -> Result<Option<String>, ()> {
    let Some(value) = value.filter(|v| sql_type == SqlType::Json || !v.is_null()) else { return Ok(None) };
    let whole = |json: &Json, min: i64, max: i64| {
        let number = match json {
            Json::String(text) => {
                serde_json::from_str::<serde_json::Number>(text).ok().filter(|n| n.to_string() == *text)
            }
            Json::Number(number) => Some(number.clone()),
            _ => None,
        };
        let number = number.ok_or(())?;
        let integer = number
            .as_i64()
            .or_else(|| number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9.2e18).map(|f| f as i64));
        integer.filter(|i| (min..=max).contains(i)).map(|i| Some(i.to_string())).ok_or(())
    };
    match sql_type {
        SqlType::Text => value.as_str().map(|t| Some(t.to_owned())).ok_or(()),
        SqlType::Int => whole(value, i32::MIN.into(), i32::MAX.into()),
        SqlType::BigInt => whole(value, i64::MIN, i64::MAX),
        SqlType::Boolean => value.as_bool().map(|b| Some(b.to_string())).ok_or(()),
        SqlType::Double => match value {
            Json::Number(n) => Ok(n.as_f64().map(|f| f.to_bits().to_string())),
            Json::String(text) => text.parse::<i32>().map(|i| Some(f64::from(i).to_bits().to_string())).map_err(|_| ()),
            _ => Err(()),
        },
        SqlType::Json => Ok(if value.is_null() { None } else { Some(value.to_string()) }),
        _ => Ok(None),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The decoder against serde_json, an implementation that shares no code with it.
    #[test]
    fn decoding_agrees_with_serde_json(records in proptest::collection::vec(any_record(), 1..12), spaced in any::<bool>(), array in any::<bool>()) {
        let def = wide_stream();
        let line = |record: &serde_json::Map<String, Json>| {
            let text = serde_json::to_string(record).unwrap();
            if spaced { format!(" {text}\t ") } else { text }
        };
        let lines: Vec<String> = records.iter().map(line).collect();
        let (body, format) = if array {
            (format!(" [{}] ", lines.join(",\n")), Format::Json)
        } else {
            (lines.join("\n"), Format::Ndjson)
        };
        let decoded = decode_all(&def, &Limits::default(), body.as_bytes(), format);
        prop_assert_eq!(decoded.received(), records.len() as u64);
        let mut row = 0;
        for (index, record) in (0_u64..).zip(&records) {
            // NUMERIC has no oracle here: its values come from DOUBLE's, whose text need not fit.
            let numeric_fits = one(SqlType::Numeric { precision: 20, scale: 3 }, &record.get("n").unwrap_or(&Json::Null).to_string());
            let expected: Result<Vec<_>, ()> = def.columns.iter().map(|c| oracle(record.get(&c.name), c.sql_type)).collect();
            let good = expected.is_ok() && numeric_fits != "bad_value";
            let verdict = decoded.bad.iter().find(|bad| bad.error.index == index);
            prop_assert_eq!(verdict.is_none(), good, "{:?} {:?}", record, verdict);
            if !good { continue; }
            for (column, expected) in decoded.rows.columns().iter().zip(expected.unwrap()).filter(|(c, _)| !matches!(c.data_type(), arrow::datatypes::DataType::Decimal128(..))) {
                let found = match column.data_type() {
                    _ if column.is_null(row) => None,
                    arrow::datatypes::DataType::Float64 => Some(column.as_primitive::<Float64Type>().value(row).to_bits().to_string()),
                    arrow::datatypes::DataType::Utf8View => Some(column.as_string_view().value(row).to_owned()),
                    _ => Some(array_value_to_string(column, row).unwrap()),
                };
                prop_assert_eq!(found, expected);
            }
            row += 1;
        }
    }

    /// The decoder against arrow-json, where both take the record.
    #[test]
    fn decoding_agrees_with_arrow_json(
        rows in proptest::collection::vec((".{0,40}", proptest::option::of(any::<i32>()), any::<i64>(), any::<f64>().prop_filter("finite", |f| f.is_finite()), -99_999_999_i64..99_999_999, any::<bool>()), 1..20),
    ) {
        let mut def = wide_stream();
        def.columns.pop();
        let line = |(t, i, l, d, n, b): &(String, Option<i32>, i64, f64, i64, bool)| {
            let n = format!("{}{}.{:03}", if *n < 0 { "-" } else { "" }, n.abs() / 1_000, n.abs() % 1_000);
            format!("{},\"n\":{n}}}", json!({"b":b,"d":d,"i":i,"l":l,"t":t}).to_string().trim_end_matches('}'))
        };
        let body: String = rows.iter().map(|row| line(row) + "\n").collect();
        let decoded = decode_all(&def, &Limits::default(), body.as_bytes(), Format::Ndjson);
        let mut theirs = arrow_json::ReaderBuilder::new(def.event_schema()).with_batch_size(64).build_decoder().unwrap();
        theirs.decode(body.as_bytes()).unwrap();
        prop_assert_eq!(&decoded.bad, &vec![]);
        prop_assert_eq!(decoded.rows.column(4).as_primitive::<Decimal128Type>().len(), rows.len());
        prop_assert_eq!(decoded.rows, theirs.flush().unwrap().unwrap());
    }

    /// Whatever the bytes: no panic, and every record gets one verdict.
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec((0_usize..400, any::<u8>()), 0..6), json in any::<bool>()) {
        let def = Arc::new(wide_stream());
        let format = if json { Format::Json } else { Format::Ndjson };
        let mut damaged = br#"[{"t":"a\u00e9\ud83d\ude00","i":-12,"l":1.5e3,"d":0.1,"n":"7.25","b":true,"j":{"x":[1,{"y":null}]}},
{"t":null,"unknown":[[],{}],"j":"\\"}]"#.to_vec();
        for (at, byte) in cuts {
            let at = at % damaged.len();
            damaged[at] = byte;
        }
        for body in [bytes, damaged] {
            if let Ok(records) = split(&body, format) {
                let decoded = decode(&def, &Limits::default(), &body, &records).unwrap();
                prop_assert_eq!(decoded.received(), records.len() as u64);
            }
        }
    }
}
