//! The tables that views join.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use ingest::frozen::FrozenTable;
use operators::StaticTable;
use schemas::{Code, Problem, StreamDef, TableDef};

use super::Registry;

impl Registry {
    pub(crate) fn add_table(&self, def: &TableDef, rows: StaticTable) {
        self.tables.write().insert((def.id, def.version), Arc::new(rows));
    }

    /// From the next answer on, views that join the table when they are read join this version.
    pub(crate) fn replace_table(&self, old: &TableDef, new: &TableDef, rows: StaticTable) {
        for view in self.views.read().values() {
            view.view.set_dimension(&rows);
        }
        self.add_table(new, rows);
        self.remove_table(old);
    }

    pub(crate) fn remove_table(&self, def: &TableDef) {
        self.tables.write().remove(&(def.id, def.version));
        // a newer version is made when it is asked for
        self.frozen.write().retain(|(id, _), known| *id != def.id || known.version() > def.version);
    }

    /// The newest version of the table that a stream looks values up in. Made when it is first asked for.
    ///
    /// # Errors
    /// There is no such table; a value stands in two of its rows.
    pub(crate) fn frozen_table(&self, stream: &StreamDef) -> Result<Arc<FrozenTable>, Problem> {
        let missing = || Problem::new(Code::NotReady, format!("stream {}: its table is not there", stream.name));
        let frozen = stream.transport.frozen.as_ref().ok_or_else(missing)?;
        let newest = {
            let tables = self.tables.read();
            let mut versions = tables.range((frozen.table, 0)..=(frozen.table, u32::MAX));
            versions.next_back().map(|((_, version), table)| (*version, Arc::clone(table)))
        };
        let (version, table) = newest.ok_or_else(missing)?;
        let key = (frozen.table, frozen.table_key.clone());
        let known = self.frozen.read().get(&key).filter(|known| known.version() == version).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = Arc::new(FrozenTable::of(&frozen.name, version, &whole(&table)?, &frozen.table_key)?);
        self.frozen.write().insert(key, Arc::clone(&made));
        Ok(made)
    }

    pub(crate) fn table_version(&self, def: &TableDef) -> Option<Arc<StaticTable>> {
        self.tables.read().get(&(def.id, def.version)).cloned()
    }
}

/// A table's rows as one batch.
fn whole(table: &StaticTable) -> Result<RecordBatch, Problem> {
    let internal = |what: String| Problem::new(Code::Internal, format!("table {}: {what}", table.name));
    let first = table.rows.first().ok_or_else(|| internal("no rows, and no schema".into()))?;
    concat_batches(&first.schema(), &table.rows).map_err(|error| internal(error.to_string()))
}
