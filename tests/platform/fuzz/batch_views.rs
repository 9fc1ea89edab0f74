//! Files of batch views: Parquet's footer and pages, the layout in the footer, the first keys.
//!
//! An input is a file, or a text that stands in the place of the layout in a file that is whole otherwise. No
//! checksums are given, as the first version had none: nothing keeps damage from the reader. What has to hold: look-ups
//! and scans give rows or an error.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use schemas::documents::manifest::BatchFile;
use storage::Store;
use storage::batch_view::{BatchViewReader, BatchViewWriter};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Target;
use super::mutate::Mutator;

const PATH: &str = "views/v/1/part.parquet";
const ROWS: i64 = 2_500;

pub(super) struct BatchViews {
    runtime: Runtime,
    _folder: TempDir,
    /// One reads by position in a file, the other asks for ranges of an object.
    local: Store,
    remote: Store,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("g0", DataType::Utf8View, true), Field::new("_n", DataType::Int64, false)]))
}

fn rows(count: i64) -> RecordBatch {
    let keys = (0..count).map(|n| format!("key-{n:08}"));
    let columns: [ArrayRef; 2] =
        [Arc::new(StringViewArray::from_iter_values(keys)), Arc::new(Int64Array::from_iter_values(0..count))];
    RecordBatch::try_new(schema(), columns.to_vec()).unwrap()
}

/// A whole file but for its layout, which is this text.
fn with_layout(layout: &str) -> Vec<u8> {
    let metadata = vec![KeyValue::new("bifold.batch_view".to_owned(), layout.to_owned())];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let mut bytes = vec![];
    let mut writer = ArrowWriter::try_new(&mut bytes, schema(), Some(properties)).unwrap();
    writer.write(&rows(3)).unwrap();
    writer.close().unwrap();
    bytes
}

impl BatchViews {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let local = Store::open(folder.path().to_str().unwrap()).unwrap();
        Self { runtime, _folder: folder, local, remote: Store::in_memory() }
    }

    /// A file as the product writes it.
    fn written(&self, count: i64) -> Vec<u8> {
        let store = Store::in_memory();
        self.runtime.block_on(async {
            let mut writer = BatchViewWriter::create(&store, PATH, schema(), 1);
            writer.write(&rows(count)).unwrap();
            writer.finish().await.unwrap();
            store.get(PATH).await.unwrap().to_vec()
        })
    }

    fn read(&self, store: &Store, bytes: &Bytes) -> String {
        self.runtime.block_on(async {
            store.put(PATH, bytes.clone()).await.unwrap();
            let length = bytes.len() as u64;
            let mut answers = vec![];
            for cells in [3, ROWS as u64] {
                let file = BatchFile { path: PATH.into(), bytes: length, cells, checksums: String::new() };
                let reader = match BatchViewReader::open(store, schema(), &[file]).await {
                    Ok(reader) => reader,
                    Err(refused) => {
                        answers.push(refused.to_string());
                        continue;
                    }
                };
                let key: ArrayRef = Arc::new(StringViewArray::from(vec!["key-00000002"]));
                for prefix in [&[key][..], &[]] {
                    let found = reader.rows_with_key_prefix(prefix).await;
                    answers.push(found.map_or_else(|refused| refused.to_string(), |_| "found".into()));
                }
                let scanned =
                    reader.scan(1_000).try_fold(0, |all, rows| async move { Ok(all + rows.num_rows()) }).await;
                answers.push(scanned.map_or_else(|refused| refused.to_string(), |_| "scanned".into()));
            }
            answers.join(" | ")
        })
    }
}

impl Target for BatchViews {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let layout = r#"{"format":1,"key_columns":0,"page_rows":1000,"keys_at":4,"keys_bytes":0}"#;
        vec![layout.into(), self.written(3), self.written(ROWS)]
    }

    fn words(&self) -> &'static [&'static str] {
        &["\"page_rows\":1", "\"key_columns\":1", "PAR1"]
    }

    fn mutate(&self, mutator: &mut Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        if input.starts_with(b"{") && !mutator.one_in(4) {
            return mutator.json(input, input).unwrap_or_else(|| mutator.bytes(input, input, self.words()));
        }
        // what tells where everything is stands at the end
        if input.len() > 2_000 && mutator.one_in(2) {
            let (pages, footer) = input.split_at(input.len() - 1_500);
            return [pages, &mutator.bytes(footer, footer, self.words())].concat();
        }
        mutator.bytes(input, other, self.words())
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        let bytes = match std::str::from_utf8(input) {
            Ok(layout) if layout.starts_with('{') => Bytes::from(with_layout(layout)),
            _ => Bytes::copy_from_slice(input),
        };
        Ok(format!("{} || {}", self.read(&self.local, &bytes), self.read(&self.remote, &bytes)))
    }
}
