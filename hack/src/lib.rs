//! Unifies features while developing.
