//! A table of bags: the groups of every aggregate that keeps values. What differs between them is how
//! a bag becomes an answer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;

use super::bag::{Bag, Cap, Count, Key};
use super::capped::Use;
use super::groups::{Groups, Rows, bytes_of};
use super::udaf::StateColumn;
use super::values::Values;

/// The state of all of them.
pub(crate) fn state() -> Vec<StateColumn> {
    vec![("values", arrow::datatypes::DataType::LargeBinary, false)]
}

/// One bag per group.
pub(crate) struct Bags<K: Key, C> {
    groups: Vec<Bag<K, C>>,
    /// Bytes that the bags hold.
    heap: usize,
    cap: Cap,
}

impl<K: Key, C: Count> Bags<K, C> {
    /// No groups yet.
    pub(crate) fn new(cap: Cap) -> Self {
        Self { groups: Vec::new(), heap: 0, cap }
    }

    /// An empty table of the same kind.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.cap)
    }

    /// Makes room for `groups` groups.
    pub(crate) fn resize(&mut self, groups: usize) {
        if groups > self.groups.len() {
            self.groups.resize_with(groups, Bag::default);
        }
    }

    /// Adds one value.
    #[inline]
    pub(crate) fn add(&mut self, group: usize, item: K::Item<'_>) {
        self.heap = self.heap.wrapping_add_signed(self.groups[group].add(item, self.cap));
    }

    /// Adds states.
    pub(crate) fn merge(&mut self, states: &ArrayRef, rows: &Rows<'_>) -> Result<()> {
        let states = states.as_binary::<i64>();
        rows.try_each(states.nulls(), |row, group| {
            self.heap = self.heap.wrapping_add_signed(self.groups[group].merge(states.value(row), self.cap)?);
            Ok(())
        })
    }

    /// Removes the first groups (or all).
    pub(crate) fn take(&mut self, emit: EmitTo) -> Self {
        let groups = emit.take_needed(&mut self.groups);
        let heap = groups.iter().map(Bag::heap_bytes).sum();
        self.heap = self.heap.saturating_sub(heap);
        Self { groups, heap, cap: self.cap }
    }

    /// The canonical states.
    pub(crate) fn into_state(mut self) -> ArrayRef {
        let mut states = LargeBinaryBuilder::with_capacity(self.groups.len(), self.heap / 2);
        let mut bytes = Vec::new();
        for bag in &mut self.groups {
            bytes.clear();
            bag.write(self.cap, &mut bytes);
            states.append_value(&bytes);
        }
        Arc::new(states.finish())
    }

    /// The runs of every group in order: None past the cap.
    pub(crate) fn each(
        &mut self,
    ) -> impl Iterator<Item = Option<impl ExactSizeIterator<Item = (K::Item<'_>, C)> + Clone>> {
        let cap = self.cap;
        self.groups.iter_mut().map(move |bag| bag.runs(cap))
    }

    /// Bytes held outside of the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        bytes_of(&self.groups) + self.heap
    }
}

/// How bags become answers.
pub(crate) trait Finish<V: Values, C: Count>: Clone + Send + 'static {
    /// The SQL name.
    fn name(&self) -> &str;

    /// The values of all groups; whatever for those past the cap.
    fn values(&self, bags: &mut Bags<V::Key, C>) -> Result<ArrayRef>;
}

/// Groups that keep the first argument's values.
pub(crate) struct Kept<V: Values, C, F> {
    bags: Bags<V::Key, C>,
    finish: F,
    place: Use,
}

impl<V: Values, C: Count, F: Finish<V, C>> Kept<V, C, F> {
    /// No groups yet.
    pub(crate) fn new(finish: F, place: Use) -> Self {
        Self { bags: Bags::new(place.cap()), finish, place }
    }
}

impl<V: Values, C: Count, F: Finish<V, C>> Groups for Kept<V, C, F> {
    fn fresh(&self) -> Self {
        Self { bags: self.bags.fresh(), finish: self.finish.clone(), place: self.place }
    }

    fn resize(&mut self, groups: usize) {
        self.bags.resize(groups);
    }

    fn update(&mut self, args: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        V::each(&args[0], rows, |group, item| self.bags.add(group, item))
    }

    fn merge(&mut self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        self.bags.merge(&states[0], rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self { bags: self.bags.take(emit), finish: self.finish.clone(), place: self.place }
    }

    fn into_state(self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.bags.into_state()])
    }

    fn into_values(mut self) -> Result<ArrayRef> {
        let over = self.bags.each().map(|runs| runs.is_none()).collect();
        let values = self.finish.values(&mut self.bags)?;
        self.place.answer(self.finish.name(), values, over)
    }

    fn heap_bytes(&self) -> usize {
        self.bags.heap_bytes()
    }
}
