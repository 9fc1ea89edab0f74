//! Answers against an oracle that shares no code: rational arithmetic; and SQL through DataFusion.

mod oracle;
mod sql;
