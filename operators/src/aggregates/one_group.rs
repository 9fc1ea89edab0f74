//! The scalar accumulator of an aggregate, derived from a one-group table, so that each aggregate
//! has one implementation.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::ArrayRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// A table with the one group 0. `evaluate` and `state` keep what was accumulated.
pub(crate) struct OneGroup {
    // The trait wants `Sync`, a boxed table is only `Send`; the lock is never contended.
    table: Mutex<Box<dyn GroupsAccumulator>>,
    groups: Vec<usize>,
}

impl OneGroup {
    /// Wraps an empty table whose states have the types of `empty_states` (arrays without rows).
    pub(crate) fn new(mut table: Box<dyn GroupsAccumulator>, empty_states: &[ArrayRef]) -> Result<Self> {
        table.merge_batch(empty_states, &[], 1)?; // group 0 exists although no row arrives
        Ok(Self { table: Mutex::new(table), groups: Vec::new() })
    }

    fn table(&mut self) -> &mut dyn GroupsAccumulator {
        self.table.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut()
    }

    fn groups(&mut self, rows: usize) -> Vec<usize> {
        let mut groups = std::mem::take(&mut self.groups);
        groups.resize(rows, 0);
        groups
    }

    /// Emits the state and puts it back.
    fn copy_state(&mut self) -> Result<Vec<ArrayRef>> {
        let table = self.table();
        let states = table.state(EmitTo::All)?;
        table.merge_batch(&states, &[0], 1)?;
        Ok(states)
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let groups = self.groups(values.first().map_or(0, |array| array.len()));
        let updated = self.table().update_batch(values, &groups, None, 1);
        self.groups = groups;
        updated
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let groups = self.groups(states.first().map_or(0, |array| array.len()));
        let merged = self.table().merge_batch(states, &groups, 1);
        self.groups = groups;
        merged
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.copy_state()?.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let states = self.copy_state()?;
        let table = self.table();
        let value = table.evaluate(EmitTo::All)?;
        table.merge_batch(&states, &[0], 1)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        let table: MutexGuard<'_, _> = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        size_of::<Self>() + self.groups.capacity() * size_of::<usize>() + table.size()
    }
}

impl fmt::Debug for OneGroup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OneGroup")
    }
}
