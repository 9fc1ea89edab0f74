//! The standard output of the server. After a crash, what was written last may be written again.

use async_trait::async_trait;
use schemas::documents::sink::SinkPosition;
use schemas::{Code, Problem};
use storage::sinks::SinkStore;
use tokio::io::AsyncWriteExt;

use super::target::{Layout, Target};
use super::{SinkParts, lines};
use crate::changes::json::quoted;
use crate::changes::{Changes, Cursor};

pub(super) struct StdoutTarget {
    position: SinkStore,
    sink: String,
}

impl StdoutTarget {
    pub(super) fn new(parts: &SinkParts, layout: &Layout) -> Self {
        let position = SinkStore::new(parts.engine.parts.store.clone(), layout.sink.id);
        Self { position, sink: quoted(&layout.sink.name) }
    }

    async fn write(&self, text: &str) -> Result<(), Problem> {
        let mut out = tokio::io::stdout();
        let write = async {
            out.write_all(text.as_bytes()).await?;
            out.flush().await
        };
        write.await.map_err(|e| Problem::new(Code::StorageUnavailable, format!("the standard output: {e}")))
    }
}

/// The cursor of a stored position.
pub(super) fn stored_cursor(position: Option<&SinkPosition>) -> Option<Cursor> {
    position.and_then(|position| position.cursor.as_ref()?.parse().ok())
}

#[async_trait]
impl Target for StdoutTarget {
    async fn open(&mut self) -> Result<Option<Cursor>, Problem> {
        let position = self.position.read().await.map_err(|e| e.problem())?;
        Ok(stored_cursor(position.as_ref()))
    }

    async fn snapshot(&mut self, version: u64) -> Result<(), Problem> {
        let line = lines::snapshot(version).replacen('{', &format!("{{\"sink\":{},", self.sink), 1);
        self.write(&line).await
    }

    async fn changes(&mut self, changes: &Changes) -> Result<(), Problem> {
        let text = lines::changes(changes, &format!("\"sink\":{},", self.sink))?;
        self.write(&text).await
    }

    async fn corrections(&mut self, changes: &Changes) -> Result<(), Problem> {
        let text = lines::changes(changes, &format!("\"sink\":{},\"correction\":true,", self.sink))?;
        self.write(&text).await
    }

    async fn commit(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        let position = SinkPosition { format: 1, parcels: 0, cursor: Some(cursor.to_string()), pending: None };
        self.position.write(&position).await.map_err(|e| e.problem())
    }

    async fn advance(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        self.commit(cursor).await
    }
}
