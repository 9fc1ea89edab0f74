//! Tables that streams look values up in.

use std::sync::Arc;

use arrow::array::RecordBatch;
use ingest::frozen::FrozenTable;
use schemas::frozen::Frozen;
use schemas::problem::did_you_mean;
use schemas::statement::{CreateStream, ObjectKind};
use schemas::{Catalog, Code, ColumnDef, Problem, SqlType, StreamDef, TableDef};
use uuid::Uuid;

use super::super::registry::LookedUp;
use super::show::unknown;

/// What a stream looks up, in a table that is there, by columns of one type.
///
/// # Errors
/// It is not, or they are not.
pub(super) fn check_frozen(frozen: &Frozen, create: &CreateStream, catalog: &Catalog) -> Result<Frozen, Problem> {
    let table = catalog.table(&frozen.name).ok_or_else(|| unknown(catalog, ObjectKind::Table, &frozen.name))?;
    if table.validity.is_some() {
        let detail = format!("table {} has rows of many times: a record looks a value up in one row", table.name);
        let hint = "join it in the views, FOR SYSTEM_TIME AS OF the event's time";
        return Err(Problem::new(Code::Unsupported, detail).with_hint(hint));
    }
    let own = |name: &str| create.columns.iter().find(|column| column.name == name);
    for (mine, theirs) in frozen.columns.iter().chain([&(frozen.key.clone(), frozen.table_key.clone())]) {
        let their = column_of(table, theirs)?;
        let Some(my) = own(mine).filter(|my| my.sql_type != their.sql_type) else { continue };
        let (my, their) = (my.sql_type.sql(), their.sql_type.sql());
        let detail = format!("column {mine} is {my}, and column {theirs} of table {} is {their}", table.name);
        return Err(Problem::new(Code::InvalidSql, detail).with_hint("declare both with one type"));
    }
    if matches!(column_of(table, &frozen.table_key)?.sql_type, SqlType::Real | SqlType::Double | SqlType::Json) {
        let detail = format!(
            "column {} of table {}: a number with a fraction, or JSON, is not looked up",
            frozen.table_key, table.name
        );
        return Err(
            Problem::new(Code::Unsupported, detail).with_hint("look up a TEXT, a whole number, NUMERIC or a time")
        );
    }
    Ok(Frozen { table: table.id, ..frozen.clone() })
}

fn column_of<'a>(table: &'a TableDef, name: &str) -> Result<&'a ColumnDef, Problem> {
    table.columns.iter().find(|column| column.name == name).ok_or_else(|| {
        let problem = Problem::new(Code::NotFound, format!("table {} has no column {name}", table.name));
        match did_you_mean(name, table.columns.iter().map(|column| column.name.as_str())) {
            Some(close) => problem.with_hint(format!("did you mean {close}?")),
            None => problem,
        }
    })
}

/// What streams will look values up in, of a version of a table. Large tables take a while.
///
/// # Errors
/// A value that is looked up stands in two rows.
pub(super) async fn looked_up(catalog: &Catalog, def: &TableDef, rows: &RecordBatch) -> Result<Vec<LookedUp>, Problem> {
    let frozen = catalog.streams.iter().filter_map(|stream| stream.transport.frozen.as_ref());
    let mut keys: Vec<String> =
        frozen.filter(|frozen| frozen.table == def.id).map(|frozen| frozen.table_key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    let (name, version, rows) = (def.name.clone(), def.version, rows.clone());
    let make = move |key: String| {
        let table = FrozenTable::of(&name, version, &rows, &key)?;
        Ok((key, Arc::new(table)))
    };
    let made = tokio::task::spawn_blocking(move || keys.into_iter().map(make).collect());
    made.await.unwrap_or_else(|error| Err(Problem::new(Code::Internal, format!("a table to look up: {error}"))))
}

/// The names of the streams that look values up in a table.
pub(super) fn streams_of(catalog: &Catalog, table: Uuid) -> Vec<&str> {
    let looks_up = |stream: &&StreamDef| stream.transport.frozen.as_ref().is_some_and(|frozen| frozen.table == table);
    catalog.streams.iter().filter(looks_up).map(|stream| stream.name.as_str()).collect()
}
