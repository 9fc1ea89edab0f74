//! Stored documents: the catalogue, manifests, certificates, runs, owners, topics.
//!
//! An input is a document as it is stored, and is read as each kind. What has to hold: what is read is written as
//! something that is read as the same.

use std::fmt::Debug;

use bytes::Bytes;
use schemas::documents::manifest::Manifest;
use schemas::documents::owner::OwnerDocument;
use schemas::documents::run::RunDocument;
use schemas::documents::source::{LogTopic, SourceDocument, SourcePosition};
use schemas::{Catalog, Certificate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::numbered::Numbered;
use storage::{Store, paths};

use super::Target;
use super::mutate::Mutator;

pub(super) struct Documents;

/// The frozen example of every released version of every document.
pub(super) fn frozen() -> Vec<Vec<u8>> {
    let mut files: Vec<_> =
        std::fs::read_dir("../schemas/frozen").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

async fn read<T: Serialize + DeserializeOwned + Debug + PartialEq>(input: &[u8]) -> Result<String, String> {
    let store = Store::in_memory();
    store.put(&paths::catalog(1), Bytes::copy_from_slice(input)).await.unwrap();
    let documents: Numbered<T> = Numbered::new(store, paths::CATALOG);
    let document = match documents.read(1).await {
        Ok(document) => document,
        Err(refused) => return Ok(refused.to_string()),
    };
    documents.put_new(2, &document).await.map_err(|error| format!("read, and not written: {error}"))?;
    let again = documents.read(2).await.map_err(|error| format!("written, and not read again: {error}"))?;
    if again == document { Ok("read".into()) } else { Err(format!("{document:?} is read again as {again:?}")) }
}

impl Target for Documents {
    fn seeds(&self) -> Vec<Vec<u8>> {
        frozen()
    }

    fn words(&self) -> &'static [&'static str] {
        &["\"format\":1", "null", "\"\\ud83d\"", "{}", "[]", "\"sequence\":"]
    }

    fn mutate(&self, mutator: &mut Mutator, input: &[u8], other: &[u8]) -> Vec<u8> {
        let by_nodes = if mutator.one_in(4) { None } else { mutator.json(input, other) };
        by_nodes.unwrap_or_else(|| mutator.bytes(input, other, self.words()))
    }

    fn check(&mut self, input: &[u8]) -> Result<String, String> {
        futures::executor::block_on(async {
            let answers = [
                read::<Catalog>(input).await?,
                read::<Manifest>(input).await?,
                read::<Certificate>(input).await?,
                read::<RunDocument>(input).await?,
                read::<OwnerDocument>(input).await?,
                read::<SourceDocument>(input).await?,
                read::<SourcePosition>(input).await?,
                read::<LogTopic>(input).await?,
            ];
            Ok(answers.join(" | "))
        })
    }
}
