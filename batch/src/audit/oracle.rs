//! The oracle: sampled cells by plain SQL over the raw records, with code that is not ours.
//!
//! The view's `SELECT` runs on DataFusion as it comes, without Bifold's aggregates; only what DataFusion does
//! not have is ours: `TUMBLE`, buckets of times that are no nanoseconds. It guards against an error that
//! both layers share.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, SessionContext};
use operators::{
    LateralPlanner, StateSource, StaticTable, View, buckets, merged, plan, session, states, windows, without_lateral,
};
use schemas::column::{APPEND_TIME, PROCESSING_TIME};
use schemas::documents::certificate::OracleCheck;
use schemas::problem::SqlPosition;
use schemas::{Code, LatePolicy, Problem, StreamDef};

use super::not_sampled;
use crate::internal;

mod rows;
mod values;

/// Differences that are put into words.
const SAMPLES_IN_WORDS_MAX: usize = 10;

/// A view's `SELECT` as the oracle needs it.
pub struct Oracle<'a> {
    /// The view.
    pub view: &'a Arc<View>,
    /// Its `SELECT`.
    pub sql: &'a str,
    /// Its stream.
    pub stream: &'a StreamDef,
    /// The static tables it joins.
    pub tables: &'a [StaticTable],
}

/// Records and what was made of them.
#[derive(Debug)]
pub struct OracleInput {
    /// The records, with the columns that the view reads.
    pub rows: Vec<RecordBatch>,
    /// States of some cells that were folded from exactly these records; where cells are panes, sessions or rows
    /// ([`View::is_compared_whole`]), of all cells.
    pub states: RecordBatch,
}

