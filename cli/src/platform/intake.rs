//! The ledger of what came in, for batch and serving: ingest's receipts beside the master's end.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use ingest::service::IngestService;
use schemas::{Code, IntakeBucket, Offset, Problem};
use storage::layers::Intake;
use uuid::Uuid;

use super::registry::{OpenStream, Registry};

/// Ingest, asked by a stream's id.
pub(crate) struct IntakeBook {
    pub(crate) registry: Arc<Registry>,
    pub(crate) ingest: Arc<IngestService>,
}

impl IntakeBook {
    fn stream(&self, id: Uuid) -> Result<Arc<OpenStream>, Problem> {
        let open = self.registry.streams().into_iter().find(|open| open.def.id == id);
        let closed = || ingest::service::Streams::closed(self.registry.as_ref(), id);
        open.ok_or_else(|| closed().unwrap_or_else(|| Problem::new(Code::NotFound, "the stream is not open")))
    }
}

#[async_trait]
impl Intake for IntakeBook {
    async fn intake(&self, stream: Uuid) -> Result<Vec<IntakeBucket>, Problem> {
        let open = self.stream(stream)?;
        self.ingest.intake(&open.def.name, &open.landing.master().landed()).await
    }

    async fn replayed(&self, stream: Uuid) -> Result<BTreeMap<Offset, i64>, Problem> {
        let open = self.stream(stream)?;
        self.ingest.replayed(&open.def.name).await
    }
}
