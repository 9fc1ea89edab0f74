//! Files that are imported: CSV, JSON (plain, gzip, zstd), Parquet → bodies of lines.
//!
//! The first byte of an input says what its name says. What has to hold: every line that goes to the server is one
//! line, and of CSV and Parquet one JSON object; no body grows past its bound.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray, StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type};
use bifold::commands::ingest::bodies::{InputFormat, Unquoted, open};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::de::IgnoredAny;
use tempfile::TempDir;

use super::Target;
use super::mutate::Mutator;

/// A body is cut at the first event behind 16 MiB, an event has at most 64 MiB.
const BODY_BYTES_MAX: usize = 80 << 20;
/// Events of an input that are looked at: a file may claim any number.
const BODIES_MAX: usize = 40;

pub(super) struct Files {
    folder: TempDir,
}

impl Files {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("input")
    }
}

fn parquet(rows: &RecordBatch, compression: Compression) -> Vec<u8> {
    let mut bytes = vec![];
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    bytes
}

fn of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn with_kind(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], body].concat()
}

/// A long text once, and a row of eight bytes each time that it is used: what comes out is not what goes in.
fn repeated() -> RecordBatch {
    let text = "x".repeat(1 << 18);
    let long: DictionaryArray<Int32Type> = std::iter::repeat_n(Some(text.as_str()), 300).collect();
    of(vec![("id", Arc::new(long))])
}

impl Target for Files {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let flat = of(vec![
            ("id", Arc::new(StringArray::from(vec![Some("a"), Some("b\"\n"), None]))),
            ("n", Arc::new(Int64Array::from(vec![1, -5, i64::MAX]))),
            ("x", Arc::new(Float64Array::from(vec![0.1, f64::NAN, f64::NEG_INFINITY]))),
            ("at", Arc::new(TimestampNanosecondArray::from(vec![0, i64::MIN, i64::MAX]))),
            ("m", Arc::new(Decimal128Array::from(vec![1, i128::MAX, 0]))),
        ]);
        let nested = of(vec![
            ("raw", Arc::new(BinaryArray::from(vec![&b"\xff\0"[..], b"x", b""]))),
            ("view", Arc::new(StringViewArray::from(vec!["a text that is not inlined", "b", ""]))),
            (
                "list",
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
                    Some(vec![Some(1), None]),
                    None,
                    Some(vec![]),
                ])),
            ),
        ]);
        let lines = b"{\"id\":\"a\"}\n\n{\"id\":\"b\",\"n\":1}\r\n";
        let zstd = Compression::ZSTD(ZstdLevel::default());
        vec![
            with_kind(b'c', b"id,n,j\na,1,\"{\"\"k\"\":[1]}\"\n\"b,\nb\",,\n\"\",2,x\n"),
            with_kind(b'c', b"\xef\xbb\xbfid;n\na;1\n"),
            with_kind(b'j', lines),
            with_kind(b'j', b"[{\"id\":\"],\"},\n{\"id\":[1,{}]} , 7]"),
            with_kind(b'j', &zstd::encode_all(&lines[..], 1).unwrap()),
            with_kind(b'c', &zstd::encode_all(&b"id,n\na,1\n"[..], 1).unwrap()),
            with_kind(b'p', &parquet(&flat, Compression::UNCOMPRESSED)),
            with_kind(b'p', &parquet(&flat, zstd)),
            with_kind(b'p', &parquet(&nested, Compression::UNCOMPRESSED)),
            with_kind(b'p', &parquet(&repeated(), zstd)),
        ]
    }

    fn mutate(&self, mutator: &mut Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        let (Some((kind, body)), Some((_, other))) = (input.split_first(), other.split_first()) else {
            return vec![b'j'];
        };
        with_kind(*kind, &mutator.bytes(body, other, &["\"\"", "\",\"", "\r\n", ",", "id,", "PAR1"]))
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        let Some((kind, body)) = input.split_first() else { return Ok("nothing".into()) };
        let format = match kind {
            b'c' => InputFormat::Csv,
            b'p' => InputFormat::Parquet,
            _ => InputFormat::Json,
        };
        let path = self.path();
        std::fs::write(&path, body).unwrap();
        let input = match open(path.to_str().unwrap(), format, &Unquoted::from(["j".to_owned()])) {
            Ok(input) => input,
            Err(refused) => return Ok(refused.to_string()),
        };
        let mut rows = 0;
        for body in input.bodies(1_000).take(BODIES_MAX) {
            let body = match body {
                Ok(body) => body,
                Err(refused) => return Ok(format!("{} {refused}", rows > 0)),
            };
            if body.bytes.len() > BODY_BYTES_MAX {
                return Err(format!("a body of {} bytes", body.bytes.len()));
            }
            rows += body.rows;
            let lines: Vec<&[u8]> = body.bytes.split_inclusive(|byte| *byte == b'\n').collect();
            if lines.len() as u64 != body.rows || body.bytes.last() != Some(&b'\n') {
                return Err(format!("{} lines, {} rows", lines.len(), body.rows));
            }
            let is_object = |line: &&[u8]| line.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line).is_ok();
            if format != InputFormat::Json
                && let Some(broken) = lines.iter().find(|line| !is_object(line))
            {
                return Err(format!("not an object: {}", String::from_utf8_lossy(broken)));
            }
        }
        Ok(format!("read {format:?} {}", rows > 0))
    }
}
