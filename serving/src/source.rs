//! Where a query's states come from: the published batch view's files, the ranges of the snapshot, or both.
//!
//! Parquet is read with the view's own state schema, page index and filter push-down (DESIGN §11). Deltas are
//! sorted by key: where a filter names the key, they are searched and not scanned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use object_store::ObjectStore;
use operators::{StateSource, View};
use schemas::Problem;
use schemas::documents::manifest::Manifest;
use storage::batch_view::CheckedStore;
use storage::snapshot::ViewSnapshot;

use crate::lookup::{key_arrays, matching};

/// Under this URL the store is registered with DataFusion.
pub(crate) const STORE_URL: &str = "bifold://store";

/// Which side of a view is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Batch ⊕ speed.
    Merged,
    /// The published batch view alone.
    Batch,
    /// What came after its cut, alone.
    Speed,
}

impl Layer {
    /// True if the batch view is read.
    pub fn reads_batch(self) -> bool {
        self != Self::Speed
    }

    /// True if deltas and tail are read.
    pub fn reads_speed(self) -> bool {
        self != Self::Batch
    }
}

/// The states of one view in one snapshot.
pub struct SnapshotStates {
    view: Arc<View>,
    snapshot: Arc<ViewSnapshot>,
    layer: Layer,
    store: Arc<CheckedStore>,
    scanned: Arc<AtomicU64>,
}

impl std::fmt::Debug for SnapshotStates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { snapshot, layer, .. } = self;
        f.debug_struct("SnapshotStates").field("view", &snapshot.view).field("layer", layer).finish_non_exhaustive()
    }
}

impl SnapshotStates {
    /// The states of `layer`. The snapshot's coverage was asserted before.
    pub fn new(view: Arc<View>, snapshot: Arc<ViewSnapshot>, layer: Layer, store: Arc<CheckedStore>) -> Self {
        Self { view, snapshot, layer, store, scanned: Arc::default() }
    }

    /// Counts cells in memory into `scanned` when they are scanned: unlike files, memory has no metrics.
    #[must_use]
    pub fn counting(mut self, scanned: &Arc<AtomicU64>) -> Self {
        self.scanned = Arc::clone(scanned);
        self
    }

    fn batch(
        &self,
        session: &dyn Session,
        manifest: &Manifest,
        projection: &[usize],
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let global = session.config_options().execution.parquet.clone();
        let options = TableParquetOptions { global, ..TableParquetOptions::default() };
        let cache = session.runtime_env().cache_manager.get_file_metadata_cache();
        for file in &manifest.files {
            self.store.expect(file).map_err(|e| DataFusionError::External(Box::new(e)))?;
        }
        let store: Arc<dyn ObjectStore> = self.store.clone();
        let reader = CachedParquetFileReaderFactory::new(store, cache);
        let mut source = ParquetSource::new(self.view.state_schema())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(reader))
            .with_enable_page_index(true)
            .with_pushdown_filters(true);
        if let Some(predicate) = conjunction(filters.iter().cloned()) {
            let schema = DFSchema::try_from(Arc::clone(self.view.state_schema()))?;
            source = source.with_predicate(session.create_physical_expr(predicate, &schema)?);
        }
        let files: Vec<FileGroup> = manifest
            .files
            .iter()
            .map(|file| FileGroup::new(vec![PartitionedFile::new(file.path.clone(), file.bytes)]))
            .collect();
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, Arc::new(source))
            .with_file_groups(files)
            .with_projection_indices(Some(projection.to_vec()))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// States of deltas and tail; of the sorted ones only those with the key that the filters ask for.
    fn ranges(&self, filters: &[Expr]) -> Result<Vec<RecordBatch>> {
        let key = key_arrays(&self.view, &key_prefix(&self.view, filters));
        let mut found = vec![];
        for range in &self.snapshot.ranges {
            for states in range.states.iter().filter(|states| states.num_rows() > 0) {
                match key.as_ref().filter(|_| range.sorted) {
                    Some(key) => found.extend(matching(states, key, true).map_err(external)?.0),
                    None => found.push(states.clone()),
                }
            }
        }
        Ok(found)
    }

    fn speed(
        &self,
        projection: &[usize],
        filters: &[Expr],
        partitions: usize,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let states = self.ranges(filters)?;
        if states.is_empty() {
            return Ok(None);
        }
        self.scanned.fetch_add(states.iter().map(|rows| rows.num_rows() as u64).sum(), Ordering::Relaxed);
        let mut parts: Vec<Vec<RecordBatch>> = vec![vec![]; partitions.clamp(1, states.len())];
        let count = parts.len();
        for (index, rows) in states.into_iter().enumerate() {
            parts[index % count].push(rows);
        }
        let schema = Arc::clone(self.view.state_schema());
        let states = MemorySourceConfig::try_new_exec(&parts, schema, Some(projection.to_vec()))?;
        // what it gives of a delta are slices, and whoever holds one of them would count it as the whole delta
        Ok(Some(operators::compacted(states)))
    }
}

#[async_trait]
impl StateSource for SnapshotStates {
    async fn scan(
        &self,
        session: &dyn Session,
        projection: &[usize],
        filters: &[Expr],
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let mut plans = vec![];
        if self.layer.reads_batch()
            && let Some(manifest) = self.snapshot.manifest.as_ref().filter(|manifest| !manifest.files.is_empty())
        {
            plans.push(self.batch(session, manifest, projection, filters)?);
        }
        if self.layer.reads_speed() {
            plans.extend(self.speed(projection, filters, session.config().target_partitions())?);
        }
        Ok(plans)
    }
}

/// The states of several views that are merged and answered together: the parts of a union, or one view alone.
#[derive(Debug)]
pub(crate) struct UnionStates(pub(crate) Vec<SnapshotStates>);

#[async_trait]
impl StateSource for UnionStates {
    async fn scan(
        &self,
        session: &dyn Session,
        projection: &[usize],
        filters: &[Expr],
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let mut plans = vec![];
        for states in &self.0 {
            plans.extend(states.scan(session, projection, filters).await?);
        }
        Ok(plans)
    }
}

/// The values that filters of the form `key = value` ask for, of as many leading key columns as have one.
fn key_prefix(view: &View, filters: &[Expr]) -> Vec<ScalarValue> {
    let fields = view.state_schema().fields().iter().take(view.key_columns());
    // equal floats may differ in their bits
    let fields = fields.take_while(|field| !field.data_type().is_floating());
    let value_of = |name: &str| filters.iter().flat_map(split_conjunction).find_map(|filter| equal_to(filter, name));
    fields.map_while(|field| value_of(field.name())).collect()
}

/// The value that a filter compares a column with; none if it does anything else.
fn equal_to(filter: &Expr, name: &str) -> Option<ScalarValue> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => {
            (column.name == name && !value.is_null()).then(|| value.clone())
        }
        _ => None,
    }
}

fn external(problem: Problem) -> DataFusionError {
    DataFusionError::External(Box::new(problem))
}
