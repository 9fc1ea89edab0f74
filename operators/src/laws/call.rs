//! One call of an aggregate on fixed inputs, folded and merged in every way that the laws ask for.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{Column, Literal};

use super::round_trip::ipc_bytes;

/// An argument of an aggregate call.
#[derive(Debug, Clone)]
pub enum Argument {
    /// A value for every row.
    Column(ArrayRef),
    /// The same value for every row, known when the view is compiled.
    Literal(ScalarValue),
}

/// A call and its inputs.
pub(crate) struct Call {
    expression: AggregateFunctionExpr,
    inputs: Vec<ArrayRef>,
    states: SchemaRef,
    rows: usize,
}

impl Call {
    /// Resolves a call.
    pub(crate) fn new(aggregate: &Arc<AggregateUDF>, args: &[Argument]) -> Result<Self> {
        let rows = args.iter().find_map(|arg| match arg {
            Argument::Column(values) => Some(values.len()),
            Argument::Literal(_) => None,
        });
        let rows = rows.unwrap_or(0);
        let (mut expressions, mut inputs, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        for (index, arg) in args.iter().enumerate() {
            let name = format!("c{index}");
            let (expression, input): (Arc<dyn PhysicalExpr>, ArrayRef) = match arg {
                Argument::Column(values) => (Arc::new(Column::new(&name, index)), Arc::clone(values)),
                Argument::Literal(value) => (Arc::new(Literal::new(value.clone())), value.to_array_of_size(rows)?),
            };
            fields.push(Field::new(name, input.data_type().clone(), true));
            expressions.push(expression);
            inputs.push(input);
        }
        let schema = Arc::new(Schema::new(fields));
        let expression =
            AggregateExprBuilder::new(Arc::clone(aggregate), expressions).schema(schema).alias("x").build()?;
        let states = Arc::new(Schema::new(expression.state_fields()?));
        Ok(Self { expression, inputs, states, rows })
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The numbers of all rows.
    pub(crate) fn all_rows(&self) -> Vec<usize> {
        (0..self.rows).collect()
    }

    /// An empty table.
    pub(crate) fn table(&self) -> Result<CallTable<'_>> {
        Ok(CallTable { call: self, table: self.expression.create_groups_accumulator()? })
    }

    /// The state of one group with these rows.
    pub(crate) fn fold(&self, rows: &[usize]) -> Result<States> {
        let mut table = self.table()?;
        table.update(rows, &vec![0; rows.len()], None, 1)?;
        table.state(EmitTo::All, 1)
    }

    /// All rows of all states, merged into one group.
    pub(crate) fn merge(&self, states: &[&States]) -> Result<States> {
        let mut table = self.table()?;
        for states in states {
            table.table.merge_batch(states.rows.columns(), &vec![0; states.rows.num_rows()], 1)?;
        }
        table.state(EmitTo::All, 1)
    }

    /// Row by row, the merge of two states.
    pub(crate) fn merge_rows(&self, a: &States, b: &States) -> Result<States> {
        let count = a.rows.num_rows();
        let groups: Vec<usize> = (0..count).collect();
        let mut table = self.table()?;
        table.table.merge_batch(a.rows.columns(), &groups, count)?;
        table.table.merge_batch(b.rows.columns(), &groups, count)?;
        table.state(EmitTo::All, count)
    }

    /// The answers of states, one per row.
    pub(crate) fn evaluate(&self, states: &States) -> Result<ArrayRef> {
        let count = states.rows.num_rows();
        let groups: Vec<usize> = (0..count).collect();
        let mut table = self.table()?;
        table.table.merge_batch(states.rows.columns(), &groups, count)?;
        table.table.evaluate(EmitTo::All)
    }

    /// The answer of the scalar accumulator; it is asked twice, and its states in between.
    pub(crate) fn scalar(&self, rows: &[usize]) -> Result<ArrayRef> {
        let mut accumulator = self.expression.create_accumulator()?;
        let (early, late) = rows.split_at(rows.len() / 2);
        accumulator.update_batch(&self.inputs_of(early)?)?;
        let mut other = self.expression.create_accumulator()?;
        other.update_batch(&self.inputs_of(late)?)?;
        let states: Vec<ArrayRef> = other.state()?.iter().map(ScalarValue::to_array).collect::<Result<_>>()?;
        accumulator.merge_batch(&states)?;
        accumulator.evaluate()?;
        accumulator.state()?;
        accumulator.evaluate()?.to_array()
    }

    fn inputs_of(&self, rows: &[usize]) -> Result<Vec<ArrayRef>> {
        let indices = UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32));
        self.inputs.iter().map(|input| Ok(take(input, &indices, None)?)).collect()
    }
}

/// A table of groups of one call.
pub(crate) struct CallTable<'a> {
    call: &'a Call,
    table: Box<dyn GroupsAccumulator>,
}

impl CallTable<'_> {
    /// Adds input rows.
    pub(crate) fn update(
        &mut self,
        rows: &[usize],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.table.update_batch(&self.call.inputs_of(rows)?, groups, filter, count)
    }

    /// Emits states of a table that has `count` groups.
    pub(crate) fn state(&mut self, emit: EmitTo, count: usize) -> Result<States> {
        let none: Vec<ArrayRef> = self.call.inputs_of(&[])?;
        self.table.update_batch(&none, &[], None, count)?;
        States::new(Arc::clone(&self.call.states), self.table.state(emit)?)
    }

    /// One state per row.
    pub(crate) fn convert(&self, rows: &[usize]) -> Result<States> {
        let states = self.table.convert_to_state(&self.call.inputs_of(rows)?, None)?;
        States::new(Arc::clone(&self.call.states), states)
    }
}

/// States, one per row. Equality is of values (floats bit by bit), whatever the layout of a slice.
#[derive(Debug, PartialEq)]
pub(crate) struct States {
    rows: RecordBatch,
}

impl States {
    fn new(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<Self> {
        let count = columns.first().map_or(0, |column| column.len());
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(Self { rows: RecordBatch::try_new_with_options(schema, columns, &options)? })
    }

    /// From batches of rows.
    pub(crate) fn of_parts(schema: &SchemaRef, parts: &[RecordBatch]) -> Result<Self> {
        Ok(Self { rows: concat_batches(schema, parts)? })
    }

    /// All rows of several states.
    pub(crate) fn concat(parts: &[Self]) -> Result<Self> {
        let rows: Vec<RecordBatch> = parts.iter().map(|part| part.rows.clone()).collect();
        Self::of_parts(rows[0].schema_ref(), &rows)
    }

    /// The rows.
    pub(crate) fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// One of the rows.
    pub(crate) fn row(&self, index: usize) -> Self {
        Self { rows: self.rows.slice(index, 1) }
    }

    /// The first rows, and the others.
    pub(crate) fn split(&self, first: usize) -> (Self, Self) {
        let rest = self.rows.num_rows() - first;
        (Self { rows: self.rows.slice(0, first) }, Self { rows: self.rows.slice(first, rest) })
    }

    /// What would be written to a file.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        ipc_bytes(&self.rows)
    }
}
