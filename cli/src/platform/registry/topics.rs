//! Topics: streams that are read from one, with the partitions that it gets later; and logs that are in one.

use std::sync::{Arc, Weak};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use ingest::frozen::Lookup;
use ingest::{Connector, ConnectorParts, Grow};
use schemas::documents::source::LogTopic;
use schemas::{Code, Problem, StreamDef};
use storage::layers::{BacklogSize, Backlogs};
use storage::log::{KafkaLog, KafkaLogConfig, Log};
use storage::paths;
use storage::source::SourceStore;
use uuid::Uuid;

use super::Registry;

impl Registry {
    /// The connector of a stream; none for one whose events come over HTTP.
    pub(super) async fn connector(
        &self,
        stream: &Arc<StreamDef>,
        log: &Arc<dyn Log>,
        dead_letters: &Arc<dyn Log>,
        receipts: &Arc<dyn Log>,
    ) -> anyhow::Result<Option<Arc<Connector>>> {
        if stream.transport.source.is_none() {
            return Ok(None);
        }
        let parts = ConnectorParts {
            stream: Arc::clone(stream),
            log: Arc::clone(log),
            dead_letters: Arc::clone(dead_letters),
            receipts: Arc::clone(receipts),
            sources: SourceStore::new(self.parts.store.clone(), stream.id),
            kafka: self.parts.kafka.cluster(stream.transport.brokers.as_deref())?,
            grow: Arc::new(Growth(Weak::clone(&self.this))),
            clock: Arc::clone(&self.parts.clock),
            limits: self.parts.limits.clone(),
            backlogs: Some(Arc::new(Backlog(Weak::clone(&self.this)))),
            ids_folder: Some(self.parts.folder.topic_ids(stream.id)),
            lookup: {
                let registry = Weak::clone(&self.this);
                let closed = || Problem::new(Code::Cancelled, "the server is stopping");
                Lookup::new(move |stream| registry.upgrade().ok_or_else(closed)?.frozen_table(stream))
            },
        };
        Ok(Some(Connector::open(parts).await?))
    }

    /// A log of a stream's in a topic of its own.
    pub(super) async fn open_kafka_log(
        &self,
        stream: &StreamDef,
        kind: &str,
        schema: SchemaRef,
        partitions: u32,
    ) -> anyhow::Result<Arc<dyn Log>> {
        let sources = SourceStore::new(self.parts.store.clone(), stream.id);
        let known = sources.log_topic(kind).await?;
        let config = KafkaLogConfig {
            cluster: self.parts.kafka.cluster(stream.transport.brokers.as_deref())?,
            topic: paths::topic(stream.id, kind),
            topic_id: known.as_ref().map(|known| known.topic_id),
            tail_bytes_max: self.parts.limits.log_tail_bytes_max,
            queue_bytes_max: self.parts.limits.ingest_bytes_in_flight_max,
            tails: Some(Arc::clone(&self.parts.tails)),
        };
        let (topic, incarnation) = (config.topic.clone(), stream.incarnation);
        let log =
            tokio::task::spawn_blocking(move || KafkaLog::open(&config, schema, incarnation, partitions)).await??;
        if known.is_none() {
            sources.put_log_topic(kind, &LogTopic { format: 1, topic, topic_id: log.topic_id() }).await?;
        }
        Ok(log)
    }
}

/// The registry has the connector that asks it.
struct Backlog(Weak<Registry>);

impl Backlogs for Backlog {
    fn backlog(&self, stream: Uuid) -> Option<BacklogSize> {
        self.0.upgrade()?.backlog(stream)
    }

    fn chain_bytes(&self, stream: Uuid) -> u64 {
        self.0.upgrade().map_or(0, |registry| registry.chain_bytes(stream))
    }
}

/// A topic has got partitions: the stream gets them, too. The catalogue comes first, so that a restart half-way
/// opens everything with as many.
struct Growth(Weak<Registry>);

#[async_trait]
impl Grow for Growth {
    async fn grow(&self, stream: Uuid, partitions: u32) -> Result<(), Problem> {
        let Some(registry) = self.0.upgrade() else { return Ok(()) };
        let grown = registry.parts.catalog.update(|catalog| {
            if let Some(known) = catalog.streams.iter_mut().find(|known| known.id == stream) {
                known.partitions = known.partitions.max(partitions);
            }
            Ok(())
        });
        grown.await?;
        let open = registry.streams.read().get(&stream).cloned();
        let Some(open) = open else { return Ok(()) };
        open.landing.master().grow(partitions);
        open.log.grow(partitions).map_err(|error| error.problem())?;
        if let Some(speed) = registry.parts.speed.stream(stream) {
            speed.grow(partitions);
        }
        Ok(())
    }
}
