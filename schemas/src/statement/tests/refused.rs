//! Errors as a user reads them.
