//! Naming what differs: the one record that explains a cell, and the violations in words.

use std::fmt::Write as _;

use operators::evidence::find_rows;
use schemas::Cut;
use schemas::documents::certificate::{CellCheck, CellDifference, RecordReference};

use super::Auditor;

/// Positions beyond the cut that are looked at: a cut that is off by a few is named too.
const MARGIN: u64 = 1_000;
/// Positions that are looked at for all cells of a certificate together.
const POSITIONS_MAX: u64 = 400_000_000;
/// Differing cells that are put into words.
const CELLS_IN_WORDS_MAX: usize = 10;

/// Finds the record that a difference is made of.
pub(super) struct Namer<'a> {
    base_cut: &'a Cut,
    cut: &'a Cut,
    positions_left: u64,
    /// A record may be several rows of one cell.
    fans_out: bool,
}

impl<'a> Namer<'a> {
    pub(super) fn new(auditor: &'a Auditor<'a>) -> Self {
        Self {
            base_cut: auditor.base_cut(),
            cut: auditor.cut,
            positions_left: POSITIONS_MAX,
            fans_out: auditor.view.fans_out(),
        }
    }

    /// The record by which the cells differ, if exactly one does. Arguments: count, hash high, hash low.
    pub(super) fn record(&mut self, batch: (u64, u64, u64), speed: (u64, u64, u64)) -> Option<RecordReference> {
        let (more, less, what) =
            if batch.0 > speed.0 { (batch, speed, "missing_in_speed") } else { (speed, batch, "extra_in_speed") };
        let rows = more.0.wrapping_sub(less.0);
        if rows != 1 && !(self.fans_out && rows > 0) {
            return None;
        }
        let (hi, lo) = (more.1.wrapping_sub(less.1), more.2.wrapping_sub(less.2));
        let recent = self.cut.iter().map(|(p, to)| (p, self.base_cut.offset(p)..to + MARGIN));
        let older = self.base_cut.iter().map(|(p, to)| (p, 0..to));
        for (partition, range) in recent.chain(older) {
            let size = range.end.saturating_sub(range.start);
            self.positions_left = self.positions_left.checked_sub(size)?;
            if let Some(offset) = find_rows(partition, range, rows, (hi, lo)) {
                return Some(RecordReference { partition, offset, what: what.into() });
            }
        }
        None
    }
}

/// The differing cells in words.
pub(super) fn describe_cells(cells: &CellCheck, violations: &mut Vec<String>) {
    violations.extend(cells.samples.iter().take(CELLS_IN_WORDS_MAX).map(describe_cell));
    let more = cells.differing.saturating_sub(CELLS_IN_WORDS_MAX.min(cells.samples.len()) as u64);
    if more > 0 {
        violations.push(format!("cells: {more} more of {} differ", cells.compared));
    }
}

fn describe_cell(cell: &CellDifference) -> String {
    let records = |count: Option<u64>| count.map_or("no such cell".into(), |n| format!("{n} records"));
    let mut text = format!(
        "cells: [{}]: {} differ: batch has {}, speed has {}",
        cell.key.join(", "),
        cell.columns.join(", "),
        records(cell.batch_records),
        records(cell.speed_records)
    );
    if let Some(record) = &cell.record {
        let place = format!("partition {}, offset {}", record.partition, record.offset);
        let what =
            if record.what == "missing_in_speed" { "is missing in speed" } else { "is there once too often in speed" };
        let _ = write!(text, "; the record at {place} {what}");
    }
    text
}
