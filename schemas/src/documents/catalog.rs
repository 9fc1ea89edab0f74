//! The catalogue: every stream, table, view and union, as one document that is replaced as a whole.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::sink::SinkDef;
use crate::stream::StreamDef;
use crate::union::UnionDef;
use crate::view::{TableDef, ViewDef};

/// One version of the catalogue. Version `sequence` is stored once, create-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Format of this document: 1.
    pub format: u32,
    /// Grows by one with every change.
    pub sequence: u64,
    /// By name.
    pub streams: Vec<StreamDef>,
    /// By name.
    pub tables: Vec<TableDef>,
    /// By name.
    pub views: Vec<ViewDef>,
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkDef>,
    /// By name. Their parts are among the views.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unions: Vec<UnionDef>,
    /// The number that the next run gets.
    pub next_run: u64,
    /// Number of the owner that wrote it; 0 where a store has only one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            format: 1,
            sequence: 0,
            streams: vec![],
            tables: vec![],
            views: vec![],
            sinks: vec![],
            unions: vec![],
            next_run: 1,
            epoch: 0,
        }
    }
}

impl Catalog {
    /// The stream of that name.
    pub fn stream(&self, name: &str) -> Option<&StreamDef> {
        self.streams.iter().find(|s| s.name == name)
    }

    /// The stream with that id.
    pub fn stream_by_id(&self, id: Uuid) -> Option<&StreamDef> {
        self.streams.iter().find(|s| s.id == id)
    }

    /// The view of that name.
    pub fn view(&self, name: &str) -> Option<&ViewDef> {
        self.views.iter().find(|v| v.name == name)
    }

    /// The view with that id.
    pub fn view_by_id(&self, id: Uuid) -> Option<&ViewDef> {
        self.views.iter().find(|v| v.id == id)
    }

    /// The static table of that name.
    pub fn table(&self, name: &str) -> Option<&TableDef> {
        self.tables.iter().find(|t| t.name == name)
    }

    /// The sink of that name.
    pub fn sink(&self, name: &str) -> Option<&SinkDef> {
        self.sinks.iter().find(|s| s.name == name)
    }

    /// The sinks of a view, by name.
    pub fn sinks_of(&self, view: Uuid) -> impl Iterator<Item = &SinkDef> {
        self.sinks.iter().filter(move |s| s.view == view)
    }

    /// The views folded from a stream, by name.
    pub fn views_of(&self, stream: Uuid) -> impl Iterator<Item = &ViewDef> {
        self.views.iter().filter(move |v| v.stream == stream)
    }

    /// The union of that name.
    pub fn union(&self, name: &str) -> Option<&UnionDef> {
        self.unions.iter().find(|u| u.name == name)
    }

    /// The union that a view is a part of.
    pub fn union_of(&self, part: Uuid) -> Option<&UnionDef> {
        self.unions.iter().find(|u| u.parts.contains(&part))
    }

    /// The views that a name stands for: a view is itself, a union is its parts, in the order of its branches.
    pub fn parts(&self, name: &str) -> Option<Vec<&ViewDef>> {
        match (self.view(name), self.union(name)) {
            (Some(view), _) => Some(vec![view]),
            (None, Some(union)) => union.parts.iter().map(|part| self.view_by_id(*part)).collect(),
            (None, None) => None,
        }
    }

    /// The names that a query can read as views: of views and of unions.
    pub fn view_names(&self) -> impl Iterator<Item = &str> {
        let unions = self.unions.iter().map(|union| union.name.as_str());
        self.views.iter().map(|view| view.name.as_str()).chain(unions)
    }

    /// True if a stream, table, view, union or sink has that name.
    pub fn is_taken(&self, name: &str) -> bool {
        self.stream(name).is_some()
            || self.table(name).is_some()
            || self.view(name).is_some()
            || self.union(name).is_some()
            || self.sink(name).is_some()
    }
}
