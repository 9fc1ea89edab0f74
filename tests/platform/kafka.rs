//! Topics of a real Kafka broker as streams, and Kafka as the log.

pub(crate) mod broker;
mod faults;
mod incarnations;
mod log;
mod secure;
mod slow;
mod topics;
