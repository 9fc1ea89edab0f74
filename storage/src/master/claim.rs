//! Whose the table is: an owner that takes a store over commits its number, and nothing is committed on top of a
//! higher one.
//!
//! ```text
//!  5 owner 7 lands ──► 6 owner 8 claims ──► 7 owner 8 lands       owner 7, about to commit 6, conflicts, reads the
//!                                                                 table again, finds owner 8 in it and stops
//! ```

use delta_kernel::KernelError;

use super::table::Outcome;
use super::{COMMIT_ATTEMPTS_MAX, COMMIT_PAUSE, Master, State, blocking};
use crate::error::StorageError;

impl Master {
    /// Makes the table this owner's (invariant I9).
    pub(super) async fn claim(&self) -> Result<(), StorageError> {
        let _landing = self.landing.lock().await;
        let mut lost = None;
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let state = self.state.load_full();
            self.assert_not_fenced(&state)?;
            if state.owner == self.epoch {
                return Ok(());
            }
            let (table, snapshot, epoch) = (self.table.clone(), state.snapshot.clone(), self.epoch);
            if let Outcome::Unknown(error) = blocking(move || table.claim(&snapshot, epoch)).await? {
                lost = Some(error);
                tokio::time::sleep(COMMIT_PAUSE).await;
            }
            self.reload().await?;
        }
        Err(self.never_committed(lost))
    }

    /// Nothing is committed on top of what a newer owner has written.
    pub(super) fn assert_not_fenced(&self, state: &State) -> Result<(), StorageError> {
        if self.epoch == 0 || state.owner <= self.epoch {
            return Ok(());
        }
        Err(StorageError::Fenced { what: self.table.place.root.to_string(), owner: state.owner, mine: self.epoch })
    }

    /// Neither in the table nor lost to another commit.
    pub(super) fn never_committed(&self, lost: Option<KernelError>) -> StorageError {
        let context = format!("committing to {}", self.table.place.root);
        match lost {
            Some(error) => StorageError::io(context, error),
            None => StorageError::Full { what: context },
        }
    }
}
