//! How to reach a cluster.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// Brokers, and what else librdkafka is told (TLS, SASL). Properties are secrets: they are never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct KafkaConfig {
    /// `host:port,…`
    pub brokers: String,
    /// librdkafka's own names, `security.protocol` for example.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers).field("properties", &names).finish()
    }
}

impl KafkaConfig {
    /// What every client is made from.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "bifold")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers).set_log_level(RDKafkaLogLevel::Warning);
        config
    }
}

impl KafkaConfig {
    /// What every consumer is made from: committed records, at places of ours.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        // a consumer has to have a group; nothing is ever committed to it
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("isolation.level", "read_committed").set("check.crcs", "true");
        // a place that is not there is ours to judge, not the client's to move
        config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        config.set("allow.auto.create.topics", "false").set("topic.metadata.refresh.interval.ms", "10000");
        config
    }
}

/// What librdkafka has to say goes into the process's log: it goes on by itself after all of it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "kafka client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Quiet {}
