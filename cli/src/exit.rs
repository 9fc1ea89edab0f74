//! Exit codes, and errors that carry one.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// How the process ends. The numbers are part of the command line's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something did not work.
    Failed = 1,
    /// The command line, the configuration or a file name is wrong.
    Usage = 2,
    /// A check said no: a violation, a blocked run, a doctor's finding.
    CheckFailed = 3,
    /// No token, a wrong one, or one that may not do this.
    NotAllowed = 4,
    /// No server answers at the address.
    Unreachable = 5,
}

/// An error with its exit code. Any other error exits with [`Exit::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What the user reads; may have several lines.
    pub text: String,
    /// Set if the server is full: the same request may succeed after this time.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// An error that ends the process with `exit`.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), retry_after: None }
    }
}

/// Shorthand for an `Err` with an exit code.
pub fn fail<T>(exit: Exit, text: impl Into<String>) -> anyhow::Result<T> {
    Err(Failure::new(exit, text).into())
}

/// The exit code of an error: that of the first [`Failure`] in its chain.
pub fn code(error: &anyhow::Error) -> Exit {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(Exit::Failed, |failure| failure.exit)
}

/// Prints an error to stderr and gives the exit code. A reader that went away (`| head`) is no error.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let closed = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
    if closed {
        return ExitCode::SUCCESS;
    }
    crate::output::note(&format!("error: {error:#}"));
    ExitCode::from(code(error) as u8)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_context_keeps_the_exit_code() {
        let error = fail::<()>(Exit::Unreachable, "no answer").context("asking for runs").unwrap_err();
        assert_eq!(code(&error), Exit::Unreachable);
        assert_eq!(code(&anyhow::anyhow!("plain")), Exit::Failed);
    }
}
