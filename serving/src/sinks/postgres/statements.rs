//! The SQL that a sink speaks.

use arrow::datatypes::DataType;
use schemas::Problem;
use schemas::column::sql_name;

use crate::postgres::{Connection, quoted, quoted_table};
use crate::sinks::target::Layout;

/// Names of statements within a transaction.
pub(super) const UPSERT: &str = "upsert";
pub(super) const CLEAR: &str = "clear";
pub(super) const CORRECT: &str = "correct";
pub(super) const ADVANCE: &str = "advance";

/// Where all sinks of a database stand.
const POSITIONS: &str = "CREATE TABLE IF NOT EXISTS bifold_sinks (sink TEXT PRIMARY KEY, name TEXT NOT NULL, \
                         cursor TEXT, updated_at TIMESTAMPTZ NOT NULL DEFAULT now())";
pub(super) const REGISTER: &str = "INSERT INTO bifold_sinks (sink, name) VALUES ($1, $2) ON CONFLICT DO NOTHING";
pub(super) const CURSOR: &str = "SELECT cursor FROM bifold_sinks WHERE sink = $1";
pub(super) const LOCK: &str = "SELECT cursor FROM bifold_sinks WHERE sink = $1 FOR UPDATE";
const ADVANCE_SQL: &str = "UPDATE bifold_sinks SET cursor = $2, updated_at = now() WHERE sink = $1";
/// True if a table has a unique index over exactly these columns.
const HAS_KEY: &str = "SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique \
                       AND i.indpred IS NULL AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a \
                       WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)) = $2::text[])";

fn pg_type(data_type: &DataType) -> String {
    if data_type.is_nested() { "JSONB".into() } else { sql_name(data_type) }
}

/// An array of texts as PostgreSQL reads it.
fn array(texts: &[&str]) -> String {
    let quoted = |text: &&str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", texts.iter().map(quoted).collect::<Vec<_>>().join(","))
}

/// The statements of one sink.
pub(super) struct Statements {
    table: String,
    corrections: String,
    /// `"name" TYPE` of each column.
    columns: Vec<(String, String)>,
    keys: Vec<String>,
    key_names: Vec<String>,
    /// True if the table has one row, which has no key.
    pub(super) replaces_the_row: bool,
    is_append: bool,
}

impl Statements {
    pub(super) fn of(layout: &Layout, table: &str) -> Self {
        let fields = layout.schema.fields().iter();
        let columns = fields.map(|field| (quoted(field.name()), pg_type(field.data_type()))).collect();
        Self {
            table: quoted_table(table),
            corrections: quoted_table(&format!("{table}_corrections")),
            columns,
            keys: layout.key_names().into_iter().map(quoted).collect(),
            key_names: layout.key_names().into_iter().map(str::to_owned).collect(),
            replaces_the_row: layout.keys.is_empty() && !layout.is_complete(),
            is_append: layout.sink.mode == schemas::OutputMode::Append,
        }
    }

    /// Makes the tables that are not there.
    pub(super) async fn set_up(&self, connection: &mut Connection) -> Result<(), Problem> {
        connection.query(POSITIONS).await?;
        let declared = |more: &str| {
            let columns: Vec<String> =
                self.columns.iter().map(|(name, data_type)| format!("{name} {data_type}")).collect();
            format!("({}{more})", columns.join(", "))
        };
        connection.query(&format!("CREATE TABLE IF NOT EXISTS {} {}", self.table, declared(""))).await?;
        if self.is_append {
            let more = ", _op TEXT NOT NULL, _version BIGINT NOT NULL, _at TIMESTAMPTZ NOT NULL DEFAULT now()";
            connection.query(&format!("CREATE TABLE IF NOT EXISTS {} {}", self.corrections, declared(more))).await?;
        }
        if self.keys.is_empty() {
            return Ok(());
        }
        let mut names: Vec<&str> = self.key_names.iter().map(String::as_str).collect();
        names.sort_unstable();
        let found = connection.select(HAS_KEY, &[Some(&self.table), Some(&array(&names))]).await?;
        if found.first().and_then(|row| row.first()) == Some(&Some("t".to_owned())) {
            return Ok(());
        }
        let keys = self.keys.join(", ");
        let index = format!("CREATE UNIQUE INDEX ON {} ({keys}) NULLS NOT DISTINCT", self.table);
        connection.query(&index).await.map(|_| ())
    }

    /// Statements by name, for one transaction.
    pub(super) fn prepared(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            (UPSERT, self.upsert()),
            (CLEAR, format!("DELETE FROM {}", self.table)),
            (ADVANCE, ADVANCE_SQL.to_owned()),
        ];
        if self.is_append {
            let columns = self.columns.iter().map(|(name, _)| name.as_str()).chain(["_op", "_version"]);
            all.push((CORRECT, insert(&self.corrections, &columns.collect::<Vec<_>>())));
        }
        all
    }

    fn upsert(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let insert = insert(&self.table, &names);
        if self.keys.is_empty() {
            return insert;
        }
        let set: Vec<String> = names
            .iter()
            .filter(|name| !self.keys.iter().any(|key| key == *name))
            .map(|name| format!("{name} = EXCLUDED.{name}"))
            .collect();
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
        format!("{insert} ON CONFLICT ({}) DO {action}", self.keys.join(", "))
    }

    /// Removes the row with a key; the values are those of the key's columns that are not null.
    pub(super) fn delete(&self, is_null: impl Fn(usize) -> bool) -> String {
        let mut number = 0;
        let mut condition = |(index, key): (usize, &String)| {
            if is_null(index) {
                return format!("{key} IS NULL");
            }
            number += 1;
            format!("{key} = ${number}")
        };
        let conditions: Vec<String> = self.keys.iter().enumerate().map(&mut condition).collect();
        format!("DELETE FROM {} WHERE {}", self.table, conditions.join(" AND "))
    }
}

fn insert(table: &str, columns: &[&str]) -> String {
    let values: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), values.join(", "))
}
