//! Answers against an oracle that shares no code: rational arithmetic; and SQL through DataFusion.

mod frozen;
mod oracle;
mod sql;
