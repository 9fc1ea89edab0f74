//! Runs and certificates by the name of a view: of a union, those of all of its parts.

use schemas::documents::run::{RunDocument, RunKind, RunTrigger};
use schemas::{Certificate, Code, Problem};

use crate::engine::{NamedView, QueryEngine};

impl QueryEngine {
    fn named(&self, view: &str) -> Result<NamedView, Problem> {
        let missing = || Problem::new(Code::NotFound, format!("there is no view {view}"));
        NamedView::of(&self.parts.catalogs.current(), view).ok_or_else(missing)
    }

    /// Starts a run of a view, or of each part of a union.
    pub(crate) async fn start_runs(&self, view: &str, kind: RunKind) -> Result<Vec<RunDocument>, Problem> {
        let mut runs = vec![];
        for part in &self.named(view)?.parts {
            runs.push(self.parts.runs.start(&part.name, kind, RunTrigger::Manual).await?);
        }
        Ok(runs)
    }

    /// Runs, the newest first, of a view or of all.
    pub(crate) async fn runs(&self, view: Option<&str>, limit: usize) -> Result<Vec<RunDocument>, Problem> {
        let union = view.and_then(|view| NamedView::of(&self.parts.catalogs.current(), view));
        let Some(union) = union.filter(|named| named.parts.len() > 1) else {
            return self.parts.runs.runs(view, limit).await;
        };
        let mut runs = vec![];
        for part in &union.parts {
            runs.extend(self.parts.runs.runs(Some(&part.name), limit).await?);
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.id));
        runs.truncate(limit);
        Ok(runs)
    }

    /// Certificates of a view, or of all parts of a union, the newest first.
    pub(crate) async fn certificates(&self, view: &str, limit: usize) -> Result<Vec<Certificate>, Problem> {
        let mut certificates = vec![];
        for part in &self.named(view)?.parts {
            certificates.extend(self.parts.runs.certificates(&part.name, limit).await?);
        }
        certificates.sort_by_key(|certificate| std::cmp::Reverse(certificate.run));
        certificates.truncate(limit);
        Ok(certificates)
    }

    /// The certificate of a run of a view, of whichever part it was; without a run the newest of each part.
    ///
    /// # Errors
    /// `not_found`: there is none, or none of one of the parts.
    pub(crate) async fn certificates_of(&self, view: &str, run: Option<u64>) -> Result<Vec<Certificate>, Problem> {
        let named = self.named(view)?;
        let mut found = vec![];
        for part in &named.parts {
            match self.parts.runs.certificate(&part.name, run).await {
                Ok(certificate) => found.push(certificate),
                // a run is one part's
                Err(problem) if problem.code == Code::NotFound && run.is_some() && named.parts.len() > 1 => {}
                Err(problem) => return Err(problem),
            }
        }
        let missing = || Problem::new(Code::NotFound, format!("view {view}: no part of it has such a certificate"));
        if found.is_empty() { Err(missing()) } else { Ok(found) }
    }
}
