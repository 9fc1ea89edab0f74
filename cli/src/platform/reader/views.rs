//! The catalogue of the store and what was compiled for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use operators::{StaticTable, View};
use schemas::{Catalog, Code, Problem};
use storage::store::Store;
use uuid::Uuid;

use super::super::registry::compile_view;
use super::super::static_tables;

/// A catalogue with everything in it compiled and loaded.
#[derive(Default)]
pub(super) struct Compiled {
    catalog: Arc<Catalog>,
    views: BTreeMap<Uuid, Arc<View>>,
    /// By id and version.
    tables: BTreeMap<(Uuid, u32), Arc<StaticTable>>,
}

/// The newest catalogue that was compiled.
pub(super) struct ReaderViews {
    store: Store,
    current: ArcSwap<Compiled>,
}

impl ReaderViews {
    pub(super) fn new(store: Store) -> Self {
        Self { store, current: ArcSwap::default() }
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.load().catalog)
    }

    /// Compiles what the current one does not have.
    pub(super) async fn compile(&self, catalog: &Arc<Catalog>) -> Result<Arc<Compiled>, Problem> {
        let known = self.current.load_full();
        if known.catalog.sequence == catalog.sequence && known.catalog.views.len() == catalog.views.len() {
            return Ok(known);
        }
        let mut tables: BTreeMap<(Uuid, u32), Arc<StaticTable>> = BTreeMap::new();
        for table in &catalog.tables {
            let rows = match known.tables.get(&(table.id, table.version)) {
                Some(rows) => Arc::clone(rows),
                None => Arc::new(self.load(table).await?),
            };
            tables.insert((table.id, table.version), rows);
        }
        let mut views = BTreeMap::new();
        for def in &catalog.views {
            let had = known.views.get(&def.id).filter(|view| view.semantic_hash() == def.semantic_hash);
            let view = match (had, catalog.stream_by_id(def.stream)) {
                (Some(view), _) => {
                    for table in tables.values() {
                        view.set_dimension(table);
                    }
                    Arc::clone(view)
                }
                (None, Some(stream)) => compile_view(def, stream, &tables)?.view,
                (None, None) => continue,
            };
            views.insert(def.id, view);
        }
        Ok(Arc::new(Compiled { catalog: Arc::clone(catalog), views, tables }))
    }

    async fn load(&self, table: &schemas::TableDef) -> Result<StaticTable, Problem> {
        static_tables::load(&self.store, table)
            .await
            .map_err(|error| Problem::new(Code::StorageUnavailable, format!("table {}: {error:#}", table.name)))
    }

    pub(super) fn set(&self, compiled: Arc<Compiled>) {
        self.current.store(compiled);
    }
}

impl serving::parts::Catalogs for ReaderViews {
    fn current(&self) -> Arc<Catalog> {
        self.catalog()
    }
}

impl serving::parts::Views for ReaderViews {
    fn view(&self, id: Uuid) -> Option<Arc<View>> {
        self.current.load().views.get(&id).cloned()
    }

    fn table(&self, id: Uuid) -> Option<Arc<StaticTable>> {
        self.current.load().tables.range((id, 0)..=(id, u32::MAX)).next_back().map(|(_, table)| Arc::clone(table))
    }
}
