//! The bare decode: NDJSON → Arrow with `arrow-json` and nothing else. What ingest cannot be quicker than.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arrow::datatypes::{DataType, Field, Schema};
use arrow_json::ReaderBuilder;
use serde_json::json;

use crate::measure::{Clock, peak_mb, report};

pub(crate) fn run(ndjson: &Path, block: usize) -> anyhow::Result<()> {
    let text = |name: &str| Field::new(name, DataType::Utf8View, true);
    let mut fields: Vec<Field> = ["user_id", "page_id", "ad_id", "ad_type", "event_type"].map(text).into();
    fields.push(Field::new("event_time", DataType::Int64, true));
    fields.push(text("ip_address"));
    let schema = Arc::new(Schema::new(fields));
    let mut files: Vec<_> = std::fs::read_dir(ndjson)?.collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    let (mut events, mut wall_s, mut cpu_s) = (0_usize, 0.0, 0.0);
    for file in files {
        let bytes = std::fs::read(file.path()).with_context(|| format!("{}", file.path().display()))?;
        let clock = Clock::start();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let end = end_of_lines(rest, block);
            let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(8_192).build_decoder()?;
            let mut body = &rest[..end];
            while !body.is_empty() {
                let used = decoder.decode(body)?;
                body = &body[used..];
                events += decoder.flush()?.map_or(0, |rows| rows.num_rows());
            }
            rest = &rest[end..];
        }
        let (wall, cpu) = clock.read();
        wall_s += wall;
        cpu_s += cpu;
    }
    let result = json!({ "peer": format!("arrow-json decode alone block={block}"), "wall_s": wall_s, "cpu_s": cpu_s,
        "events": events, "peak_mb": peak_mb() });
    report(result.as_object().cloned().unwrap_or_default());
    Ok(())
}

fn end_of_lines(bytes: &[u8], lines: usize) -> usize {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(index, _)| index + 1).nth(lines - 1).unwrap_or(bytes.len())
}
