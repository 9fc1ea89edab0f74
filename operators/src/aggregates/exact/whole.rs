//! Exact sums of integers and decimals, one per group.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, i256};
use datafusion::logical_expr::EmitTo;

use crate::aggregates::groups::{Rows, bytes_of, grow};

/// The state of a sum of 64-bit integers: no more than 2^63 of them fit into 38 digits.
pub(crate) const INTEGER_STATE: DataType = DataType::Decimal128(38, 0);

/// An accumulator wide enough for 2^63 values of `N`, so that it never wraps.
pub(crate) trait Total<N>: Copy + Default + Send + 'static {
    /// The value, widened.
    fn widen(value: N) -> Self;
    /// The sum.
    fn plus(self, other: Self) -> Self;
}

impl<N: Into<i128>> Total<N> for i128 {
    #[inline]
    fn widen(value: N) -> Self {
        value.into()
    }

    #[inline]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

impl Total<i128> for i256 {
    #[inline]
    fn widen(value: i128) -> Self {
        i256::from_i128(value)
    }

    #[inline]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

impl Total<i256> for i256 {
    #[inline]
    fn widen(value: i256) -> Self {
        value
    }

    #[inline]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

/// A type whose values are summed: its accumulator is the decimal type of the state.
pub(crate) trait Summed: ArrowPrimitiveType {
    /// The Arrow type of the state.
    type State: ArrowPrimitiveType<Native: Total<Self::Native> + Default>;
}

impl Summed for arrow::datatypes::Int64Type {
    type State = Decimal128Type;
}

impl Summed for arrow::datatypes::UInt64Type {
    type State = Decimal128Type;
}

impl Summed for Decimal128Type {
    type State = Decimal256Type;
}

impl Summed for Decimal256Type {
    type State = Decimal256Type;
}

/// One exact sum per group.
pub(crate) struct Totals<T: Summed> {
    /// The sums; 0 where nothing was added.
    pub(crate) sums: Vec<<T::State as ArrowPrimitiveType>::Native>,
    state_type: DataType,
}

impl<T: Summed> Totals<T> {
    /// An empty table whose states have the type `state_type`.
    pub(crate) fn new(state_type: DataType) -> Self {
        Self { sums: Vec::new(), state_type }
    }

    /// An empty table of the same types.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.state_type.clone())
    }

    /// Makes room for `groups` groups.
    pub(crate) fn resize(&mut self, groups: usize) {
        grow(&mut self.sums, groups);
    }

    /// Adds values and calls `seen(group)` for each.
    #[inline]
    pub(crate) fn update(&mut self, values: &ArrayRef, rows: &Rows<'_>, mut seen: impl FnMut(usize)) {
        let sums = self.sums.as_mut_slice();
        rows.each_value(values.as_primitive::<T>(), |group, value| {
            sums[group] = sums[group].plus(Total::widen(value));
            seen(group);
        });
    }

    /// Adds states and calls `seen(group)` for each that is not null.
    pub(crate) fn merge(&mut self, states: &ArrayRef, rows: &Rows<'_>, mut seen: impl FnMut(usize)) {
        let sums = self.sums.as_mut_slice();
        rows.each_value(states.as_primitive::<T::State>(), |group, sum| {
            sums[group] = Total::<T::Native>::plus(sums[group], sum);
            seen(group);
        });
    }

    /// Removes the first groups (or all).
    pub(crate) fn take(&mut self, emit: EmitTo) -> Self {
        Self { sums: emit.take_needed(&mut self.sums), state_type: self.state_type.clone() }
    }

    /// The sums as they are persisted.
    pub(crate) fn into_state(self, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(PrimitiveArray::<T::State>::new(self.sums.into(), nulls).with_data_type(self.state_type))
    }

    /// Bytes held outside of the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        bytes_of(&self.sums)
    }
}
