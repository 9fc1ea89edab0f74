//! A view over `UNION ALL` as declared: a name for several views, its *parts*, each over one stream (ADR 0019).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::stream::LatePolicy;
use crate::view::Refresh;

/// A declared view over `UNION ALL`. It has no states of its own: an answer is the ⊕ of its parts' states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnionDef {
    /// Tells it from another one of its name.
    pub id: Uuid,
    /// The name in SQL.
    pub name: String,
    /// Grows when the definition is replaced.
    pub version: u32,
    /// The `SELECT`, as written.
    pub sql: String,
    /// When batch recomputes the parts.
    pub refresh: Refresh,
    /// `WITH (late = …)`; the policy of each part's stream when none was given.
    pub late: Option<LatePolicy>,
    /// `WITH NO DATA`
    #[serde(default)]
    pub with_no_data: bool,
    /// The views of the branches, in their order: at least two.
    pub parts: Vec<Uuid>,
    /// Microseconds since the epoch.
    pub created_at_us: i64,
}

impl UnionDef {
    /// The name of the view of a branch; branches are counted from 0.
    pub fn part_name(union: &str, branch: usize) -> String {
        format!("{union}_part{}", branch + 1)
    }
}
