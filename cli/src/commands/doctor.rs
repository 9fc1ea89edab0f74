//! `doctor`: can this machine talk to the server and write its data folder?

use std::path::Path;

use serde_json::Value;

use crate::arguments::{GlobalOptions, ServeOptions};
use crate::client::Client;
use crate::config::{Config, Sources};
use crate::exit::{Exit, fail};
use crate::output::{Output, Table};

struct Check {
    name: &'static str,
    /// What was found, or what is wrong.
    outcome: Result<String, String>,
}

pub(super) async fn doctor(global: &GlobalOptions) -> anyhow::Result<()> {
    let mut checks = vec![];
    match Config::load(&Sources::of_process(global, &ServeOptions::default())) {
        Ok(config) => {
            checks.push(Check { name: "configuration", outcome: Ok("readable".into()) });
            checks.push(Check { name: "data folder", outcome: writable(&config.data_dir) });
        }
        Err(error) => checks.push(Check { name: "configuration", outcome: Err(format!("{error:#}")) }),
    }
    checks.extend(server(global).await);
    report(global, &checks)
}

async fn server(global: &GlobalOptions) -> Vec<Check> {
    let client = match Client::find(global) {
        Ok(client) => client,
        Err(error) => return vec![Check { name: "server", outcome: Err(format!("{error:#}")) }],
    };
    let status = client.get(&["v1", "status"]).await;
    let reachable = match &status {
        Ok(_) => Ok(client.url().to_owned()),
        Err(error) => Err(format!("{error:#}")),
    };
    let mut checks = vec![Check { name: "server", outcome: reachable }];
    if let Ok(status) = status {
        checks.push(Check { name: "version", outcome: version(&status) });
    }
    checks
}

fn version(status: &Value) -> Result<String, String> {
    let ours = env!("CARGO_PKG_VERSION");
    match status.get("version").and_then(Value::as_str) {
        Some(theirs) if theirs == ours => Ok(ours.to_owned()),
        Some(theirs) => Err(format!("the server is {theirs}, this is {ours}")),
        None => Err("the server does not say".to_owned()),
    }
}

/// Makes a file in the folder and takes it away again; a folder that is not there yet is fine.
fn writable(folder: &Path) -> Result<String, String> {
    if !folder.exists() {
        return Ok(format!("{} (the first start makes it)", folder.display()));
    }
    tempfile::Builder::new()
        .prefix(".doctor-")
        .tempfile_in(folder)
        .map(|_| folder.display().to_string())
        .map_err(|error| format!("{} cannot be written: {error}", folder.display()))
}

fn report(global: &GlobalOptions, checks: &[Check]) -> anyhow::Result<()> {
    let mut table = Table::with_columns(["check", "result", "detail"]);
    for check in checks {
        let (result, detail) = match &check.outcome {
            Ok(detail) => ("ok", detail),
            Err(detail) => ("failed", detail),
        };
        table.rows.push(vec![check.name.into(), result.into(), detail.as_str().into()]);
    }
    Output::new(global.output).table(&table)?;
    let failed: Vec<&str> = checks.iter().filter(|check| check.outcome.is_err()).map(|check| check.name).collect();
    if failed.is_empty() { Ok(()) } else { fail(Exit::CheckFailed, format!("failed: {}", failed.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_a_finding() {
        assert!(version(&serde_json::json!({"version": env!("CARGO_PKG_VERSION")})).is_ok());
        assert!(version(&serde_json::json!({"version": "9.9.9"})).unwrap_err().contains("9.9.9"));
    }

    #[test]
    fn a_file_is_no_data_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(writable(file.path()).is_err());
        let folder = tempfile::tempdir().unwrap();
        assert!(writable(folder.path()).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
