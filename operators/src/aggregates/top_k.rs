//! `approx_top_k(x, k)`: the k most frequent values with their counts, most frequent first, equal counts
//! in ascending order of the value.
//!
//! The state counts every different value of the cell, so that the rank comes after ⊕ over all cells.
//! The summaries that others keep (Misra–Gries, space-saving) depend on the order in which values come
//! and in which parts are merged, so two layers would differ. These counts are exact; the name stays
//! "approximate", because that is what the function is called elsewhere. Past the cap the cell has no
//! answer.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, ScalarValue, not_impl_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::GroupsAccumulator;
use datafusion::logical_expr::function::AccumulatorArgs;

use super::bags::{Bags, Finish, Kept, state};
use super::capped::Use;
use super::types::plain_type;
use super::udaf::{Definition, Distinct, StateColumn, boxed, constant};
use super::values::{Values, kind_of, with_values};

/// The most values that are asked for.
const K_MAX: i64 = 1_000;

/// The aggregate `approx_top_k`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TopK(pub(crate) Use);

impl Definition for TopK {
    fn name(&self) -> &'static str {
        "approx_top_k"
    }

    fn distinct(&self) -> Distinct {
        Distinct::Refused("approx_top_k of distinct values: each of them would occur once")
    }

    fn coerce(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let [values, count] = args else {
            return plan_err!("approx_top_k takes two arguments, found {}", args.len());
        };
        if !count.is_integer() {
            return plan_err!("approx_top_k: the number of values must be an integer, found {count}");
        }
        match plain_type(values) {
            values if kind_of(values).is_some() => Ok(vec![values.clone(), DataType::Int64]),
            other => plan_err!("approx_top_k: {other} has no order here"),
        }
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(self.0.answer_type(list_type(&args[0])))
    }

    fn state(&self, _args: &[DataType]) -> Result<Vec<StateColumn>> {
        Ok(state())
    }

    fn groups(&self, call: &AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = call.expr_fields[0].data_type().clone();
        let wanted = || plan_datafusion_err!("approx_top_k: the number of values must be a constant from 1 to {K_MAX}");
        let k = match constant(call, 1).ok_or_else(wanted)?.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(Some(k)) if (1..=K_MAX).contains(&k) => k as usize,
            _ => return Err(wanted()),
        };
        macro_rules! ranks {
            ($values:ty) => {
                boxed(Kept::<$values, u64, Rank>::new(Rank { data_type, k }, self.0))
            };
        }
        with_values!(&data_type, ranks, not_impl_err!("approx_top_k: {data_type} has no order here"))
    }
}

fn fields(data_type: &DataType) -> Fields {
    vec![Field::new("value", data_type.clone(), false), Field::new("count", DataType::Int64, false)].into()
}

fn list_type(data_type: &DataType) -> DataType {
    DataType::new_list(DataType::Struct(fields(data_type)), true)
}

/// The most frequent values.
#[derive(Debug, Clone)]
struct Rank {
    data_type: DataType,
    k: usize,
}

impl<V: Values> Finish<V, u64> for Rank {
    fn name(&self) -> &'static str {
        "approx_top_k"
    }

    fn values(&self, bags: &mut Bags<V::Key, u64>) -> Result<ArrayRef> {
        let (mut items, mut counts, mut lengths, mut any) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for runs in bags.each() {
            let mut ranked: Vec<_> = runs.into_iter().flatten().map(|(item, count)| (Reverse(count), item)).collect();
            ranked.sort_unstable();
            ranked.truncate(self.k);
            lengths.push(ranked.len());
            any.push(!ranked.is_empty());
            for (Reverse(count), item) in ranked {
                items.push(Some(item));
                counts.push(count as i64);
            }
        }
        let values = V::array(&self.data_type, items.into_iter())?;
        let counts: ArrayRef = Arc::new(Int64Array::from(counts));
        let pairs = StructArray::new(fields(&self.data_type), vec![values, counts], None);
        let DataType::List(field) = list_type(&self.data_type) else {
            return not_impl_err!("a list has another type");
        };
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::new(field, offsets, Arc::new(pairs), Some(NullBuffer::from(any)))))
    }
}
