//! A view, compiled: one SQL statement as row program, fold, merge and answer.
//!
//! ```text
//!  records ──► row program ──► fold ──► states ──► ⊕ ──► answer ──► finish ──► rows
//!              (below the aggregate)    (cells)        (above the aggregate: HAVING, ORDER BY, …)
//! ```

mod as_of;
mod branch;
mod compile;
mod dimension;
mod feed;
mod finality;
mod grouping;
mod hidden;
mod parsed;
mod reads;
mod refuse;
mod rows;
mod shown;
mod side;
#[cfg(test)]
mod tests;
mod touched;
mod windowed;
mod written;

use std::sync::Arc;

pub use as_of::plan;
pub use branch::{BranchColumn, branch_columns};
pub(crate) use dimension::{Dimension, STATES};
pub(crate) use feed::{FEED, feed_table};
use finality::Finality;
pub use finality::{Frontier, WINDOW_FINAL};
pub use touched::{StoredCell, StoredCells, Touched};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::PhysicalGroupBy;
use schemas::problem::SqlPosition;
use schemas::{LatePolicy, Problem, StreamDef};

use crate::windows::Windows;

/// Name of the table that the finish reads: the answered cells.
pub(crate) const CELLS: &str = "__cells";

/// A static table as a view joins it.
#[derive(Debug, Clone)]
pub struct StaticTable {
    /// Its name in SQL.
    pub name: String,
    /// Its rows; at least one (possibly empty) batch, for the schema.
    pub rows: Vec<RecordBatch>,
    /// Id and version, for the semantic hash; of a table that changes its id alone.
    pub identity: String,
    /// True if its rows may change: then it is joined when a view is read, and never while records are folded.
    pub is_late: bool,
    /// Of a table whose rows are valid from a time on: the column that says it. The last column of its rows is then
    /// [`VALID_TO`](schemas::column::VALID_TO), and it is joined as of a time.
    pub valid_from: Option<String>,
}

/// What a view is compiled from.
#[derive(Debug, Clone)]
pub struct ViewSource<'a> {
    /// The `SELECT`.
    pub sql: &'a str,
    /// Where it stands in the statement that the user sent.
    pub position: SqlPosition,
    /// The stream it may read.
    pub stream: &'a StreamDef,
    /// The static tables it may join.
    pub tables: &'a [StaticTable],
    /// What happens to late events.
    pub late: LatePolicy,
}

/// A compiled view. Immutable; share it in an `Arc`.
#[derive(Debug)]
pub struct View {
    semantic_hash: String,
    late: LatePolicy,
    /// Columns of the stream's log schema that the row program reads, in its order.
    input_columns: Vec<usize>,
    /// Schema of the row program's input: the input columns, then partition and offset.
    feed_schema: SchemaRef,
    /// Below the aggregate, reading [`FEED`].
    program: LogicalPlan,
    rows_of_record: RowsOfRecord,
    planner: SessionState,
    pub(crate) cells: CellPlan,
    /// The table that is joined to the cells when they are read.
    dimension: Option<Dimension>,
    /// When a cell's window is final, if it has one over the event time.
    finality: Option<Finality>,
    /// Above the aggregate, reading [`CELLS`].
    finish: LogicalPlan,
    is_global: bool,
    beyond_plain_sql: bool,
    /// What states are merged and answered by, whatever they were folded from.
    merge_hash: String,
}

/// How many rows the row program makes of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowsOfRecord {
    /// At most one.
    One,
    /// Several: there is a join.
    Several,
    /// Several, as many as arrays that are taken apart have items.
    Items,
}

/// The aggregate itself, bound to the row program's output. What fold, merge and answer share.
#[derive(Debug, Clone)]
pub struct CellPlan {
    /// Output of the row program.
    pub(crate) row_schema: SchemaRef,
    pub(crate) group_by: Arc<PhysicalGroupBy>,
    /// The evidence first, then the view's aggregates.
    pub(crate) aggregates: Vec<Arc<AggregateFunctionExpr>>,
    pub(crate) filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// `g0…`, `_n`, `_fp_hi`, `_fp_lo`, `_late`, `s0…`
    pub(crate) state_schema: SchemaRef,
    /// `g0…`, `a0…`: the answered cells.
    pub(crate) answer_schema: SchemaRef,
    /// How many key columns lead both schemas.
    pub(crate) keys: usize,
    /// Index of the partition and offset columns and of the lateness in the row schema.
    pub(crate) offset_column: usize,
    pub(crate) late_column: Option<usize>,
    /// Where rows of one record may be alike and are told apart: which of them a row is. The fold fills it in.
    pub(crate) ordinal_column: Option<usize>,
    /// Each cell is one row of a view without an aggregate.
    pub(crate) is_of_rows: bool,
    /// How windows are made of the cells, where a cell is not a window.
    pub(crate) windows: Option<Windows>,
}

