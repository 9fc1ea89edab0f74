//! Between the runs and the speed layer: knows which barriers are in force, and can leave them out.

use std::sync::Arc;

use async_trait::async_trait;
use schemas::documents::manifest::Manifest;
use schemas::{Cut, Problem};
use storage::layers::Speed;
use storage::snapshot::StreamSnapshot;
use uuid::Uuid;

use super::link::Link;

/// The speed layer as the runs of a simulated process see it.
pub(crate) struct Barriers {
    pub(crate) link: Arc<Link>,
    pub(crate) speed: Arc<dyn Speed>,
}

#[async_trait]
impl Speed for Barriers {
    async fn barrier(&self, stream: Uuid) -> Result<Cut, Problem> {
        if self.link.world.bugs.publishes_before_the_barrier {
            return Ok(self.link.world.state().logs[&(stream, "records".to_owned())].end.clone());
        }
        let cut = self.speed.barrier(stream).await?;
        self.link.add_barrier(&cut);
        Ok(cut)
    }

    fn release_barrier(&self, stream: Uuid, cut: &Cut) {
        self.link.remove_barrier(cut);
        self.speed.release_barrier(stream, cut);
    }

    fn current(&self, stream: Uuid) -> Option<Arc<StreamSnapshot>> {
        self.speed.current(stream)
    }

    async fn publish(&self, stream: Uuid, manifest: Arc<Manifest>) -> Result<(), Problem> {
        self.speed.publish(stream, manifest).await
    }
}
