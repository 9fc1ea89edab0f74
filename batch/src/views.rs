//! What the batch layer asks of `cli`: the compiled views, and the streams they are folded from.

use std::sync::Arc;

use operators::{StaticTable, View};
use schemas::{StreamDef, ViewDef};
use uuid::Uuid;

use crate::landing::Landing;

/// A view with all that a run needs of it.
#[derive(Debug, Clone)]
pub struct BatchView {
    /// As declared.
    pub def: ViewDef,
    /// The stream it is folded from.
    pub stream: Arc<StreamDef>,
    /// Compiled.
    pub view: Arc<View>,
    /// The static tables it joins, at the pinned versions.
    pub tables: Vec<StaticTable>,
}

/// The catalogue's views, compiled. Both layers get the same `Arc<View>`.
pub trait Views: Send + Sync {
    /// The view of that name.
    fn view(&self, name: &str) -> Option<Arc<BatchView>>;

    /// All views, by name.
    fn views(&self) -> Vec<Arc<BatchView>>;

    /// The landing of a stream.
    fn landing(&self, stream: Uuid) -> Option<Arc<Landing>>;
}
