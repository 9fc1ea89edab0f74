//! The master as the records of a recomputation: a unit is a row group of a file.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use schemas::column::OFFSET;
use schemas::limits::MICRO_BATCH_ROWS;
use schemas::{Cut, Offset, Problem};
use storage::StorageError;
use storage::master::{Master, MasterFile, MasterFileReader};

use crate::recompute::{Each, Records, Unit};
use crate::{internal, stored};

/// Records of a master between two cuts.
#[derive(Debug)]
pub struct MasterRecords {
    master: Arc<Master>,
    files: Vec<MasterFile>,
    units: Vec<Unit>,
}

impl MasterRecords {
    /// Lists the row groups that hold records in `[from, cut)`. Reads the files' metadata: blocks.
    ///
    /// # Errors
    /// A file cannot be read, or holds other rows than the table's log says.
    pub fn new(master: &Arc<Master>, from: &Cut, cut: &Cut) -> Result<Self, Problem> {
        let meets =
            |file: &&MasterFile| file.from < cut.offset(file.partition) && file.to > from.offset(file.partition);
        let files: Vec<MasterFile> = master.files().iter().filter(meets).cloned().collect();
        let mut units = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let reader = master.open_file(file).map_err(|e| stored(&e))?;
            units.extend(units_of(index, file, &reader)?);
        }
        Ok(Self { master: Arc::clone(master), files, units })
    }
}

fn units_of(index: usize, file: &MasterFile, reader: &MasterFileReader) -> Result<Vec<Unit>, Problem> {
    let mut units = Vec::new();
    let mut offset = file.from;
    for group in 0..reader.row_groups() {
        let end = offset + reader.rows_of(group) as u64;
        units.push(Unit { file: index, row_groups: group..group + 1, partition: file.partition, offsets: offset..end });
        offset = end;
    }
    if offset == file.to {
        return Ok(units);
    }
    Err(internal(format!("{}: holds offsets {} to {offset}, the table's log says {}", file.path, file.from, file.to)))
}

/// The stored offsets are the consecutive ones that the table's log promises.
fn check_offsets(file: &MasterFile, stored: &ArrayRef, due: Offset) -> Result<(), Problem> {
    let stored = stored.as_primitive::<Int64Type>().values();
    match stored.iter().zip(due..).find(|(stored, due)| **stored as Offset != *due) {
        None => Ok(()),
        Some((stored, due)) => Err(internal(format!("{}: holds offset {stored} where {due} is due", file.path))),
    }
}

impl Records for MasterRecords {
    fn units(&self) -> &[Unit] {
        &self.units
    }

    fn read(&self, unit: &Unit, columns: &[usize], each: Each<'_>) -> Result<(), Problem> {
        // the stored offsets are read too: that a file holds each of its records once is proved, not assumed
        let offsets = self.master.schema().index_of(OFFSET).map_err(internal)?;
        let read: Vec<usize> = columns.iter().copied().chain([offsets]).collect();
        let wanted: Vec<usize> = (0..columns.len()).collect();
        let mut due = unit.offsets.start;
        for batch in self.open(unit.file, &read, unit.row_groups.clone()).map_err(|e| stored(&e))? {
            let batch = batch.map_err(|e| stored(&e))?;
            check_offsets(&self.files[unit.file], batch.column(columns.len()), due)?;
            due += batch.num_rows() as u64;
            each(batch.project(&wanted).map_err(internal)?)?;
        }
        Ok(())
    }
}

impl MasterRecords {
    fn open(
        &self,
        file: usize,
        columns: &[usize],
        row_groups: Range<usize>,
    ) -> Result<storage::master::MasterRows, StorageError> {
        self.master.open_file(&self.files[file])?.read(columns, row_groups, MICRO_BATCH_ROWS)
    }
}
