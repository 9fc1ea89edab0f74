//! What the client says of its brokers: while none of them is there, the end of a transaction is not waited for.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

/// Hears that no broker is left.
#[derive(Debug, Default)]
pub(super) struct Watch {
    is_cut_off: AtomicBool,
}

impl Watch {
    /// A transaction has ended: there is a broker.
    pub(super) fn note_answer(&self) {
        self.is_cut_off.store(false, Ordering::Release);
    }

    /// True if all brokers have gone since one has answered, be it for a moment.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Acquire)
    }
}

impl ClientContext for Watch {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "kafka client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.is_cut_off.store(true, Ordering::Release);
        }
    }
}

impl ProducerContext for Watch {
    type DeliveryOpaque = ();

    /// The end of the transaction says it.
    fn delivery(&self, _: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_broker_counts_and_only_since_one_has_answered() {
        let watch = Watch::default();
        watch.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "one of three");
        assert!(!watch.is_cut_off());
        watch.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "3/3 brokers are down");
        assert!(watch.is_cut_off());
        watch.note_answer();
        assert!(!watch.is_cut_off());
    }
}
