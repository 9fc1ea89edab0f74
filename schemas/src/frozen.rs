//! Columns of a stream that are looked up in a table when a record comes in, and are stored with it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::column::{ColumnDef, SqlType};

/// Which version of the table a record's values were taken from.
pub const FROZEN_VERSION: &str = "_frozen_version";

/// `category TEXT FREEZE FROM products (category) ON sku = code`: what is looked up on the way in. Everything behind the log
/// reads what was stored: whatever becomes of the table, and whenever it is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frozen {
    /// The table. Nil in a statement, which knows its name alone.
    pub table: Uuid,
    /// The table's name.
    pub name: String,
    /// The stream's column that is looked up.
    pub key: String,
    /// The table's column that it is looked up in: no two rows have the same value there.
    pub table_key: String,
    /// The columns that are filled, each with the table's column that it is filled from.
    pub columns: Vec<(String, String)>,
}

impl Frozen {
    /// The table's column that a column of the stream is filled from.
    pub fn source_of(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|(filled, _)| filled == column).map(|(_, source)| source.as_str())
    }
}

/// The column of the platform's own behind those of a stream that looks something up.
pub fn version_column() -> ColumnDef {
    ColumnDef { name: FROZEN_VERSION.into(), sql_type: SqlType::Int, nullable: false }
}
