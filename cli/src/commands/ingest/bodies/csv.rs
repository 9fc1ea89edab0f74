//! CSV with a header line → lines of JSON. An empty field is no value.

use std::io::{self, BufRead};

use serde_json::Value;

use super::{EVENT_BYTES_MAX, Unquoted};

/// The records of a CSV file.
pub(super) struct Records {
    reader: csv::Reader<Box<dyn BufRead + Send>>,
    /// The columns, each with its name as JSON, and whether its values stand as they are.
    columns: Vec<(String, bool)>,
    record: csv::StringRecord,
}

impl Records {
    pub(super) fn new(input: Box<dyn BufRead + Send>, unquoted: &Unquoted) -> io::Result<Self> {
        let mut reader = csv::ReaderBuilder::new().has_headers(true).from_reader(input);
        let columns = reader.headers()?.iter().map(|name| {
            let name = name.trim_start_matches('\u{feff}').trim();
            (Value::from(name).to_string(), unquoted.contains(name))
        });
        let columns = columns.collect();
        Ok(Self { reader, columns, record: csv::StringRecord::new() })
    }

    /// Appends the next record as an object; false at the end. A record with another number of fields than
    /// the header is an error: nobody knows which field is missing.
    pub(super) fn append_next(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        if !self.reader.read_record(&mut self.record)? {
            return Ok(false);
        }
        let start = text.len();
        text.push(b'{');
        for ((name, is_unquoted), field) in self.columns.iter().zip(&self.record) {
            if field.is_empty() {
                continue;
            }
            if text.len() > start + 1 {
                text.push(b',');
            }
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            // a value that is no JSON would break the record in a way that its error does not name
            match serde_json::from_str::<&serde_json::value::RawValue>(field) {
                // line breaks in JSON are space between its tokens, and would end the record
                Ok(value) if *is_unquoted => text.extend_from_slice(value.get().replace(['\n', '\r'], " ").as_bytes()),
                _ => text.extend_from_slice(Value::from(field).to_string().as_bytes()),
            }
        }
        text.extend_from_slice(b"}\n");
        if text.len() - start > EVENT_BYTES_MAX { Err(super::too_large()) } else { Ok(true) }
    }
}
