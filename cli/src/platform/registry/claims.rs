//! What an owner does first when it takes a store over.

use futures::future::try_join_all;
use schemas::Catalog;
use storage::StorageError;
use storage::manifests::ManifestStore;
use uuid::Uuid;

use super::Registry;

/// Views whose publications are claimed at the same time.
const CLAIMS_AT_ONCE: usize = 8;

impl Registry {
    /// Takes the publications of every view over, those of streams that cannot be opened yet included: before
    /// anything of an interrupted run is removed, and before deltas are merged.
    pub(super) async fn claim_views(&self, catalog: &Catalog) -> anyhow::Result<()> {
        let manifests = ManifestStore::new(self.parts.store.clone());
        for views in catalog.views.chunks(CLAIMS_AT_ONCE) {
            let claims: Vec<_> = views.iter().map(|view| claim(manifests.clone(), view.id)).collect();
            try_join_all(claims).await?;
        }
        Ok(())
    }
}

async fn claim(manifests: ManifestStore, view: Uuid) -> Result<(), StorageError> {
    manifests.claim(view).await
}