impl Oracle<'_> {
    /// The reason why this view cannot be checked, if there is one.
    pub fn unfit(&self) -> Option<String> {
        if self.view.late_policy() != LatePolicy::Include {
            return Some("late events are left out, or nothing else is in: plain SQL does not know which".into());
        }
        if self.sql.to_lowercase().split_whitespace().any(|word| word == "limit") {
            return Some("the view has a LIMIT: which rows are in it may depend on ties".into());
        }
        if self.view.is_beyond_plain_sql() {
            return Some("the view orders records by their position, or distinct values: plain SQL does not".into());
        }
        if self.view.is_of_rows() {
            return None;
        }
        let keys = self.view.shown_keys();
        let all_keys_are_shown = (0..self.view.answered_keys().len()).all(|key| keys.contains(&Some(key)));
        if !self.view.is_global() && !all_keys_are_shown {
            return Some("the view's columns do not name its cells".into());
        }
        None
    }

    /// Indexes of the log schema's columns that [`OracleInput::rows`] have.
    pub fn columns(&self) -> Vec<usize> {
        // a table needs a column: with none, take the one that the platform adds first
        if self.view.input_columns().is_empty() {
            vec![self.stream.columns.len()]
        } else {
            self.view.input_columns().to_vec()
        }
    }

    /// Computes the cells again and compares them.
    ///
    /// # Errors
    /// Our own side failed; what plain SQL cannot do is a reason to skip instead.
    pub async fn check(&self, input: OracleInput) -> Result<OracleCheck, Problem> {
        // a table that changes must be the same one on both sides
        let dimension = self.view.current_dimension();
        let ours = match self.ours(input.states.clone(), dimension.clone()).await {
            Ok(ours) => ours,
            Err(error) => return without_answer(&error),
        };
        match self.theirs(input.rows, dimension.as_deref()).await {
            Ok(theirs) if self.view.is_of_rows() => Ok(rows::compare(&ours, &theirs.rows)),
            Ok(theirs) => self.compare(&input.states, &ours, &theirs),
            Err(error) => Ok(not_sampled(format!("plain SQL cannot compute it: {}", first_line(&error)))),
        }
    }

    /// The sampled cells as the view answers them.
    async fn ours(&self, states: RecordBatch, dimension: Option<Arc<StaticTable>>) -> Result<RecordBatch> {
        let state = session::state(session::config().with_target_partitions(1), Arc::default());
        let table = merged::table_at(self.view, "new", memory_source(vec![states]), dimension)?;
        let context = SessionContext::new_with_state(state);
        one_batch(&context.read_table(table)?.collect().await?, &self.view.output_schema())
    }

    /// Every row of the view by plain SQL.
    async fn theirs(&self, rows: Vec<RecordBatch>, dimension: Option<&StaticTable>) -> Result<Theirs> {
        let mut state = SessionStateBuilder::new().with_config(session::config()).with_default_features().build();
        for function in windows::functions() {
            let _ = state.register_udf(function);
        }
        buckets::register(&mut state)?;
        let (schema, rows) = readable(Arc::new(self.stream.log_schema().project(&self.columns())?), rows)?;
        let records: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema, vec![rows])?);
        let known = vec![(self.stream.name.clone(), Arc::clone(&records))];
        state.register_relation_planner(Arc::new(windows::WindowPlanner::over(known)))?;
        state.register_relation_planner(Arc::new(LateralPlanner))?;
        let context = SessionContext::new_with_state(state);
        context.register_table(self.stream.name.as_str(), records)?;
        let current = |table: &'_ StaticTable| dimension.filter(|current| current.name == table.name).cloned();
        let tables = self.tables.iter().map(|table| current(table).unwrap_or_else(|| table.clone()));
        let tables: Vec<StaticTable> = tables.collect();
        for table in &tables {
            let Some(schema) = table.rows.first().map(RecordBatch::schema) else { continue };
            context
                .register_table(table.name.as_str(), Arc::new(MemTable::try_new(schema, vec![table.rows.clone()])?))?;
        }
        let state = context.state();
        let plan = plan(&state, self.sql, &tables).await?;
        let frame = DataFrame::new(state, without_lateral(plan)?);
        let expressions = output_expressions(frame.logical_plan());
        let schema = Arc::new(frame.schema().as_arrow().clone());
        Ok(Theirs { rows: one_batch(&frame.collect().await?, &schema)?, expressions })
    }

    fn compare(&self, states: &RecordBatch, ours: &RecordBatch, theirs: &Theirs) -> Result<OracleCheck, Problem> {
        let approximate = self.sql.to_lowercase().contains("approx_");
        if approximate && !theirs.expressions.iter().any(|e| e.contains("approx_")) {
            return Ok(not_sampled("which columns are approximate cannot be seen"));
        }
        let mut check = OracleCheck { sampled: 0, differing: 0, skipped: None, samples: vec![] };
        let (our_rows, their_rows) = match (self.rows_by_key(ours), self.rows_by_key(&theirs.rows)) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(reason), _) | (_, Err(reason)) => {
                return Ok(not_sampled(format!("keys cannot be compared: {reason}")));
            }
        };
        for (key, name) in self.sampled_keys(states, (ours, &our_rows), (&theirs.rows, &their_rows))? {
            let key = key.as_ref();
            check.sampled += 1;
            let difference = match (our_rows.get(key), their_rows.get(key)) {
                (None, None) => None,
                (Some(a), Some(b)) => values::difference((ours, *a), (&theirs.rows, *b), &theirs.expressions),
                (Some(_), None) => Some("plain SQL has no such row".into()),
                (None, Some(_)) => Some("only plain SQL has such a row".into()),
            };
            if let Some(difference) = difference {
                check.differing += 1;
                if check.samples.len() < SAMPLES_IN_WORDS_MAX {
                    check.samples.push(format!("[{name}]: {difference}"));
                }
            }
        }
        Ok(check)
    }

    /// The keys that are compared, encoded and in words: of the sampled cells; where these are no windows, all
    /// windows that either side has, because the sample is whole then.
    fn sampled_keys(
        &self,
        states: &RecordBatch,
        ours: (&RecordBatch, &RowsByKey),
        theirs: (&RecordBatch, &RowsByKey),
    ) -> std::result::Result<BTreeMap<Box<[u8]>, String>, Problem> {
        if !self.view.is_compared_whole() {
            let keys = states::keys(self.view, states)?;
            let key = |(cell, key): (usize, arrow_row::Row<'_>)| {
                let key = if self.view.is_global() { &[][..] } else { key.data() };
                (Box::from(key), self.key_text(states, cell))
            };
            return Ok(keys.iter().enumerate().map(key).collect());
        }
        let mut keys = BTreeMap::new();
        for (rows, by_key) in [ours, theirs] {
            keys.extend(by_key.iter().map(|(key, row)| (key.clone(), row_text(rows, *row))));
        }
        Ok(keys)
    }

    /// Row by encoded key, from the output columns that are key columns.
    fn rows_by_key(&self, rows: &RecordBatch) -> std::result::Result<RowsByKey, String> {
        if self.view.is_global() {
            return Ok((0..rows.num_rows()).map(|row| (Box::from(&[][..]), row)).collect());
        }
        let shown = self.view.shown_keys();
        let types = self.view.answered_keys();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (key, data_type) in types.iter().enumerate() {
            let index = shown.iter().position(|column| *column == Some(key)).ok_or("a key is not shown")?;
            columns.push(arrow::compute::cast(rows.column(index), data_type).map_err(|e| e.to_string())?);
        }
        let fields = types.into_iter().map(arrow_row::SortField::new).collect();
        let converter = arrow_row::RowConverter::new(fields).map_err(|e| e.to_string())?;
        let keys = converter.convert_columns(&columns).map_err(|e| e.to_string())?;
        Ok(keys.iter().enumerate().map(|(row, key)| (Box::from(key.as_ref()), row)).collect())
    }

    fn key_text(&self, states: &RecordBatch, cell: usize) -> String {
        let text = |column: usize| array_value_to_string(states.column(column), cell).unwrap_or_default();
        (0..self.view.key_columns()).map(text).collect::<Vec<_>>().join(", ")
    }
}

