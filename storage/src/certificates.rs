//! Certificates: one per run of a view (invariant I8).

use schemas::Certificate;
use uuid::Uuid;

use crate::error::StorageError;
use crate::numbered::{self, Numbered};
use crate::paths;
use crate::store::Store;

/// The certificates of every view.
#[derive(Debug, Clone)]
pub struct CertificateStore {
    store: Store,
}

impl CertificateStore {
    /// The certificates in a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Writes a run's certificate; a run that was begun again after a restart writes it again.
    ///
    /// # Errors
    /// `Io`
    pub async fn put(&self, certificate: &Certificate) -> Result<(), StorageError> {
        let path = paths::certificate(certificate.view_id, certificate.run);
        numbered::overwrite(&self.store, &path, certificate).await
    }

    /// The certificate of a run.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Io`
    pub async fn get(&self, view: Uuid, run: u64) -> Result<Certificate, StorageError> {
        self.of(view).read(run).await
    }

    /// The certificate of the newest run that has one.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn latest(&self, view: Uuid) -> Result<Option<Certificate>, StorageError> {
        Ok(self.of(view).latest().await?.map(|(_, certificate)| certificate))
    }

    /// At most `limit` certificates, the newest first.
    ///
    /// # Errors
    /// `Damaged`, `Io`
    pub async fn list(&self, view: Uuid, limit: usize) -> Result<Vec<Certificate>, StorageError> {
        let documents = self.of(view);
        let mut certificates = vec![];
        for run in documents.list().await?.into_iter().rev().take(limit) {
            certificates.push(documents.read(run).await?);
        }
        Ok(certificates)
    }

    fn of(&self, view: Uuid) -> Numbered<Certificate> {
        Numbered::new(self.store.clone(), paths::certificates(view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Verdict;
    use schemas::documents::certificate::{CellCheck, LedgerCheck, OracleCheck};

    fn certificate(run: u64) -> Certificate {
        Certificate {
            format: 1,
            run,
            view: "v".into(),
            view_id: Uuid::from_u128(3),
            semantic_hash: "h".into(),
            verdict: Verdict::Explained,
            base_run: None,
            base_cut: [(0, 0)].into(),
            cut: [(0, 10), (1, 7)].into(),
            inputs: vec![],
            ledger: LedgerCheck {
                appended: 17,
                batch: schemas::LedgerCounts::default(),
                speed: None,
                balance: 0,
                intake: None,
            },
            cells: CellCheck { compared: 1, differing: 0, samples: vec![], skipped: None },
            oracle: OracleCheck { sampled: 0, differing: 0, skipped: Some("no".into()), samples: vec![] },
            explanations: vec![],
            violations: vec![],
            created_at_us: 5,
            audit_ms: 6,
        }
    }

    #[tokio::test]
    async fn certificates_round_trip_newest_first() {
        let certificates = CertificateStore::new(Store::in_memory());
        let view = Uuid::from_u128(3);
        assert!(certificates.latest(view).await.unwrap().is_none());
        for run in [4, 12, 9] {
            certificates.put(&certificate(run)).await.unwrap();
        }
        assert_eq!(certificates.get(view, 9).await.unwrap(), certificate(9));
        assert_eq!(certificates.latest(view).await.unwrap().unwrap().run, 12);
        let runs: Vec<u64> = certificates.list(view, 2).await.unwrap().iter().map(|c| c.run).collect();
        assert_eq!(runs, [12, 9]);
    }
}
