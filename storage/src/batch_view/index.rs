//! The sparse index of one file: the first key of every page, and where its rows are.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::row::{RowConverter, Rows};
use parquet::file::metadata::ParquetMetaData;

use super::{LAYOUT, Layout, converter};
use crate::error::StorageError;
use crate::ipc;

/// Rows of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRows {
    pub(super) row_group: usize,
    /// In the row group.
    pub(super) first: usize,
    pub(super) rows: usize,
}

#[derive(Debug)]
pub(super) struct Index {
    pages: Vec<PageRows>,
    /// Encoded first key of each page, ascending; none without key columns.
    first_keys: Option<Rows>,
    /// Encoders of the first 1, 2, … key columns.
    converters: Vec<RowConverter>,
}

impl Index {
    /// `keys` are the bytes that `layout` points to.
    pub(super) fn new(
        layout: &Layout,
        metadata: &ParquetMetaData,
        schema: &SchemaRef,
        keys: &[u8],
    ) -> Result<Self, String> {
        if layout.key_columns > schema.fields().len() {
            return Err(format!("a key of {} columns, there are {}", layout.key_columns, schema.fields().len()));
        }
        let pages = pages_of(layout, metadata)?;
        let converters: Result<Vec<_>, _> = (1..=layout.key_columns).map(|n| converter(schema, n)).collect();
        let converters = converters.map_err(|cause| cause.to_string())?;
        let first_keys = match converters.last() {
            Some(converter) => Some(read_keys(converter, keys)?),
            None => None,
        };
        if first_keys.as_ref().is_some_and(|keys| keys.num_rows() != pages.len()) {
            return Err("it does not have a first key for every page".into());
        }
        Ok(Self { pages, first_keys, converters })
    }

    pub(super) fn page(&self, page: usize) -> Option<&PageRows> {
        self.pages.get(page)
    }

    pub(super) fn rows(&self) -> u64 {
        self.pages.iter().map(|page| page.rows as u64).sum()
    }

    /// The bytes that a key with this prefix begins with.
    pub(super) fn encode(&self, prefix: &[ArrayRef]) -> Result<Vec<u8>, StorageError> {
        let Some(columns) = prefix.len().checked_sub(1) else { return Ok(vec![]) };
        let failed = |cause: String| StorageError::io("looking up a key in a batch view", cause);
        let Some(converter) = self.converters.get(columns) else {
            return Err(failed(format!("{} values for {} key columns", prefix.len(), self.converters.len())));
        };
        let rows = converter.convert_columns(prefix).map_err(|cause| failed(cause.to_string()))?;
        if rows.num_rows() != 1 {
            return Err(failed(format!("{} rows where one key is due", rows.num_rows())));
        }
        Ok(rows.row(0).as_ref().to_vec())
    }

    /// The pages that may hold keys that begin with `wanted`, the encoding of so many columns.
    pub(super) fn pages_with(&self, wanted: &[u8], columns: usize) -> Range<usize> {
        let Some(keys) = self.first_keys.as_ref().filter(|_| columns > 0) else { return 0..self.pages.len() };
        let first_at_or_beyond = partition_point(keys, |key| key < wanted);
        let first_beyond = partition_point(keys, |key| key < wanted || key.starts_with(wanted));
        // A whole key is there once: if it begins a page, the page before does not hold it.
        let is_found = columns == self.converters.len() && first_beyond > first_at_or_beyond;
        let start = if is_found { first_at_or_beyond } else { first_at_or_beyond.saturating_sub(1) };
        start..first_beyond
    }

    /// The encoded key of every row.
    pub(super) fn keys_of(&self, columns: &[ArrayRef]) -> Result<Option<Rows>, arrow::error::ArrowError> {
        let Some(converter) = self.converters.last() else { return Ok(None) };
        converter.convert_columns(columns.get(..self.converters.len()).unwrap_or_default()).map(Some)
    }
}

/// The layout in a footer.
pub(super) fn layout_of(metadata: &ParquetMetaData) -> Result<Layout, String> {
    let entries = metadata.file_metadata().key_value_metadata();
    let entry = entries.and_then(|entries| entries.iter().find(|entry| entry.key == LAYOUT));
    let text = entry.and_then(|entry| entry.value.as_deref()).ok_or("not a batch view")?;
    let layout: Layout = serde_json::from_str(text).map_err(|cause| cause.to_string())?;
    if layout.format != super::FORMAT {
        return Err(format!("format {}, this program reads format {}", layout.format, super::FORMAT));
    }
    if layout.page_rows == 0 {
        return Err("its pages have no rows".into());
    }
    Ok(layout)
}

fn pages_of(layout: &Layout, metadata: &ParquetMetaData) -> Result<Vec<PageRows>, String> {
    let mut pages = vec![];
    for (row_group, group) in metadata.row_groups().iter().enumerate() {
        let rows = usize::try_from(group.num_rows()).map_err(|cause| cause.to_string())?;
        for first in (0..rows).step_by(layout.page_rows) {
            pages.push(PageRows { row_group, first, rows: layout.page_rows.min(rows - first) });
        }
    }
    Ok(pages)
}

fn read_keys(converter: &RowConverter, bytes: &[u8]) -> Result<Rows, String> {
    ipc::check_uncompressed(bytes)?;
    let mut keys = converter.empty_rows(0, 0);
    let reader = StreamReader::try_new(bytes, None).map_err(|cause| cause.to_string())?;
    for rows in reader {
        let rows = rows.map_err(|cause| cause.to_string())?;
        converter.append(&mut keys, rows.columns()).map_err(|cause| cause.to_string())?;
    }
    Ok(keys)
}

fn partition_point(keys: &Rows, is_before: impl Fn(&[u8]) -> bool) -> usize {
    let (mut start, mut end) = (0, keys.num_rows());
    while start < end {
        let middle = usize::midpoint(start, end);
        if is_before(keys.row(middle).as_ref()) { start = middle + 1 } else { end = middle }
    }
    start
}
