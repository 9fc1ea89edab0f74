//! JSON bodies → typed rows and verdicts.
//!
//! What has to hold: every record is a row or a bad record, whatever stands beside it; a record that is taken is
//! JSON to another parser, and one that is called broken is not.

use ingest::decode::{Decoded, decode};
use ingest::payload::{Format, split};
use schemas::column::ColumnDef;
use schemas::{LatePolicy, Limits, OnBadData, SqlType, StreamDef, Transport};
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::Target;

/// Nesting up to here both parsers read.
const DEPTH_MAX: usize = 64;

const WORDS: &[&str] = &[
    "\"id\":",
    "\"at\":",
    "\"n\":",
    "\"j\":",
    "\"x\":",
    "null",
    "true",
    "false",
    "\"NaN\"",
    "\"-Infinity\"",
    "\\u0000",
    "\\ud83d\\ude00",
    "\\udc00",
    "\\ud800",
    "\"2024-02-29T12:00:00.999999+14:00\"",
    "\"0001-01-01\"",
    "\"9999-12-31T23:59:60Z\"",
    "-0.0",
    "e+",
    "E-400",
    "\r\n",
    "\t",
    "[[",
    "]]",
    "}{",
    ",,",
    "\"\":",
    "//",
    "\u{feff}",
    "{\"id\":\"a\"}",
    "  ",
    "\\",
];

/// A stream with a column of every type.
pub(super) fn stream() -> StreamDef {
    let types = [
        ("id", SqlType::Text),
        ("at", SqlType::TimestampTz),
        ("b", SqlType::Boolean),
        ("s", SqlType::SmallInt),
        ("i", SqlType::Int),
        ("n", SqlType::BigInt),
        ("r", SqlType::Real),
        ("x", SqlType::Double),
        ("m", SqlType::Numeric { precision: 38, scale: 9 }),
        ("d", SqlType::Date),
        ("j", SqlType::Json),
    ];
    let column = |(name, sql_type): (&str, _)| ColumnDef { name: name.into(), sql_type, nullable: name != "id" };
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "s".into(),
        columns: types.into_iter().map(column).collect(),
        primary_key: vec!["id".into()],
        time_column: Some("at".into()),
        watermark_delay_us: 0,
        partitions: 4,
        dedup_horizon_us: 3_600_000_000,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: Transport::default(),
        created_at_us: 0,
    }
}

pub(super) struct Json {
    stream: StreamDef,
    limits: Limits,
}

impl Json {
    pub(super) fn new() -> Self {
        Self { stream: stream(), limits: Limits { record_depth_max: DEPTH_MAX, ..Limits::default() } }
    }

    fn decoded(&self, body: &[u8], records: &[std::ops::Range<usize>]) -> Result<Decoded, String> {
        decode(&self.stream, &self.limits, body, records).map_err(|problem| problem.text())
    }

    fn read(&self, body: &[u8], format: Format) -> Result<String, String> {
        let records = match split(body, format) {
            Ok(records) => records,
            Err(problem) if problem.status < 500 => return Ok(problem.detail),
            Err(problem) => return Err(problem.detail),
        };
        let mut end = 0;
        for record in &records {
            if record.start < end || record.end > body.len() || record.is_empty() {
                return Err(format!("{format:?}: the record {record:?} of {} bytes, after {end}", body.len()));
            }
            end = record.end;
        }
        let all = self.decoded(body, &records)?;
        if all.received() != records.len() as u64 {
            return Err(format!(
                "{} records, {} rows and {} bad ones",
                records.len(),
                all.rows.num_rows(),
                all.bad.len()
            ));
        }
        let mut kinds = vec![];
        for (index, record) in records.iter().enumerate() {
            let bad = all.bad.iter().find(|bad| bad.error.index == index as u64);
            self.alone(&body[record.clone()], bad.map(|bad| bad.error.code.as_str()))?;
            kinds.extend(bad.map(|bad| bad.error.message.clone()));
        }
        kinds.sort();
        kinds.dedup();
        Ok(format!("{} {}", all.rows.num_rows() > 0, kinds.join("; ")))
    }

    /// A record by itself has the verdict that it has among others; another parser agrees.
    fn alone(&self, record: &[u8], code: Option<&str>) -> Result<(), String> {
        let by_itself = self.decoded(record, std::slice::from_ref(&(0..record.len())))?;
        let code_by_itself = by_itself.bad.first().map(|bad| bad.error.code.as_str());
        if code_by_itself != code {
            return Err(format!("{code:?} among others, {code_by_itself:?} by itself"));
        }
        let Ok(text) = std::str::from_utf8(record) else {
            return if code == Some("bad_json") { Ok(()) } else { Err("a row that is not UTF-8".into()) };
        };
        // ours lets control characters stand in strings, theirs halves of surrogate pairs
        let plain: String = text.chars().map(without_control).collect();
        let theirs = serde_json::from_str::<IgnoredAny>(&plain).is_ok();
        match code {
            None if !theirs => Err(format!("a row, and no JSON: {plain:?}")),
            Some("bad_json") if theirs && plain.trim_start().starts_with('{') && !plain.contains("\\u") => {
                Err(format!("JSON, and refused as broken: {plain:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// A letter for a control character, a space for one that JSON takes for space.
fn without_control(character: char) -> char {
    match character {
        '\n' | '\r' | '\t' => ' ',
        // not by `is_whitespace`: vertical tab and form feed are space to Unicode, and not to JSON
        c if c.is_control() => 'c',
        c => c,
    }
}

impl Target for Json {
    fn words(&self) -> &'static [&'static str] {
        WORDS
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        Ok(format!("{} | {}", self.read(input, Format::Ndjson)?, self.read(input, Format::Json)?))
    }
}
