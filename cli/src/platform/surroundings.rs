//! What a platform runs on besides its configuration: the machine, or a simulation of one.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemas::StreamDef;
use storage::StorageError;
use storage::clock::{Clock, SystemClock};
use storage::layers::Speed;
use storage::log::Log;
use storage::store::Store;

/// Where the logs of streams are.
#[async_trait]
pub trait LogPlace: Send + Sync {
    /// Opens a log of a stream, or makes it. `kind` tells the stream's logs apart.
    ///
    /// # Errors
    /// It could not be read.
    async fn open(
        &self,
        stream: &StreamDef,
        kind: &str,
        schema: SchemaRef,
        partitions: u32,
    ) -> Result<Arc<dyn Log>, StorageError>;
}

/// Puts something between the runs and the speed layer: it sees every barrier and every publication.
pub type BeforeSpeed = Arc<dyn Fn(Arc<dyn Speed>) -> Arc<dyn Speed> + Send + Sync>;

/// What a platform runs on.
#[derive(Clone)]
pub struct Surroundings {
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Where everything but the logs is; none: where the configuration says.
    pub store: Option<Store>,
    /// Where the logs are; none: in the data folder, or on Kafka.
    pub logs: Option<Arc<dyn LogPlace>>,
    /// What runs ask of the speed layer goes through it; none: straight to the speed layer.
    pub before_speed: Option<BeforeSpeed>,
    /// Fold loops of a stream, and threads of a run.
    pub threads: usize,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Default for Surroundings {
    /// The machine.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { clock: Arc::new(SystemClock), store: None, logs: None, before_speed: None, threads }
    }
}

impl Surroundings {
    /// The machine, but for its clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..Self::default() }
    }

    /// The speed layer as the runs see it.
    pub(super) fn before(&self, speed: Arc<dyn Speed>) -> Arc<dyn Speed> {
        match &self.before_speed {
            Some(before) => before(speed),
            None => speed,
        }
    }
}
