//! The streams as ingest asks for them.

use std::sync::Arc;

use ingest::frozen::FrozenTable;
use schemas::{Problem, StreamDef};
use uuid::Uuid;

use super::{Registry, Waiting};

impl ingest::service::Streams for Registry {
    fn stream(&self, name: &str) -> Option<Arc<StreamDef>> {
        let open = self.streams.read().values().find(|open| open.def.name == name).map(|open| Arc::clone(&open.def));
        open.or_else(|| self.waiting().into_iter().map(|waiting| waiting.def).find(|def| def.name == name))
    }

    fn names(&self) -> Vec<String> {
        let open = self.streams();
        let waiting = self.waiting();
        open.iter()
            .map(|open| &open.def)
            .chain(waiting.iter().map(|waiting| &waiting.def))
            .map(|def| def.name.clone())
            .collect()
    }

    fn frozen(&self, stream: &StreamDef) -> Result<Arc<FrozenTable>, Problem> {
        self.frozen_table(stream)
    }

    fn closed(&self, stream: Uuid) -> Option<Problem> {
        self.waiting.read().get(&stream).map(Waiting::problem)
    }
}
