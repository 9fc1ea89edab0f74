//! Rows and documents as text. Pure, so that tests see exactly what a user sees.

use std::collections::BTreeMap;

use anyhow::Context;
use comfy_table::{CellAlignment, ContentArrangement, presets};
use schemas::documents::certificate::CutByPartition;
use schemas::freshness::{AnswerColumn, ViewFreshness};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Cell, Format};

/// Terminals narrower than this say little about the space there is; tables are not squeezed into them.
const WRAP_COLUMNS_MIN: u16 = 40;

/// Columns and rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Names and SQL types, in order.
    pub columns: Vec<AnswerColumn>,
    /// One value per column.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with columns of text.
    pub fn with_columns<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let columns =
            names.into_iter().map(|name| AnswerColumn { name: name.to_owned(), sql_type: "TEXT".into() }).collect();
        Self { columns, rows: vec![] }
    }

    /// The facts of a document as `fact | value`, nested ones with dots.
    pub fn facts(document: &Value) -> Self {
        let mut table = Self::with_columns(["fact", "value"]);
        collect_facts(document, "", &mut table.rows);
        table
    }

    /// A list of objects; the columns are the members of the first, `first` ones in front.
    pub fn of_objects(objects: &[Value], first: &[&str]) -> Self {
        let Some(Value::Object(members)) = objects.first() else { return Self::with_columns(first.iter().copied()) };
        let mut names: Vec<&str> = first.iter().copied().filter(|name| members.contains_key(*name)).collect();
        names.extend(members.keys().map(String::as_str).filter(|name| !first.contains(name)));
        let rows = objects
            .iter()
            .map(|object| {
                names.iter().map(|name| Cell::from(object.get(name).cloned().unwrap_or(Value::Null))).collect()
            })
            .collect();
        Self { rows, ..Self::with_columns(names) }
    }

    /// The rows in a format; ends with a line feed.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Table => self.as_table(),
            Format::Json => self.as_json(),
            Format::Ndjson => self.rows.iter().map(|row| self.as_object(row) + "\n").collect(),
            Format::Csv => self.as_csv(),
        }
    }

    fn as_table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        if table.width().is_none_or(|columns| columns >= WRAP_COLUMNS_MIN) {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        table.set_header(self.columns.iter().map(|column| column.name.as_str()));
        for row in &self.rows {
            table.add_row(row.iter().map(Cell::text));
        }
        for (index, column) in self.columns.iter().enumerate() {
            if let Some(shown) = table.column_mut(index).filter(|_| is_number(&column.sql_type)) {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{table}\n")
    }

    fn as_json(&self) -> String {
        let objects: Vec<String> = self.rows.iter().map(|row| format!("  {}", self.as_object(row))).collect();
        if objects.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", objects.join(",\n")) }
    }

    /// One row as a JSON object with the columns in their order.
    fn as_object(&self, row: &[Cell]) -> String {
        let members: Vec<String> = self
            .columns
            .iter()
            .zip(row)
            .map(|(column, value)| format!("{}:{value}", Value::from(column.name.as_str())))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    fn as_csv(&self) -> String {
        let mut writer = csv::WriterBuilder::new().from_writer(vec![]);
        // Writing to memory cannot fail; a row of another length than the header can, and does not exist.
        let _ = writer.write_record(self.columns.iter().map(|column| &column.name));
        for row in &self.rows {
            let _ =
                writer.write_record(row.iter().map(|value| if value.is_null() { String::new() } else { value.text() }));
        }
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }
}

fn collect_facts(value: &Value, prefix: &str, rows: &mut Vec<Vec<Cell>>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                collect_facts(member, &key, rows);
            }
        }
        _ => rows.push(vec![prefix.into(), cell_text(value).as_str().into()]),
    }
}

fn is_number(sql_type: &str) -> bool {
    let base = sql_type.split('(').next().unwrap_or_default();
    ["SMALLINT", "INT", "BIGINT", "REAL", "DOUBLE PRECISION", "NUMERIC"].contains(&base)
}

/// A value without the quotes of JSON.
pub fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A document as indented JSON.
pub fn json_text(document: &Value) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

/// The server's answer to SQL as indented JSON, its rows as they came.
pub fn answer_text(answer: &str) -> anyhow::Result<String> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Member {
        Rows(Vec<Vec<Cell>>),
        Other(Value),
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(answer).context("an answer that is no object")?;
    let member = |(name, value): (String, &RawValue)| {
        let member = match name.as_str() {
            "rows" => Member::Rows(serde_json::from_str(value.get())?),
            _ => Member::Other(serde_json::from_str(value.get())?),
        };
        anyhow::Ok((name, member))
    };
    let members = members.into_iter().map(member).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    Ok(serde_json::to_string_pretty(&members)?)
}

/// `{0:34378,1:34001}`
pub fn cut_text(cut: &CutByPartition) -> String {
    let parts: Vec<String> = cut.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    format!("{{{}}}", parts.join(","))
}

/// `batch run 7 (exact) to {…} + speed to {…}, lag 4 ms`
pub fn freshness_line(view: &ViewFreshness) -> String {
    let batch = view
        .batch
        .as_ref()
        .map(|batch| format!("batch run {} ({}) to {}", batch.run, batch.certificate.as_str(), cut_text(&batch.cut)));
    let speed = view.speed.as_ref().map(|speed| format!("speed to {}, lag {} ms", cut_text(&speed.to), speed.lag_ms));
    match (batch, speed) {
        (Some(batch), Some(speed)) => format!("{batch} + {speed}"),
        (Some(side), None) | (None, Some(side)) => side,
        (None, None) => "no batch run yet, nothing folded yet".to_owned(),
    }
}
