//! Section `kafka`: the cluster that streams use unless they name another, and how to be let in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use storage::kafka::KafkaConfig;

/// Section `kafka`.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSection {
    /// `host:port,…`: for streams that do not say.
    #[serde(default)]
    pub brokers: Option<String>,
    /// What librdkafka is told: `security.protocol`, `ssl.ca.location`, `sasl.mechanism`, `sasl.username`,
    /// `sasl.password`, … An underscore stands for a dot, so that environment variables can name them.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Properties hold secrets: only their names are shown.
impl fmt::Debug for KafkaSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaSection").field("brokers", &self.brokers).field("properties", &names).finish()
    }
}

impl KafkaSection {
    /// The cluster of a stream. The properties are for the configured brokers only: a statement that names others
    /// must not be handed this cluster's password.
    ///
    /// # Errors
    /// Neither the stream nor the configuration names brokers.
    pub fn cluster(&self, brokers: Option<&str>) -> anyhow::Result<KafkaConfig> {
        let configured = self.brokers.as_deref();
        let Some(chosen) = brokers.or(configured) else {
            anyhow::bail!("no brokers: name them with brokers = '…', or in the configuration (kafka.brokers)");
        };
        let is_ours = configured == Some(chosen);
        let properties = self.properties.iter().filter(|_| is_ours);
        let properties = properties.map(|(name, value)| (name.replace('_', "."), value.clone())).collect();
        Ok(KafkaConfig { brokers: chosen.to_owned(), properties })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_to_the_configured_brokers_only_and_are_never_shown() {
        let properties = BTreeMap::from([("sasl_password".to_owned(), "hush".to_owned())]);
        let section = KafkaSection { brokers: Some("ours:9092".into()), properties };
        for brokers in [None, Some("ours:9092")] {
            let cluster = section.cluster(brokers).unwrap();
            assert_eq!(cluster.properties["sasl.password"], "hush");
            assert!(!format!("{cluster:?} {section:?}").contains("hush"));
        }
        let other = section.cluster(Some("theirs:9092")).unwrap();
        assert_eq!((other.brokers.as_str(), other.properties.len()), ("theirs:9092", 0));
        assert!(KafkaSection::default().cluster(None).is_err());
    }
}
