//! The tables that views join.

use std::sync::Arc;

use operators::StaticTable;
use schemas::TableDef;

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
    }

    pub(crate) fn table_version(&self, def: &TableDef) -> Option<Arc<StaticTable>> {
        self.tables.read().get(&(def.id, def.version)).cloned()
    }
}
