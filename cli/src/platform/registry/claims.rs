//! What an owner does first when it takes a store over.

use futures::{StreamExt, TryStreamExt};
use schemas::Catalog;
use storage::manifests::ManifestStore;

use super::Registry;

/// Views whose publications are claimed at the same time.
const CLAIMS_AT_ONCE: usize = 8;

impl Registry {
    /// Takes the publications of every view over, those of streams that cannot be opened yet included: before
    /// anything of an interrupted run is removed, and before deltas are merged.
    pub(super) async fn claim_views(&self, catalog: &Catalog) -> anyhow::Result<()> {
        let manifests = &ManifestStore::new(self.parts.store.clone());
        let claims = catalog.views.iter().map(|view| async move { manifests.claim(view.id).await });
        Ok(futures::stream::iter(claims).buffer_unordered(CLAIMS_AT_ONCE).try_collect::<()>().await?)
    }
}
