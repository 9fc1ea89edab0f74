//! Keys of cells that are one row each: nothing is looked up, every row is a new cell.

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::GroupValues;
use schemas::footprint;

/// The keys as they came. Should a key come twice, it is there twice: [`crate::states::merge`] finds it.
#[derive(Debug, Default)]
pub(super) struct AppendedKeys {
    batches: Vec<Vec<ArrayRef>>,
    rows: usize,
}

impl GroupValues for AppendedKeys {
    fn intern(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        let rows = columns.first().map_or(0, Array::len);
        groups.clear();
        groups.extend(self.rows..self.rows + rows);
        if rows > 0 {
            // those of a piece of a frame would keep, and count as, the whole frame
            self.batches.push(columns.iter().map(footprint::compact_column).collect::<Result<_, _>>()?);
        }
        self.rows += rows;
        Ok(())
    }

    fn size(&self) -> usize {
        self.batches.iter().flatten().map(Array::get_array_memory_size).sum()
    }

    fn is_empty(&self) -> bool {
        self.rows == 0
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn emit(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        if matches!(emit_to, EmitTo::First(_)) {
            return exec_err!("rows of a view are emitted all at once");
        }
        let batches = std::mem::take(&mut self.batches);
        self.rows = 0;
        let columns = batches.first().map_or(0, Vec::len);
        let column = |index: usize| -> Result<ArrayRef> {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch[index].as_ref()).collect();
            Ok(concat(&parts)?)
        };
        (0..columns).map(column).collect()
    }

    fn clear_shrink(&mut self, _: usize) {
        self.batches = vec![];
        self.rows = 0;
    }
}