/// Records with the column that views read under a second name.
fn readable(schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let Ok(append_time) = schema.index_of(APPEND_TIME) else { return Ok((schema, rows)) };
    let processing_time = Arc::new(schema.field(append_time).clone().with_name(PROCESSING_TIME));
    let fields: Vec<_> = schema.fields().iter().cloned().chain([processing_time]).collect();
    let readable: SchemaRef = Arc::new(Schema::new(fields));
    let with_it = |rows: &RecordBatch| {
        let columns = rows.columns().iter().chain([rows.column(append_time)]).cloned().collect();
        RecordBatch::try_new(Arc::clone(&readable), columns)
    };
    let rows = rows.iter().map(with_it).collect::<std::result::Result<_, _>>()?;
    Ok((readable, rows))
}

/// Rows of an answer by their encoded key.
type RowsByKey = BTreeMap<Box<[u8]>, usize>;

fn row_text(rows: &RecordBatch, row: usize) -> String {
    let text = |column: &ArrayRef| array_value_to_string(column, row).unwrap_or_default();
    rows.columns().iter().map(text).collect::<Vec<_>>().join(", ")
}

/// What plain SQL gave.
struct Theirs {
    rows: RecordBatch,
    /// Per column, the expression that it is.
    expressions: Vec<String>,
}

fn one_batch(rows: &[RecordBatch], schema: &SchemaRef) -> Result<RecordBatch> {
    match rows.first() {
        Some(first) => Ok(concat_batches(&first.schema(), rows)?),
        None => Ok(RecordBatch::new_empty(Arc::clone(schema))),
    }
}

/// The expressions of the topmost projection, in words: aggregates are named in them.
fn output_expressions(plan: &LogicalPlan) -> Vec<String> {
    match plan {
        LogicalPlan::Projection(projection) => projection.expr.iter().map(|e| e.to_string().to_lowercase()).collect(),
        _ => plan.inputs().first().map(|input| output_expressions(input)).unwrap_or_default(),
    }
}

/// A cell may have no answer (a sum out of range, more values than its cap): its states are proved all the same.
fn without_answer(error: &DataFusionError) -> Result<OracleCheck, Problem> {
    let problem = operators::error::problem(error, "", SqlPosition { line: 1, column: 1 });
    match problem.code {
        Code::ComputationFailed => Ok(not_sampled(format!("a cell has no answer: {}", problem.detail))),
        _ => Err(internal(error)),
    }
}

fn first_line(error: &DataFusionError) -> String {
    error.strip_backtrace().lines().next().unwrap_or_default().to_owned()
}

/// States in memory as the source of a view's answer.
pub fn memory_source(states: Vec<RecordBatch>) -> Arc<dyn StateSource> {
    Arc::new(MemoryStates(states))
}

#[derive(Debug)]
struct MemoryStates(Vec<RecordBatch>);

#[async_trait]
impl StateSource for MemoryStates {
    async fn scan(&self, _: &dyn Session, projection: &[usize], _: &[Expr]) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let Some(first) = self.0.first() else { return Ok(vec![]) };
        let plan =
            MemorySourceConfig::try_new_exec(std::slice::from_ref(&self.0), first.schema(), Some(projection.to_vec()))?;
        Ok(vec![plan])
    }
}