impl View {
    /// Compiles a view.
    ///
    /// # Errors
    /// A problem with line, column and caret: the SQL is wrong (`syntax_error`, `invalid_sql`), or its
    /// result could not be merged exactly (`not_mergeable`: the reason and the spelling that works).
    pub fn compile(source: &ViewSource<'_>) -> Result<Arc<Self>, Problem> {
        compile::compile(source).map(Arc::new)
    }

    /// What the states mean: states of another hash must never be merged with these.
    pub fn semantic_hash(&self) -> &str {
        &self.semantic_hash
    }

    /// What happens to late events.
    pub fn late_policy(&self) -> LatePolicy {
        self.late
    }

    /// Which columns of `StreamDef::log_schema` a fold needs, in this order. The master reader projects to them.
    pub fn input_columns(&self) -> &[usize] {
        &self.input_columns
    }

    /// Schema of the states: key columns `g0…`, evidence, aggregate states `s0…`.
    pub fn state_schema(&self) -> &SchemaRef {
        &self.cells.state_schema
    }

    /// How many key columns lead the state schema.
    pub fn key_columns(&self) -> usize {
        self.cells.keys
    }

    /// Schema of the view's answer.
    pub fn output_schema(&self) -> SchemaRef {
        Arc::new(self.finish.schema().as_arrow().clone())
    }

    /// True for a view without `GROUP BY`: it has one row, also when no record was counted.
    pub fn is_global(&self) -> bool {
        self.is_global
    }

    /// True if plain SQL over the same records may well say something else: it knows no positions in the log,
    /// so what depends on an order may come out in another one.
    pub fn is_beyond_plain_sql(&self) -> bool {
        self.beyond_plain_sql
    }

    /// True for a view without an aggregate: each of its cells is one row of one record, and no cell has to be
    /// merged with another.
    pub fn is_of_rows(&self) -> bool {
        self.cells.is_of_rows
    }

    /// True if rows of the view can be compared with plain SQL's only all together: no column of theirs says
    /// which cells they are made of.
    pub fn is_compared_whole(&self) -> bool {
        self.makes_windows() || self.is_of_rows() || self.dimension.is_some()
    }

    /// The name of the table that is joined when the view is read.
    pub fn dimension_table(&self) -> Option<String> {
        self.dimension.as_ref().map(Dimension::table)
    }

    /// The version of that table that an answer made now would join.
    pub fn current_dimension(&self) -> Option<Arc<StaticTable>> {
        self.dimension.as_ref().map(Dimension::current)
    }

    /// From the next answer on, this version of the table is joined. Another table is of no use.
    pub fn set_dimension(&self, table: &StaticTable) {
        if let Some(dimension) =
            self.dimension.as_ref().filter(|dimension| dimension.current().identity == table.identity)
        {
            dimension.set(table);
        }
    }

    pub(crate) fn dimension(&self) -> Option<&Dimension> {
        self.dimension.as_ref()
    }

    /// The cells as they are answered: with the view's own keys.
    pub(crate) fn answered(&self) -> &CellPlan {
        self.dimension.as_ref().map_or(&self.cells, |dimension| &dimension.answered)
    }

    /// How many columns of the answered cells are keys, and their types.
    pub fn answered_keys(&self) -> Vec<arrow::datatypes::DataType> {
        let cells = self.answered();
        cells.answer_schema.fields().iter().take(cells.keys).map(|field| field.data_type().clone()).collect()
    }

    /// For each output column the key column of the answered cells that it is, if the finish only renames it: a
    /// filter on it can be answered by the index ([`View::stored_keys`]). None where the cells are answered by
    /// other keys than they are stored by.
    pub fn output_keys(&self) -> Vec<Option<usize>> {
        if self.dimension.is_some() {
            return vec![None; self.finish.schema().fields().len()];
        }
        self.shown_keys()
    }

    /// For each output column the key column of the answered cells that it is, if the finish only renames it.
    pub fn shown_keys(&self) -> Vec<Option<usize>> {
        let columns = self.finish.schema().columns();
        columns.iter().map(|column| shown::key_behind(&self.finish, column)).collect()
    }

    pub(crate) fn program(&self) -> (&LogicalPlan, &SessionState, &SchemaRef) {
        (&self.program, &self.planner, &self.feed_schema)
    }

    pub(crate) fn finish(&self) -> &LogicalPlan {
        &self.finish
    }

    /// True if one record can become several rows.
    pub fn fans_out(&self) -> bool {
        self.rows_of_record != RowsOfRecord::One
    }

    pub(crate) fn unnests(&self) -> bool {
        self.rows_of_record == RowsOfRecord::Items
    }
}
