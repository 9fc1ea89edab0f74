//! Key ranges of about equal size, from a sample of the runs' keys.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow_row::Rows;
use operators::{View, states};
use schemas::Problem;

use super::spill::SpilledRun;
use crate::internal;

/// Keys sampled per range that is to be made.
const SAMPLES_PER_RANGE: usize = 64;

/// Ascending keys that split the key space: range `i` is `[bounds[i - 1], bounds[i])`.
#[derive(Debug, Default)]
pub(super) struct KeyRanges {
    bounds: Vec<Box<[u8]>>,
}

impl KeyRanges {
    /// Splits what the runs hold into at most `count` ranges.
    pub(super) fn sample(
        view: &View,
        memory: &[RecordBatch],
        spilled: &[SpilledRun],
        count: usize,
    ) -> Result<Self, Problem> {
        let rows: usize = memory.iter().map(RecordBatch::num_rows).chain(spilled.iter().map(|run| run.rows)).sum();
        let step = (rows / (count * SAMPLES_PER_RANGE)).max(1);
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        for run in memory {
            let sample = UInt32Array::from_iter_values((0..run.num_rows() as u32).step_by(step));
            let sample =
                take_record_batch(&run.project(&key_columns(view)).map_err(internal)?, &sample).map_err(internal)?;
            keys.extend(encoded(view, &sample)?.iter().map(|key| states::divisible(view, key.as_ref()).into()));
        }
        for run in spilled {
            keys.extend(run.first_keys.iter().map(|key| states::divisible(view, key).into()));
        }
        keys.sort_unstable();
        let mut bounds: Vec<Box<[u8]>> = (1..count).filter_map(|i| keys.get(i * keys.len() / count).cloned()).collect();
        bounds.dedup();
        // a view that cannot be divided at all
        bounds.retain(|bound| !bound.is_empty());
        Ok(Self { bounds })
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.bounds.len() + 1
    }

    /// First key of a range, and the first beyond it; none where it is open.
    pub(super) fn bounds(&self, range: usize) -> (Option<&[u8]>, Option<&[u8]>) {
        let from = range.checked_sub(1).and_then(|i| self.bounds.get(i));
        (from.map(AsRef::as_ref), self.bounds.get(range).map(AsRef::as_ref))
    }

    /// Splits an unsorted run: one batch per range.
    pub(super) fn split(&self, view: &View, run: &RecordBatch) -> Result<Vec<RecordBatch>, Problem> {
        let keys = states::keys(view, run)?;
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); self.len()];
        for (row, key) in (0u32..).zip(keys.iter()) {
            rows_of[self.bounds.partition_point(|bound| bound.as_ref() <= key.as_ref())].push(row);
        }
        drop(keys);
        let parts = rows_of.into_iter().map(|rows| take_record_batch(run, &UInt32Array::from(rows)).map_err(internal));
        parts.collect()
    }
}

fn key_columns(view: &View) -> Vec<usize> {
    (0..view.key_columns()).collect()
}

fn encoded(view: &View, keys: &RecordBatch) -> Result<Rows, Problem> {
    let converter = states::key_converter(view)?;
    let columns: Vec<_> = keys.columns().iter().map(Arc::clone).collect();
    converter.convert_columns(&columns).map_err(internal)
}

/// Index of the first row of sorted `keys` that is not below `key`.
pub(super) fn first_at_least(keys: &Rows, rows: usize, key: &[u8]) -> usize {
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = usize::midpoint(low, high);
        if keys.row(middle).as_ref() < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
