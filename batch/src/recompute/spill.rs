//! A spilled run: states sorted by key in one Arrow IPC file, with the first key of each block in
//! memory, so that a key range is read without the rest.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use operators::{View, states};
use schemas::{Code, Problem};

use crate::internal;

/// Rows of a block: what is read at once.
const BLOCK_ROWS: usize = 8_192;

/// A folder for spilled runs; removed with all that is in it when dropped.
#[derive(Debug)]
pub(super) struct SpillFolder {
    path: PathBuf,
    files: AtomicU64,
}

impl SpillFolder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, files: AtomicU64::new(0) }
    }

    /// Writes a run that is sorted by key.
    pub(super) fn write(&self, view: &View, sorted: &RecordBatch) -> Result<SpilledRun, Problem> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        std::fs::create_dir_all(&self.path).map_err(|e| disk(&self.path, &e))?;
        let path = self.path.join(format!("{number}.arrow"));
        let file = File::create(&path).map_err(|e| disk(&path, &e))?;
        let mut writer = FileWriter::try_new_buffered(file, &sorted.schema()).map_err(internal)?;
        let mut first_keys = Vec::new();
        for start in (0..sorted.num_rows()).step_by(BLOCK_ROWS) {
            let block = sorted.slice(start, BLOCK_ROWS.min(sorted.num_rows() - start));
            first_keys.push(states::keys(view, &block.slice(0, 1))?.row(0).as_ref().into());
            writer.write(&compact(&block)?).map_err(|e| disk(&path, &e))?;
        }
        writer.finish().map_err(|e| disk(&path, &e))?;
        let bytes = std::fs::metadata(&path).map_err(|e| disk(&path, &e))?.len();
        Ok(SpilledRun { path, first_keys, bytes, rows: sorted.num_rows() })
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        if self.files.load(Ordering::Relaxed) > 0
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, "spilled states could not be removed");
        }
    }
}

/// A slice of view-typed strings refers to the whole run's bytes: keep only its own.
fn compact(block: &RecordBatch) -> Result<RecordBatch, Problem> {
    let columns = block.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    });
    RecordBatch::try_new(block.schema(), columns.collect()).map_err(internal)
}

/// One file of states, sorted by key.
#[derive(Debug)]
pub(super) struct SpilledRun {
    path: PathBuf,
    /// Encoded first key of each block, ascending.
    pub(super) first_keys: Vec<Box<[u8]>>,
    pub(super) bytes: u64,
    pub(super) rows: usize,
}

impl SpilledRun {
    /// The blocks that may hold keys in `[from, to)`; no bound where there is none.
    fn blocks(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> Range<usize> {
        let start =
            from.map_or(0, |key| self.first_keys.partition_point(|first| first.as_ref() <= key).saturating_sub(1));
        let end = to.map_or(self.first_keys.len(), |key| self.first_keys.partition_point(|first| first.as_ref() < key));
        start..end.max(start)
    }

    /// The states with keys in `[from, to)`, block by block.
    pub(super) fn read(
        &self,
        view: &View,
        (from, to): (Option<&[u8]>, Option<&[u8]>),
        each: &mut dyn FnMut(RecordBatch) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let blocks = self.blocks(from, to);
        if blocks.is_empty() {
            return Ok(());
        }
        let file = File::open(&self.path).map_err(|e| disk(&self.path, &e))?;
        let mut reader = FileReader::try_new(BufReader::new(file), None).map_err(internal)?;
        reader.set_index(blocks.start).map_err(internal)?;
        for block in reader.take(blocks.len()) {
            let block = block.map_err(|e| disk(&self.path, &e))?;
            let keys = states::keys(view, &block)?;
            let rows = block.num_rows();
            let start = from.map_or(0, |key| super::ranges::first_at_least(&keys, rows, key));
            let end = to.map_or(rows, |key| super::ranges::first_at_least(&keys, rows, key));
            if start < end {
                each(block.slice(start, end - start))?;
            }
        }
        Ok(())
    }
}

fn disk(path: &Path, error: &dyn std::fmt::Display) -> Problem {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Problem::new(Code::StorageUnavailable, format!("spilled states {name}: {error}"))
}
