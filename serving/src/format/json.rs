//! JSON (INTERFACES §2) and NDJSON.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use schemas::column::sql_name;
use schemas::freshness::AnswerColumn;
use schemas::{Code, Problem};
use serde::Serialize;

use super::text::{Kind, write_value};
use crate::engine::QueryAnswer;

/// Name and SQL type of every column.
pub fn columns(answer: &QueryAnswer) -> Vec<AnswerColumn> {
    named(&answer.schema)
}

fn json<T: Serialize>(value: &T) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|e| Problem::new(Code::Internal, format!("writing JSON: {e}")))
}

/// The answer as one object; `messages` are what the statements of a script said, the last one's first of all.
///
/// # Errors
/// A value could not be written.
pub fn answer(answer: &QueryAnswer, messages: &[String]) -> Result<String, Problem> {
    let mut out = format!("{{\"columns\":{},\"rows\":[", json(&columns(answer))?);
    let mut first = true;
    for rows in &answer.rows {
        for row in 0..rows.num_rows() {
            out.push_str(if first { "[" } else { ",[" });
            first = false;
            for (index, column) in rows.columns().iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(&mut out, column.as_ref(), row)?;
            }
            out.push(']');
        }
    }
    let _ = write!(
        out,
        "],\"row_count\":{},\"truncated\":{},\"next\":{},\"statistics\":{},\"freshness\":{}",
        answer.row_count(),
        answer.truncated,
        json(&answer.next)?,
        json(&answer.statistics)?,
        json(&answer.freshness)?
    );
    if let Some(last) = messages.last() {
        let _ = write!(out, ",\"message\":{},\"results\":{}", json(last)?, json(&messages)?);
    }
    out.push('}');
    Ok(out)
}

/// Name and SQL type of every column of a schema.
pub(crate) fn named(schema: &Schema) -> Vec<AnswerColumn> {
    let column = |field: &arrow::datatypes::FieldRef| AnswerColumn {
        name: field.name().clone(),
        sql_type: sql_name(field.data_type()),
    };
    schema.fields().iter().map(column).collect()
}

/// A row as an object.
pub(crate) fn object(rows: &RecordBatch, row: usize) -> Result<String, Problem> {
    let names = rows.schema_ref().fields().iter().map(|field| json(field.name())).collect::<Result<Vec<_>, _>>()?;
    let mut out = String::new();
    write_object(&mut out, &names, rows, row)?;
    Ok(out)
}

/// One object per row, then `{"end":true,"rows":…,"truncated":…,"freshness":…}`: a body without it is broken off.
pub(super) fn lines(answer: &QueryAnswer) -> Result<String, Problem> {
    let names = answer.schema.fields().iter().map(|field| json(field.name())).collect::<Result<Vec<_>, _>>()?;
    let mut out = String::new();
    for rows in &answer.rows {
        for row in 0..rows.num_rows() {
            write_object(&mut out, &names, rows, row)?;
            out.push('\n');
        }
    }
    let _ = writeln!(
        out,
        "{{\"end\":true,\"rows\":{},\"truncated\":{},\"statistics\":{},\"freshness\":{}}}",
        answer.row_count(),
        answer.truncated,
        json(&answer.statistics)?,
        json(&answer.freshness)?
    );
    Ok(out)
}

fn write_object(out: &mut String, names: &[String], rows: &RecordBatch, row: usize) -> Result<(), Problem> {
    out.push('{');
    for (index, (name, column)) in names.iter().zip(rows.columns()).enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(name);
        out.push(':');
        write_json(out, column.as_ref(), row)?;
    }
    out.push('}');
    Ok(())
}

pub(super) fn write_json(out: &mut String, array: &dyn Array, row: usize) -> Result<(), Problem> {
    if array.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    match array.data_type() {
        DataType::List(_) => return write_list(out, array.as_list::<i32>().value(row).as_ref()),
        DataType::LargeList(_) => return write_list(out, array.as_list::<i64>().value(row).as_ref()),
        DataType::Struct(fields) => {
            out.push('{');
            for (index, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&json(field.name())?);
                out.push(':');
                write_json(out, column.as_ref(), row)?;
            }
            out.push('}');
            return Ok(());
        }
        _ => {}
    }
    let start = out.len();
    match write_value(out, array, row)? {
        Kind::Bare => {}
        Kind::Null => out.push_str("null"),
        Kind::Text => {
            let quoted = json(&out[start..].to_owned())?;
            out.truncate(start);
            out.push_str(&quoted);
        }
    }
    Ok(())
}

fn write_list(out: &mut String, items: &dyn Array) -> Result<(), Problem> {
    out.push('[');
    for row in 0..items.len() {
        if row > 0 {
            out.push(',');
        }
        write_json(out, items, row)?;
    }
    out.push(']');
    Ok(())
}
