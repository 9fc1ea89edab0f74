//! Reads the rows of a table from where they are: a file that was sent, an address, a database.

mod postgres;
mod url;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use schemas::{Code, Problem, TableDef, TableSource};

use super::static_tables;
use crate::config::Config;

/// What loads tables.
pub(crate) struct TableSources {
    /// True if an address may be one of this machine or of a network that is not public.
    private_urls: bool,
    /// How long a load may take.
    patience: Duration,
}

impl TableSources {
    /// As the configuration says.
    pub(crate) fn of(config: &Config) -> Self {
        let patience = Duration::from_millis(config.limits.query_timeout_ms);
        Self { private_urls: config.private_urls, patience }
    }

    /// The rows of a table as they are now. `files` are those that were sent with the statement.
    ///
    /// # Errors
    /// They cannot be reached, take too long, are too many, or do not fit the columns.
    pub(crate) async fn rows(&self, def: &TableDef, files: &BTreeMap<String, String>) -> Result<RecordBatch, Problem> {
        let loading = async {
            match &def.source {
                TableSource::File(name) => static_tables::parse_csv(def, sent(files, name)?),
                TableSource::Url { url } => {
                    let text = url::text(&def.source.place(), url, self.private_urls).await?;
                    let def = def.clone();
                    let parsed = tokio::task::spawn_blocking(move || static_tables::parse_csv(&def, &text));
                    parsed.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?
                }
                TableSource::Postgres { postgres, read } => postgres::rows(def, postgres, read).await,
            }
        };
        let loaded = tokio::time::timeout(self.patience, loading).await;
        loaded.unwrap_or_else(|_| {
            let (place, ms) = (def.source.place(), self.patience.as_millis());
            let detail = format!("table {}: {place} did not say everything within {ms} ms", def.name);
            Err(Problem::new(Code::StorageUnavailable, detail))
        })
    }
}

/// The content of a file of the request.
pub(super) fn sent<'a>(files: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str, Problem> {
    files.get(name).map(String::as_str).ok_or_else(|| {
        Problem::new(Code::BadRequest, format!("the content of {name} was not sent")).with_hint(
            "run the script with `bifold apply` or `bifold sql -f`, which send the file, or put it into \"files\"",
        )
    })
}
