//! What a demo is told about: a stream, views, events, and what is known about the truth.

use std::io;

use crate::commands::ingest::bodies::Body;
use crate::generator::Totals;

/// Bodies of events, in the order of their arrival.
pub type Events = Box<dyn Iterator<Item = io::Result<Body>> + Send>;

/// Everything that differs between the demos.
pub struct Scenario {
    /// What the events are, in a few words.
    pub title: String,
    /// The stream's name.
    pub stream: &'static str,
    /// `CREATE STREAM …`
    pub create_stream: String,
    /// The views that count every event; the first one is the hero.
    pub views: Vec<View>,
    /// The first view once more, with `late = 'drop'`.
    pub twin: View,
    /// The column that counts events.
    pub count: &'static str,
    /// A query over the hero, for people.
    pub show: String,
    /// The events.
    pub events: Events,
    /// What [`Body::read`] comes to at the end.
    pub size: u64,
    /// What must come out, where that is known beforehand.
    pub truth: Option<Totals>,
}

/// A view of the demo.
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// `CREATE MATERIALIZED VIEW …`
    pub create: String,
}
