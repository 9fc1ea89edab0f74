//! The stored documents, read as they lie there: by their JSON, without the product's stores.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use schemas::documents::delta::DeltaHeader;
use schemas::documents::manifest::Manifest;
use schemas::{Catalog, Cut, StreamDef};
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::world::State;

/// What is stored, of the one stream there is.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The newest catalogue and its number.
    pub(crate) catalog: Catalog,
    /// The end of the log's disk.
    pub(crate) head: Cut,
    /// Headers of the deltas, by checkpoints.
    pub(crate) deltas: BTreeMap<(u64, u64), DeltaHeader>,
    /// By view, the oldest first.
    pub(crate) manifests: BTreeMap<Uuid, Vec<Manifest>>,
    /// Verdicts, by view and run.
    pub(crate) certificates: BTreeMap<(Uuid, u64), String>,
    /// The highest number of an owner.
    pub(crate) owner: u64,
    /// Where the master's transactions say that it ends.
    pub(crate) landed: Cut,
    /// The master's files: partition, first offset, records.
    pub(crate) files: Vec<(u32, u64, u64)>,
    /// Every path.
    pub(crate) paths: BTreeSet<String>,
}

impl Seen {
    /// Reads everything.
    pub(crate) fn of(state: &State) -> Self {
        let mut seen = Self { paths: state.objects.keys().cloned().collect(), ..Self::default() };
        for (path, bytes) in &state.objects {
            seen.object(path, bytes);
        }
        if let Some(stream) = seen.stream().cloned()
            && let Some(disk) = state.logs.get(&(stream.id, "records".to_owned()))
        {
            seen.head = disk.end.clone();
        }
        seen
    }

    pub(crate) fn stream(&self) -> Option<&StreamDef> {
        self.catalog.streams.first()
    }

    /// The catalogue comes first of all paths. What a statement that was cut short left behind is of no stream.
    fn is_of_stream(&self, text: &str) -> bool {
        self.stream().is_some_and(|stream| stream.id == id(text))
    }

    fn object(&mut self, path: &str, bytes: &Bytes) {
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["catalog", _] => {
                let catalog: Catalog = json(path, bytes);
                if catalog.sequence >= self.catalog.sequence {
                    self.catalog = catalog;
                }
            }
            ["owners", name] => self.owner = self.owner.max(number(name)),
            ["deltas", stream, _] if self.is_of_stream(stream) => {
                let header = header(path, bytes);
                self.deltas.insert((header.first_checkpoint, header.last_checkpoint), header);
            }
            ["views", view, "manifests", _] => {
                let manifest: Manifest = json(path, bytes);
                // an owner's claim on a view without one names no batch view
                if manifest.has_batch_view() {
                    self.manifests.entry(id(view)).or_default().push(manifest);
                }
            }
            ["views", view, "certificates", name] => {
                let certificate: Value = json(path, bytes);
                let verdict = certificate["verdict"].as_str().unwrap_or_default().to_owned();
                self.certificates.insert((id(view), number(name)), verdict);
            }
            ["master", stream, "_delta_log", name] if self.is_of_stream(stream) && name.len() == 25 => {
                self.commit(bytes);
            }
            _ => {}
        }
    }

    fn commit(&mut self, bytes: &Bytes) {
        for line in std::str::from_utf8(bytes).expect("a commit is text").lines() {
            let action: Value = serde_json::from_str(line).expect("a commit is lines of JSON");
            if let Some(transaction) = action.get("txn").filter(|transaction| transaction["appId"] != "bifold/owner") {
                let partition = transaction["appId"].as_str().and_then(|id| id.rsplit('/').next()?.parse().ok());
                let end = transaction["version"].as_u64().expect("an end");
                let partition = partition.expect("a partition");
                self.landed.set(partition, end.max(self.landed.offset(partition)));
            }
            if let Some(add) = action.get("add") {
                let statistics: Value = serde_json::from_str(add["stats"].as_str().expect("statistics")).expect("JSON");
                let first = |name: &str| statistics["minValues"][name].as_u64().expect("a bound");
                let records = statistics["numRecords"].as_u64().expect("a count");
                self.files.push((first("_partition") as u32, first("_offset"), records));
            }
        }
    }

    /// The current manifest of a view.
    pub(crate) fn current(&self, view: Uuid) -> Option<&Manifest> {
        self.manifests.get(&view).and_then(|manifests| manifests.last())
    }

    /// The chain: from the oldest delta on that leads to the newest. An owner's claim stays where it is.
    pub(crate) fn chain(&self) -> Vec<&DeltaHeader> {
        let newest = self.deltas.keys().map(|(_, last)| *last).max();
        let mut chains = self.deltas.keys().map(|(first, _)| self.chain_from(*first));
        let leads_on = |chain: &Vec<&DeltaHeader>| chain.last().map(|delta| delta.last_checkpoint) == newest;
        chains.find(leads_on).unwrap_or_default()
    }

    /// Always the longest that begins where the last one ended.
    fn chain_from(&self, mut next: u64) -> Vec<&DeltaHeader> {
        let mut chain: Vec<&DeltaHeader> = vec![];
        while let Some((_, header)) = self.deltas.range((next, 0)..(next + 1, 0)).next_back() {
            next = header.last_checkpoint + 1;
            chain.push(header);
        }
        chain
    }
}

fn json<T: DeserializeOwned>(path: &str, bytes: &Bytes) -> T {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Magic, length, header: the first bytes of a delta.
fn header(path: &str, bytes: &Bytes) -> DeltaHeader {
    let length = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")) as usize;
    json(path, &bytes.slice(12..12 + length))
}

fn id(text: &str) -> Uuid {
    text.parse().expect("an id")
}

fn number(name: &str) -> u64 {
    name.trim_end_matches(".json").parse().expect("a number")
}
