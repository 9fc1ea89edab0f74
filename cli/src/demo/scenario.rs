//! What a demo is told about: a stream, views, events, and what is known about the truth.

use std::io;

use crate::commands::ingest::bodies::Body;
use crate::generator::Totals;

/// Bodies of events, in the order of their arrival.
pub(super) type Events = Box<dyn Iterator<Item = io::Result<Body>> + Send>;

/// Everything that differs between the demos.
pub(super) struct Scenario {
    /// What the events are, in a few words.
    pub(super) title: String,
    /// The stream's name.
    pub(super) stream: &'static str,
    /// `CREATE STREAM …`
    pub(super) create_stream: String,
    /// The views that count every event; the first one is the hero.
    pub(super) views: Vec<View>,
    /// The first view once more, with `late = 'drop'`.
    pub(super) twin: View,
    /// The column that counts events.
    pub(super) count: &'static str,
    /// A query over the hero, for people.
    pub(super) show: String,
    /// The events.
    pub(super) events: Events,
    /// What [`Body::read`] comes to at the end.
    pub(super) size: u64,
    /// What must come out, where that is known beforehand.
    pub(super) truth: Option<Totals>,
}

/// A view of the demo.
pub(super) struct View {
    /// Its name.
    pub(super) name: &'static str,
    /// `CREATE MATERIALIZED VIEW …`
    pub(super) create: String,
}
