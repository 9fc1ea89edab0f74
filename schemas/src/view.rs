//! A materialized view as declared.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::position::Cut;
use crate::stream::LatePolicy;
use crate::table::{TableSource, Validity};

/// When the batch layer recomputes a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Refresh {
    /// `REFRESH CRON '…' [TIME ZONE '…']`: five fields (minute first), in a time zone.
    Cron {
        /// As written.
        expression: String,
        /// An IANA name; `UTC` when none was given.
        time_zone: String,
    },
    /// `REFRESH EVERY INTERVAL '…'`
    Every {
        /// The interval, microseconds.
        interval_us: i64,
    },
    /// `REFRESH MANUAL`: on demand only. The default.
    Manual,
    /// `REFRESH NEVER`: the speed layer alone (Kappa).
    Never,
}

/// A declared view. One definition; both layers compile it with `operators::View`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDef {
    /// Names all of its files.
    pub id: Uuid,
    /// The name in SQL.
    pub name: String,
    /// Grows when the definition is replaced.
    pub version: u32,
    /// The stream it is folded from.
    pub stream: Uuid,
    /// The `SELECT`, as written.
    pub sql: String,
    /// When batch recomputes it.
    pub refresh: Refresh,
    /// `WITH (late = …)`; the stream's policy when none was given.
    pub late: Option<LatePolicy>,
    /// Static tables with the version that both layers join: `(table id, version)`.
    pub tables: Vec<(Uuid, u32)>,
    /// What the states mean (DESIGN §5.5); states of another hash are never merged with these.
    pub semantic_hash: String,
    /// Where the speed layer's deltas of this view begin. What lies before comes from the first run.
    pub from: Cut,
    /// `WITH NO DATA`: what lies before `from` is left to the schedule.
    #[serde(default)]
    pub with_no_data: bool,
    /// Microseconds since the epoch.
    pub created_at_us: i64,
}

/// When the rows of a table come to the records that a view joins with them (DESIGN §14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableJoin {
    /// While records are folded, in the version that was there when the view was made. It cannot be replaced as long
    /// as a view joins it.
    #[default]
    Pinned,
    /// When the view is read, after ⊕, in the version that is there then. The default of `CREATE TABLE`.
    Late,
}

impl TableJoin {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Late, Self::Pinned];

    /// As SQL has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Late => "late",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
    fn is_pinned(&self) -> bool {
        *self == Self::Pinned
    }
}

/// A table: rows loaded from somewhere, kept in the store. Its content changes as a whole, by a new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDef {
    /// Names all of its files.
    pub id: Uuid,
    /// The name in SQL.
    pub name: String,
    /// Declared columns, in order.
    pub columns: Vec<crate::column::ColumnDef>,
    /// Where it was loaded from, as written.
    pub source: TableSource,
    /// `REFRESH EVERY INTERVAL '…'`: how often the server loads it again, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_us: Option<i64>,
    /// Which load this is.
    pub version: u32,
    /// When views join it.
    #[serde(default, skip_serializing_if = "TableJoin::is_pinned")]
    pub join: TableJoin,
    /// When each row is valid, of a table that is joined as of a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<Validity>,
    /// Rows in this version.
    pub rows: u64,
    /// Microseconds since the epoch.
    pub created_at_us: i64,
}
