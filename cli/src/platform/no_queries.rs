//! A node without the role serving folds its streams, and answers nothing from them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{Code, Cut, Problem};
use storage::layers::Snapshots;
use storage::snapshot::StreamSnapshot;
use uuid::Uuid;

/// Snapshots for nobody.
pub(super) struct NoQueries;

#[async_trait]
impl Snapshots for NoQueries {
    async fn snapshot(&self, _: Uuid, _: Option<&Cut>, _: Duration) -> Result<Arc<StreamSnapshot>, Problem> {
        Err(Problem::new(Code::Unsupported, "this node answers no queries: it runs without the role serving")
            .with_hint("ask a node with the role serving"))
    }
}
