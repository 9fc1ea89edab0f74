//! The hidden state columns `_n`, `_fp_hi`, `_fp_lo`, `_late` of every cell (DESIGN §5.3).
//!
//! `_n` counts the records of a cell (its rows, where a join or `UNNEST` makes several rows of a record), `_fp_*` is an additive 128-bit hash of their positions, `_late`
//! counts those that came after their window had closed. They are a group under addition: they see
//! a double count that `max` or a sketch would hide, and if exactly one record differs, the
//! difference *is* that record's hash.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use schemas::{LedgerCounts, Offset, Partition};

/// Records counted.
pub const COUNT: &str = "_n";
/// High half of the hash of the positions counted.
pub const HASH_HI: &str = "_fp_hi";
/// Low half.
pub const HASH_LO: &str = "_fp_lo";
/// Records counted that were late.
pub const LATE: &str = "_late";
/// The four columns in the order in which they follow the key.
pub const COLUMNS: [&str; 4] = [COUNT, HASH_HI, HASH_LO, LATE];

/// Hash of one position: two independent 64-bit mixes (Stafford's variant 13 of the `splitmix64`
/// finalizer) of the same injective word. Persisted: the constants never change.
#[inline]
pub fn position_hash(partition: Partition, offset: Offset) -> (u64, u64) {
    let word = offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(partition).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mix(word ^ 0x243F_6A88_85A3_08D3), mix(word ^ 0x1319_8A2E_0370_7344))
}

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Adds every position of a range to a ledger's record count and position hash.
pub fn count_positions(ledger: &mut LedgerCounts, partition: Partition, range: Range<Offset>) {
    ledger.records += range.end - range.start;
    for offset in range {
        let (hi, lo) = position_hash(partition, offset);
        ledger.positions_hi = ledger.positions_hi.wrapping_add(hi);
        ledger.positions_lo = ledger.positions_lo.wrapping_add(lo);
    }
}

/// The one position in `range` whose hash is `(hi, lo)`: which record a difference is made of.
pub fn find_position(partition: Partition, range: Range<Offset>, hi: u64, lo: u64) -> Option<Offset> {
    find_rows(partition, range, 1, (hi, lo))
}

/// The one position in `range` of which so many rows have this hash together: a record that is several rows of
/// one cell is counted in it as often.
pub fn find_rows(partition: Partition, range: Range<Offset>, rows: u64, hash: (u64, u64)) -> Option<Offset> {
    let of_rows = |offset: &Offset| {
        let (hi, lo) = position_hash(partition, *offset);
        (hi.wrapping_mul(rows), lo.wrapping_mul(rows)) == hash
    };
    range.into_iter().find(of_rows)
}

/// The aggregate: arguments partition (Int32), offset (Int64), late (Boolean).
pub fn evidence() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Evidence {
        signature: Signature::exact(vec![DataType::Int32, DataType::Int64, DataType::Boolean], Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Evidence {
    signature: Signature,
}

impl AggregateUDFImpl for Evidence {
    fn name(&self) -> &'static str {
        "_evidence"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: &str| Arc::new(Field::new(format!("{}[{name}]", args.name), DataType::Int64, true));
        Ok(COLUMNS.iter().map(|name| field(name)).collect())
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneCell(Cells { cells: vec![[0; 4]] })))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Cells::default()))
    }
}

/// Per cell: count, hash high, hash low, late.
#[derive(Debug, Default)]
struct Cells {
    cells: Vec<[u64; 4]>,
}

impl Cells {
    fn take(&mut self, emit: EmitTo) -> Vec<[u64; 4]> {
        emit.take_needed(&mut self.cells)
    }
}

fn column(cells: &[[u64; 4]], index: usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(cells.iter().map(|cell| cell[index] as i64)))
}

impl GroupsAccumulator for Cells {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        if filter.is_some() {
            return exec_err!("the evidence of a cell takes no filter");
        }
        self.cells.resize(total, [0; 4]);
        let partitions = values[0].as_primitive::<Int32Type>().values();
        let offsets = values[1].as_primitive::<Int64Type>().values();
        let late = values[2].as_boolean();
        for ((group, partition), offset) in groups.iter().zip(partitions).zip(offsets) {
            let (hi, lo) = position_hash(*partition as Partition, *offset as Offset);
            let cell = &mut self.cells[*group];
            cell[0] += 1;
            cell[1] = cell[1].wrapping_add(hi);
            cell[2] = cell[2].wrapping_add(lo);
        }
        if late.true_count() > 0 {
            for (row, group) in groups.iter().enumerate() {
                self.cells[*group][3] += u64::from(late.is_valid(row) && late.value(row));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.cells.resize(total, [0; 4]);
        for (index, array) in values.iter().enumerate() {
            let numbers = array.as_primitive::<Int64Type>().values();
            for (group, number) in groups.iter().zip(numbers) {
                let cell = &mut self.cells[*group][index];
                *cell = cell.wrapping_add(*number as u64);
            }
        }
        Ok(())
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let cells = self.take(emit);
        Ok((0..4).map(|index| column(&cells, index)).collect())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut one_each = Self::default();
        let groups: Vec<usize> = (0..values[0].len()).collect();
        one_each.update_batch(values, &groups, filter, groups.len())?;
        one_each.state(EmitTo::All)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        Ok(column(&self.take(emit), 0))
    }

    fn size(&self) -> usize {
        self.cells.capacity() * size_of::<[u64; 4]>()
    }
}

/// The same for plans that DataFusion runs without groups.
#[derive(Debug)]
struct OneCell(Cells);

impl Accumulator for OneCell {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; values[0].len()];
        self.0.update_batch(values, &groups, None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; states[0].len()];
        self.0.merge_batch(states, &groups, 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(self.0.cells[0].iter().map(|number| ScalarValue::Int64(Some(*number as i64))).collect())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0.cells[0][0] as i64)))
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_hashes_are_pinned() {
        assert_eq!(position_hash(0, 0), position_hash(0, 0));
        let vectors: Vec<(u64, u64)> = [(0, 0), (0, 1), (1, 0), (3, 1 << 40)].map(|(p, o)| position_hash(p, o)).into();
        let distinct: std::collections::BTreeSet<_> = vectors.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(vectors[0], (mix(0x243F_6A88_85A3_08D3), mix(0x1319_8A2E_0370_7344)));
    }

    #[test]
    fn a_single_difference_names_its_record() {
        let (mut all, mut without) = (LedgerCounts::default(), LedgerCounts::default());
        count_positions(&mut all, 2, 100..200);
        count_positions(&mut without, 2, 100..150);
        count_positions(&mut without, 2, 151..200);
        let hi = all.positions_hi.wrapping_sub(without.positions_hi);
        let lo = all.positions_lo.wrapping_sub(without.positions_lo);
        assert_eq!(find_position(2, 0..1000, hi, lo), Some(150));
        // the same record three times in a cell
        let thrice = (hi.wrapping_mul(3), lo.wrapping_mul(3));
        assert_eq!(find_rows(2, 0..1000, 3, thrice), Some(150));
        assert_eq!(find_rows(2, 0..1000, 2, thrice), None);
    }
}
