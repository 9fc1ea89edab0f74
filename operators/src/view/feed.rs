//! The feed: what the row program of a view reads, which is the rows that are folded next.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, TableReference, internal_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use schemas::StreamDef;
use schemas::column::{APPEND_TIME, OFFSET, PARTITION, PROCESSING_TIME, timestamp_type};

use super::ViewSource;

/// Name of the table that the row program reads: whatever rows are folded next.
pub(crate) const FEED: &str = "__feed";

/// A table over the feed, marked infinite, so that a join keeps the stream on the probe side: a build
/// side is cached in the plan and would be read again for every later micro-batch.
pub(crate) fn feed_table(
    schema: SchemaRef,
    partitions: Vec<Arc<dyn datafusion::physical_plan::streaming::PartitionStream>>,
) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(StreamingTable::try_new(schema, partitions)?.with_infinite_table(true)))
}

/// A record's columns as a view may name them: those that are stored, and the processing time.
pub(super) fn readable_schema(stream: &StreamDef) -> SchemaRef {
    let record = stream.record_schema();
    let processing_time = Arc::new(Field::new(PROCESSING_TIME, timestamp_type(), false));
    Arc::new(Schema::new(record.fields().iter().cloned().chain([processing_time]).collect::<Vec<_>>()))
}

/// The stored column that a readable one is.
fn stored_name(name: &str) -> &str {
    if name == PROCESSING_TIME { APPEND_TIME } else { name }
}

/// Replaces the scan of the stream by a scan of the feed, which has just the columns that are read.
pub(super) fn bind_to_feed(
    input: &LogicalPlan,
    source: &ViewSource<'_>,
) -> Result<(Vec<usize>, SchemaRef, LogicalPlan)> {
    let (record_schema, readable) = (source.stream.record_schema(), readable_schema(source.stream));
    let mut columns: Option<Vec<usize>> = None;
    input.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == source.stream.name
        {
            columns = Some(scan.projection.clone().unwrap_or_else(|| (0..readable.fields().len()).collect()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let Some(columns) = columns else { return internal_err!("the view reads no stream") };
    let hidden_columns = [record_schema.index_of(PARTITION)?, record_schema.index_of(OFFSET)?];
    let mut input_columns: Vec<usize> = vec![];
    for column in columns {
        let stored = record_schema.index_of(stored_name(readable.field(column).name()))?;
        if !hidden_columns.contains(&stored) && !input_columns.contains(&stored) {
            input_columns.push(stored);
        }
    }
    let mut order = input_columns.clone();
    order.extend(hidden_columns);
    let feed_schema: SchemaRef = Arc::new(record_schema.project(&order)?);
    let table = provider_as_source(feed_table(Arc::clone(&feed_schema), vec![])?);
    let program = input.clone().transform_up(|node| match node {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == source.stream.name => {
            let scanned = LogicalPlanBuilder::scan(FEED, Arc::clone(&table), None)?;
            let exprs = scan.projected_schema.iter().map(|(qualifier, field)| {
                let column = Expr::Column(Column::new(Some(TableReference::bare(FEED)), stored_name(field.name())));
                column.alias_qualified(qualifier.cloned(), field.name())
            });
            Ok(Transformed::yes(scanned.project(exprs.collect::<Vec<_>>())?.build()?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok((input_columns, feed_schema, program.data.recompute_schema()?))
}
