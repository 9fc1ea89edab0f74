//! A topic: one record a row, its key is the row's key, an empty value says that the row is gone. Records arrive in the
//! order of their key and once; after a crash those of the last step may come again, with the same key and a version
//! that is not smaller.

use async_trait::async_trait;
use schemas::Problem;
use schemas::documents::sink::SinkPosition;
use storage::kafka::{KafkaConfig, TopicRecord, TopicWriter};
use storage::sinks::SinkStore;

use super::SinkParts;
use super::stdout::stored_cursor;
use super::target::{Layout, Target};
use crate::changes::{Changes, Cursor};
use crate::format::object;

/// A record's version.
const VERSION: &str = "bifold-version";
/// The sink.
const SINK: &str = "bifold-sink";
/// The cursor that the step began at: everything before it had arrived.
const CURSOR: &str = "bifold-cursor";

pub(super) struct KafkaTarget {
    store: SinkStore,
    writer: TopicWriter,
    topic: String,
    corrections: String,
    layout: Layout,
    cursor: String,
}

impl KafkaTarget {
    pub(super) fn new(parts: &SinkParts, layout: Layout, topic: &str, cluster: &KafkaConfig) -> Result<Self, Problem> {
        Ok(Self {
            store: SinkStore::new(parts.engine.parts.store.clone(), layout.sink.id),
            writer: TopicWriter::open(cluster).map_err(|e| e.problem())?,
            topic: topic.to_owned(),
            corrections: format!("{topic}_corrections"),
            layout,
            cursor: String::new(),
        })
    }

    async fn send(&mut self, changes: &Changes, is_correction: bool) -> Result<(), Problem> {
        let headers = [
            (SINK, self.layout.sink.name.clone()),
            (VERSION, changes.version.to_string()),
            (CURSOR, self.cursor.clone()),
        ];
        let topic = if is_correction { &self.corrections } else { &self.topic };
        let upserts = &changes.upserts;
        let wrong = |e: arrow::error::ArrowError| Problem::new(schemas::Code::Internal, e.to_string());
        let keys = upserts.project(&self.layout.keys).map_err(wrong)?;
        for row in 0..upserts.num_rows() {
            let (key, value) = (object(&keys, row)?, object(upserts, row)?);
            let record = TopicRecord { topic, key: &key, value: Some(&value), headers: &headers };
            self.writer.send(record).await.map_err(|e| e.problem())?;
        }
        for row in 0..changes.deletes.num_rows() {
            let key = object(&changes.deletes, row)?;
            let record = TopicRecord { topic, key: &key, value: None, headers: &headers };
            self.writer.send(record).await.map_err(|e| e.problem())?;
        }
        Ok(())
    }
}

#[async_trait]
impl Target for KafkaTarget {
    async fn open(&mut self) -> Result<Option<Cursor>, Problem> {
        let position = self.store.read().await.map_err(|e| e.problem())?;
        let cursor = stored_cursor(position.as_ref());
        self.cursor = cursor.as_ref().map(ToString::to_string).unwrap_or_default();
        Ok(cursor)
    }

    async fn snapshot(&mut self, _: u64) -> Result<(), Problem> {
        Ok(())
    }

    async fn changes(&mut self, changes: &Changes) -> Result<(), Problem> {
        self.send(changes, false).await
    }

    async fn corrections(&mut self, changes: &Changes) -> Result<(), Problem> {
        self.send(changes, true).await
    }

    async fn commit(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        self.writer.flush().await.map_err(|e| e.problem())?;
        self.advance(cursor).await
    }

    async fn advance(&mut self, cursor: &Cursor) -> Result<(), Problem> {
        self.cursor = cursor.to_string();
        let position = SinkPosition { format: 1, parcels: 0, cursor: Some(self.cursor.clone()), pending: None };
        self.store.write(&position).await.map_err(|e| e.problem())
    }
}
