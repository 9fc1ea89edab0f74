//! What can go wrong with storage, by what the caller will do about it.

use schemas::{Code, Problem};

/// An error of the storage crate.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A queue or a disk is full: nothing was written; try again later.
    #[error("{what} is full")]
    Full {
        /// Which queue or disk.
        what: String,
    },
    /// Somebody else created the object first: read again and decide again.
    #[error("{path} exists already")]
    Conflict {
        /// The object.
        path: String,
    },
    /// Another process has taken the store over: this one may write nothing any more, and has to stop.
    #[error("{what} belongs to owner {owner}, this process is owner {mine}")]
    Fenced {
        /// What was to be written.
        what: String,
        /// Epoch of the owner that has it.
        owner: u64,
        /// Epoch of this process.
        mine: u64,
    },
    /// Stored bytes are not what was written: repair the data.
    #[error("{path}: damaged: {reason}")]
    Damaged {
        /// The object.
        path: String,
        /// What does not fit.
        reason: String,
    },
    /// Not there.
    #[error("{path}: not found")]
    NotFound {
        /// The object.
        path: String,
    },
    /// The disk or the object store failed: nothing is acknowledged; try again.
    #[error("{context}: {source}")]
    Io {
        /// What was being done to which object.
        context: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is being written takes far too long: nothing new is taken until it has ended one way or the other.
    #[error("{what} has not answered for {seconds} s")]
    Stalled {
        /// What is waited for.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// It was decided on top of something that failed since: read again and decide again.
    #[error("{what} has failed since this was decided")]
    Outdated {
        /// What failed.
        what: String,
    },
    /// The component is stopping.
    #[error("{what} is closed")]
    Closed {
        /// Which component.
        what: String,
    },
}

impl StorageError {
    /// Wraps a cause with what was being done.
    pub fn io(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Io { context: context.into(), source: source.into() }
    }

    /// What a client is told: safe, without paths of causes.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Full { .. } => Problem::new(Code::Overloaded, self.to_string()),
            Self::NotFound { .. } => Problem::new(Code::NotFound, self.to_string()),
            Self::Fenced { .. } => Problem::new(Code::InUse, self.to_string()),
            Self::Io { context, source } if is_full(source.as_ref()) => {
                let problem =
                    Problem::new(Code::StorageUnavailable, format!("storage: {context} failed: no room is left"));
                problem
                    .with_hint("make room on the disk: what was refused can be sent again, nothing has to be restarted")
            }
            Self::Io { context, .. } => Problem::new(Code::StorageUnavailable, format!("storage: {context} failed")),
            Self::Stalled { seconds, .. } => {
                let problem = Problem::new(Code::StorageUnavailable, self.to_string());
                problem.with_retry_after((*seconds).min(schemas::limits::RETRY_AFTER_MAX_S / 4))
            }
            Self::Closed { .. } | Self::Outdated { .. } => Problem::new(Code::StorageUnavailable, self.to_string()),
            Self::Conflict { .. } | Self::Damaged { .. } => Problem::new(Code::Internal, self.to_string()),
        }
    }
}

/// True for a disk, a quota or a file that takes no more.
fn is_full(source: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    use std::io::ErrorKind;
    let kind = source.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge))
}
