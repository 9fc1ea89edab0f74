//! `config show [--origin]`.

use serde_json::Value;

use crate::arguments::{ConfigAction, GlobalOptions, ServeOptions};
use crate::config::Sources;
use crate::output::{Output, Table};

pub(super) fn show(global: &GlobalOptions, serve: &ServeOptions, action: &ConfigAction) -> anyhow::Result<()> {
    let ConfigAction::Show { origin: with_origin } = action;
    let names: &[&str] = if *with_origin { &["key", "value", "origin"] } else { &["key", "value"] };
    let mut table = Table::with_columns(names.iter().copied());
    for found in Sources::of_process(global, serve).origins()? {
        let mut row = vec![found.key.as_str().into(), value(found.value.as_deref()).into()];
        if *with_origin {
            row.push(found.origin.as_str().into());
        }
        table.rows.push(row);
    }
    Output::new(global.output).table(&table)
}

fn value(json: Option<&str>) -> Value {
    json.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}
