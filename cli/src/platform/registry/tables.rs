//! The tables that views join.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use ingest::frozen::FrozenTable;
use operators::StaticTable;
use schemas::frozen::Frozen;
use schemas::{Code, Problem, StreamDef, TableDef};

use super::Registry;

/// What is made of a table to look values of a column up.
pub(crate) type LookedUp = (String, Arc<FrozenTable>);

impl Registry {
    pub(crate) fn add_table(&self, def: &TableDef, rows: StaticTable) {
        self.tables.write().insert((def.id, def.version), Arc::new(rows));
    }

    /// From the next answer on, views that join the table when they are read join this version; records that come in
    /// from now on are looked up in what was made of it.
    pub(crate) fn replace_table(&self, old: &TableDef, new: &TableDef, rows: StaticTable, made: Vec<LookedUp>) {
        for view in self.views.read().values() {
            view.view.set_dimension(&rows);
        }
        {
            let mut frozen = self.frozen.write();
            self.add_table(new, rows);
            frozen.extend(made.into_iter().map(|(column, table)| ((new.id, column), table)));
        }
        self.remove_table(old);
    }

    pub(crate) fn remove_table(&self, def: &TableDef) {
        self.tables.write().remove(&(def.id, def.version));
        // a newer version is made when it is asked for
        self.frozen.write().retain(|(id, _), known| *id != def.id || known.version() > def.version);
    }

    /// The newest version of the table that a stream looks values up in. Made when it is first asked for, by one of
    /// those who ask.
    ///
    /// # Errors
    /// There is no such table; a value stands in two of its rows.
    pub(crate) fn frozen_table(&self, stream: &StreamDef) -> Result<Arc<FrozenTable>, Problem> {
        let missing = || Problem::new(Code::NotReady, format!("stream {}: its table is not there", stream.name));
        let frozen = stream.transport.frozen.as_ref().ok_or_else(missing)?;
        if let (_, _, Some(known)) = self.newest(frozen).ok_or_else(missing)? {
            return Ok(known);
        }
        let _one_at_a_time = self.freezing.lock();
        let (version, table, known) = self.newest(frozen).ok_or_else(missing)?;
        if let Some(known) = known {
            return Ok(known);
        }
        let made = Arc::new(FrozenTable::of(&frozen.name, version, &whole(&table)?, &frozen.table_key)?);
        let mut all = self.frozen.write();
        let place = all.entry((frozen.table, frozen.table_key.clone())).or_insert_with(|| Arc::clone(&made));
        if place.version() < version {
            *place = Arc::clone(&made);
        }
        Ok(made)
    }

    /// The newest version of a table, and what was made of it to look values up; both as of one moment.
    fn newest(&self, frozen: &Frozen) -> Option<(u32, Arc<StaticTable>, Option<Arc<FrozenTable>>)> {
        let made = self.frozen.read();
        let tables = self.tables.read();
        let mut versions = tables.range((frozen.table, 0)..=(frozen.table, u32::MAX));
        let (version, table) = versions.next_back().map(|((_, version), table)| (*version, Arc::clone(table)))?;
        let made = made.get(&(frozen.table, frozen.table_key.clone()));
        Some((version, table, made.filter(|made| made.version() == version).cloned()))
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
