//! What a sink writes to.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemas::{OutputMode, Problem, SinkDef, SinkTarget};

use super::SinkParts;
use super::file::FileTarget;
use super::kafka::KafkaTarget;
use super::postgres::PostgresTarget;
use super::stdout::StdoutTarget;
use super::webhook::WebhookTarget;
use crate::changes::{Changes, Cursor};

/// What a target has to know of the rows.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) sink: Arc<SinkDef>,
    /// The view's name.
    pub(super) view: String,
    /// The view's columns.
    pub(super) schema: SchemaRef,
    /// Which of them are the key; none in mode `complete`, and of a view that has one row.
    pub(super) keys: Vec<usize>,
}

impl Layout {
    /// True if every step is the whole view.
    pub(super) fn is_complete(&self) -> bool {
        self.sink.mode == OutputMode::Complete
    }

    /// Names of the key columns.
    pub(super) fn key_names(&self) -> Vec<&str> {
        self.keys.iter().map(|key| self.schema.field(*key).name().as_str()).collect()
    }
}

/// A target that is open. The calls of one step: `snapshot`?, `changes`*, `corrections`*, then `commit`. After an
/// error it is dropped and opened anew.
#[async_trait]
pub(super) trait Target: Send {
    /// Where it stands; none if nothing has arrived yet.
    async fn open(&mut self) -> Result<Option<Cursor>, Problem>;

    /// The whole view follows: what is there is to be replaced.
    async fn snapshot(&mut self, version: u64) -> Result<(), Problem>;

    /// Rows and keys of the step.
    async fn changes(&mut self, changes: &Changes) -> Result<(), Problem>;

    /// In mode `append`: what has changed in rows that were delivered as final.
    async fn corrections(&mut self, changes: &Changes) -> Result<(), Problem>;

    /// The step is complete: everything of it has arrived when this returns, and the cursor with it.
    async fn commit(&mut self, cursor: &Cursor) -> Result<(), Problem>;

    /// A step without rows.
    async fn advance(&mut self, cursor: &Cursor) -> Result<(), Problem>;
}

/// The target of a sink; nothing is connected yet.
pub(super) fn target(parts: &SinkParts, layout: Layout) -> Result<Box<dyn Target>, Problem> {
    let sink = Arc::clone(&layout.sink);
    Ok(match &sink.target {
        SinkTarget::Stdout => Box::new(StdoutTarget::new(parts, &layout)),
        SinkTarget::File { path } => Box::new(FileTarget::new(parts.exports.join(path), layout)),
        SinkTarget::Webhook { url } => Box::new(WebhookTarget::new(parts, layout, url)?),
        SinkTarget::Postgres { url, table } => Box::new(PostgresTarget::new(layout, url, table)?),
        SinkTarget::Kafka { topic, brokers } => {
            let cluster = (parts.clusters)(brokers.as_deref())?;
            Box::new(KafkaTarget::new(parts, layout, topic, &cluster)?)
        }
    })
}
