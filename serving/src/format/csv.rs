//! CSV (RFC 4180): a header, `\r\n` between lines. A null is an empty field, an empty text is `""`.

use schemas::Problem;

use super::json::write_json;
use super::text::{Kind, write_value};
use crate::engine::QueryAnswer;

pub(super) fn table(answer: &QueryAnswer) -> Result<String, Problem> {
    let mut out = String::new();
    for (index, field) in answer.schema.fields().iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_field(&mut out, field.name());
    }
    out.push_str("\r\n");
    let mut value = String::new();
    for rows in &answer.rows {
        for row in 0..rows.num_rows() {
            for (index, column) in rows.columns().iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                value.clear();
                if column.data_type().is_nested() {
                    // a list is a field of JSON, as it came in
                    if !column.is_null(row) {
                        write_json(&mut value, column.as_ref(), row)?;
                        push_field(&mut out, &value);
                    }
                } else if write_value(&mut value, column.as_ref(), row)? != Kind::Null {
                    push_field(&mut out, &value);
                }
            }
            out.push_str("\r\n");
        }
    }
    Ok(out)
}

fn push_field(out: &mut String, value: &str) {
    let quote = value.is_empty() || value.contains([',', '"', '\n', '\r']) || value.trim() != value;
    if !quote {
        out.push_str(value);
        return;
    }
    out.push('"');
    out.push_str(&value.replace('"', "\"\""));
    out.push('"');
}
