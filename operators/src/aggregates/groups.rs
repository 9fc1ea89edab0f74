//! The inside of an aggregate: one growable table of group states, and the rows that enter it.
//!
//! An aggregate implements [`Groups`] once; [`Table`] is the DataFusion `GroupsAccumulator` over it.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use datafusion::common::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

/// The states of many groups of one aggregate, addressed by dense group numbers.
pub(crate) trait Groups: Send + Sized + 'static {
    /// An empty table for the same call.
    fn fresh(&self) -> Self;

    /// Makes room for `groups` groups; new ones are empty.
    fn resize(&mut self, groups: usize);

    /// Adds input rows.
    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()>;

    /// Adds states that [`Groups::into_state`] wrote.
    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()>;

    /// Removes the first groups (or all) and returns them; the others move down.
    fn take(&mut self, emit: EmitTo) -> Self;

    /// The canonical states: equal multisets of inputs give equal bytes.
    fn into_state(self) -> Result<Vec<ArrayRef>>;

    /// The results.
    fn into_values(self) -> Result<ArrayRef>;

    /// Bytes held outside of the struct itself.
    fn heap_bytes(&self) -> usize;
}

/// Which group each input row belongs to, and which rows count.
pub(crate) struct Rows<'a> {
    groups: &'a [usize],
    filter: Option<&'a BooleanArray>,
}

impl<'a> Rows<'a> {
    /// Rows with their group numbers; `filter` is the aggregate's FILTER clause (null is false).
    pub(crate) fn new(groups: &'a [usize], filter: Option<&'a BooleanArray>) -> Self {
        Self { groups, filter }
    }

    /// True if no row is left out and the groups are these, one after the other.
    pub(crate) fn are_all_of(&self, mut groups: std::ops::Range<usize>) -> bool {
        self.filter.is_none()
            && self.groups.len() == groups.len()
            && self.groups.iter().all(|group| groups.next() == Some(*group))
    }

    /// Calls `visit(row, group)` for every row that is not null and passes the filter.
    #[inline]
    pub(crate) fn each(&self, nulls: Option<&NullBuffer>, mut visit: impl FnMut(usize, usize)) {
        match self.mask(nulls) {
            None => self.groups.iter().enumerate().for_each(|(row, group)| visit(row, *group)),
            Some(mask) => mask.valid_indices().for_each(|row| visit(row, self.groups[row])),
        }
    }

    /// [`Rows::each`] for visitors that can fail.
    pub(crate) fn try_each(
        &self,
        nulls: Option<&NullBuffer>,
        mut visit: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let mask = self.mask(nulls);
        for (row, group) in self.groups.iter().enumerate() {
            if mask.as_ref().is_none_or(|mask| mask.is_valid(row)) {
                visit(row, *group)?;
            }
        }
        Ok(())
    }

    /// Calls `visit(group, value)` for every value that is not null and passes the filter.
    #[inline]
    pub(crate) fn each_value<T: ArrowPrimitiveType>(
        &self,
        values: &PrimitiveArray<T>,
        mut visit: impl FnMut(usize, T::Native),
    ) {
        match self.mask(values.nulls()) {
            None => self.groups.iter().zip(values.values()).for_each(|(group, value)| visit(*group, *value)),
            Some(mask) => mask.valid_indices().for_each(|row| visit(self.groups[row], values.value(row))),
        }
    }

    /// The rows that count; None when all do.
    fn mask(&self, nulls: Option<&NullBuffer>) -> Option<NullBuffer> {
        let passed = self.filter.map(|filter| match filter.nulls() {
            None => NullBuffer::new(filter.values().clone()),
            Some(nulls) => NullBuffer::new(filter.values() & nulls.inner()),
        });
        NullBuffer::union(nulls, passed.as_ref()).filter(|mask| mask.null_count() > 0)
    }
}

/// A DataFusion accumulator over a [`Groups`] table.
pub(crate) struct Table<G>(pub(crate) G);

impl<G: Groups> GroupsAccumulator for Table<G> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.0.resize(total_num_groups);
        self.0.update(values, &Rows::new(group_indices, opt_filter))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.0.resize(total_num_groups);
        self.0.merge(values, &Rows::new(group_indices, None))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.0.take(emit_to).into_values()
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.take(emit_to).into_state()
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, Array::len);
        let groups: Vec<usize> = (0..rows).collect();
        let mut table = self.0.fresh();
        table.resize(rows);
        table.update(values, &Rows::new(&groups, opt_filter))?;
        table.into_state()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.heap_bytes()
    }
}

/// Grows `cells` to `groups` entries; never shrinks.
pub(crate) fn grow<T: Clone + Default>(cells: &mut Vec<T>, groups: usize) {
    if groups > cells.len() {
        cells.resize(groups, T::default());
    }
}

/// The null buffer of groups that saw a value; None when all did, so that it is canonical.
pub(crate) fn nulls_of(seen: &[bool]) -> Option<NullBuffer> {
    Some(NullBuffer::from(seen)).filter(|nulls| nulls.null_count() > 0)
}

/// One value per group, and whether the group has seen any.
#[derive(Debug)]
pub(crate) struct Kept<V> {
    pub(crate) values: Vec<V>,
    pub(crate) seen: Vec<bool>,
}

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self { values: Vec::new(), seen: Vec::new() }
    }
}

impl<V: Clone> Kept<V> {
    /// Grows to `groups` entries, new ones with a value that nobody sees; never shrinks.
    pub(crate) fn resize(&mut self, groups: usize, unseen: V) {
        if groups > self.values.len() {
            self.values.resize(groups, unseen);
        }
        grow(&mut self.seen, groups);
    }

    /// Moves the first groups out, or all.
    pub(crate) fn take(&mut self, emit: EmitTo) -> Self {
        Self { values: emit.take_needed(&mut self.values), seen: emit.take_needed(&mut self.seen) }
    }

    /// Bytes of its allocations.
    pub(crate) fn heap_bytes(&self) -> usize {
        bytes_of(&self.values) + bytes_of(&self.seen)
    }
}

/// Bytes of a vector's allocation.
pub(crate) fn bytes_of<T>(cells: &Vec<T>) -> usize {
    cells.capacity() * size_of::<T>()
}

/// By how many bytes something grew; negative when it shrank.
pub(crate) fn grown(before: usize, after: usize) -> isize {
    after.cast_signed() - before.cast_signed()
}
