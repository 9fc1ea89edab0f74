//! Batch views: Parquet files that are sorted by key and carry an index of their pages.
//!
//! ```text
//!  row group │ page │ page │ page │ … │ row group │ … │ first key of every page, Arrow IPC │ Parquet footer
//!            └ the same rows in every column: what a look-up reads          └ where, in the footer's metadata
//! ```
//!
//! Rows come in the order of `arrow_row` with default options: ascending, nulls first. To other
//! readers it is an ordinary Parquet file.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};
use futures::StreamExt;
use futures::stream::BoxStream;
use schemas::documents::manifest::BatchFile;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::store::Store;

mod cache;
mod checked_store;
pub(crate) mod checksums;
pub(crate) mod file;
mod index;
mod part;
mod remote;
mod writer;

use cache::PageCache;
pub use checked_store::CheckedStore;
use part::Part;
pub use writer::BatchViewWriter;

/// Key of [`Layout`] in the footer's metadata.
const LAYOUT: &str = "bifold.batch_view";
/// The newest layout that this program reads, and the one that it writes.
const FORMAT: u32 = 1;

/// How a file is laid out: what a reader needs beyond Parquet's own footer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    format: u32,
    /// The leading columns that are the key.
    key_columns: usize,
    /// Rows of a page, but for the last one of a row group.
    page_rows: usize,
    /// Where the first keys are.
    keys_at: u64,
    /// How many bytes they take; 0 if there are no key columns.
    keys_bytes: u64,
}

/// An open batch view. Look-ups of several tasks may go on at the same time.
#[derive(Debug)]
pub struct BatchViewReader {
    parts: Vec<Arc<Part>>,
    cache: Arc<PageCache>,
}

impl BatchViewReader {
    /// Opens the files of a batch view, in order of the key, in the view's state schema.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`
    pub async fn open(store: &Store, schema: SchemaRef, files: &[BatchFile]) -> Result<Self, StorageError> {
        let mut parts = vec![];
        for (number, file) in files.iter().enumerate() {
            parts.push(Arc::new(Part::open(store, &schema, file, number).await?));
        }
        let cache = Arc::new(PageCache::new(schemas::limits::VIEW_PAGE_CACHE_BYTES));
        Ok(Self { parts, cache })
    }

    /// Cells over all files.
    pub fn cells(&self) -> u64 {
        self.parts.iter().map(|part| part.index.rows()).sum()
    }

    /// The rows whose leading key columns have the values of `prefix` (arrays of one row, of the key
    /// columns' types), in order; all rows for an empty prefix. Reads only pages that may hold some.
    ///
    /// # Errors
    /// `Io` when the prefix does not fit the key; `Damaged`, `Io`
    pub async fn rows_with_key_prefix(&self, prefix: &[ArrayRef]) -> Result<Vec<RecordBatch>, StorageError> {
        let mut found = vec![];
        for part in &self.parts {
            let wanted = part.index.encode(prefix)?;
            for page in part.index.pages_with(&wanted, prefix.len()) {
                let rows = self.page(part, page).await?;
                found.extend(rows.with_prefix(&wanted));
            }
        }
        Ok(found)
    }

    async fn page(&self, part: &Arc<Part>, page: usize) -> Result<Arc<Page>, StorageError> {
        if let Some(known) = self.cache.get((part.number, page)) {
            return Ok(known);
        }
        let decoded = Arc::new(Part::page(part, page).await?);
        self.cache.put((part.number, page), Arc::clone(&decoded));
        Ok(decoded)
    }

    /// All rows in order, in batches of about `batch_rows`. Reads as it is polled, and blocks then
    /// if the store is a local folder.
    pub fn scan(&self, batch_rows: usize) -> BoxStream<'static, Result<RecordBatch, StorageError>> {
        let parts = futures::stream::iter(self.parts.clone());
        parts.flat_map(move |part| part.scan(batch_rows)).boxed()
    }
}

/// A decoded page.
#[derive(Debug)]
struct Page {
    rows: RecordBatch,
    /// Encoded keys of the rows, ascending.
    keys: Rows,
}

impl Page {
    /// The rows whose key begins with `wanted`, as a part of the page.
    fn with_prefix(&self, wanted: &[u8]) -> Option<RecordBatch> {
        let (mut start, mut end) = (0, self.keys.num_rows());
        // The order of a key's bytes is the order of its columns, so a prefix of columns is one of bytes.
        while start < end {
            let middle = usize::midpoint(start, end);
            if self.keys.row(middle).as_ref() < wanted { start = middle + 1 } else { end = middle }
        }
        let is_wanted = |row: &usize| self.keys.row(*row).as_ref().starts_with(wanted);
        let length = (start..self.keys.num_rows()).take_while(is_wanted).count();
        if length == 0 { None } else { Some(self.rows.slice(start, length)) }
    }

    fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.keys.size()
    }
}

/// Encodes the leading key columns so that their bytes compare as they do.
fn converter(schema: &SchemaRef, columns: usize) -> Result<RowConverter, StorageError> {
    let fields = schema.fields().iter().take(columns).map(|field| SortField::new(field.data_type().clone()));
    RowConverter::new(fields.collect()).map_err(|cause| StorageError::io("reading the key of a batch view", cause))
}

#[cfg(test)]
mod tests;
