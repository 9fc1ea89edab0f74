//! A platform in miniature for tests: real views and folds, a snapshot made by hand.

mod layers;
mod published;
mod recorder;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use operators::{View, ViewSource, states};
use schemas::documents::run::RunDocument;
use schemas::problem::SqlPosition;
use schemas::view::{Refresh, TableDef, TableJoin};
use schemas::{Catalog, Certificate, Cut, LatePolicy, Limits, TableSource, ViewDef};
use storage::Store;
use storage::clock::ManualClock;
use storage::layers::{Runs, Snapshots};
use storage::snapshot::{RangeStates, StreamSnapshot, ViewSnapshot};
use uuid::Uuid;

use self::layers::dead_letter_rows;
pub(crate) use self::layers::run_document;
use self::published::{fold, publish};
pub(crate) use self::recorder::Recorder;
pub(crate) use self::stream::{BY_COUNTRY, Event, clicks};
use self::stream::{STREAM, TABLE};
use crate::engine::QueryEngine;
use crate::parts::{Catalogs, Parts, Views};

/// The clock of all tests.
pub(crate) const NOW_US: i64 = 1_780_000_000_000_000;
/// `by_country` over four batch events and two ranges.
pub(crate) async fn by_country() -> World {
    let batch: [Event; 5] =
        [(Some("DE"), 1.0, 10), (Some("KR"), 2.0, 20), (None, 4.0, 30), (Some("KR"), 8.0, 40), (Some("FR"), 0.5, 41)];
    let first: [Event; 2] = [(Some("KR"), 16.0, 50), (Some("US"), 32.0, 60)];
    let second: [Event; 3] = [(Some("KR"), 64.0, 70), (None, 128.0, 80), (Some("AT"), 0.25, 90)];
    World::new().with_view("by_country", BY_COUNTRY, Some(&batch), &[&first, &second]).await
}

/// What a test's platform is made of.
pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) views: BTreeMap<Uuid, Arc<View>>,
    pub(crate) snapshot: StreamSnapshot,
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) runs: Vec<RunDocument>,
    pub(crate) certificates: Vec<Certificate>,
    /// How often a snapshot was asked for.
    pub(crate) taken: Arc<AtomicUsize>,
}

impl World {
    /// A stream without views.
    pub(crate) fn new() -> Self {
        let table = TableDef {
            id: TABLE,
            name: "regions".into(),
            columns: vec![],
            source: TableSource::File("regions.csv".into()),
            refresh_us: None,
            version: 1,
            join: TableJoin::Pinned,
            validity: None,
            rows: 2,
            created_at_us: NOW_US,
        };
        Self {
            catalog: Catalog { streams: vec![clicks()], tables: vec![table], ..Catalog::default() },
            views: BTreeMap::new(),
            snapshot: StreamSnapshot {
                stream: STREAM,
                to: Cut::zero(1),
                taken_at_us: NOW_US,
                oldest_missing_us: None,
                tail_unknown: false,
                max_event_time_us: vec![None],
                views: BTreeMap::new(),
            },
            store: Store::in_memory(),
            limits: Limits::default(),
            runs: vec![],
            certificates: vec![],
            taken: Arc::default(),
        }
    }

    /// Adds a view whose first events are in a published batch view, and the others in ranges.
    pub(crate) async fn with_view(
        mut self,
        name: &str,
        sql: &str,
        batch: Option<&[Event]>,
        speed: &[&[Event]],
    ) -> Self {
        let stream = clicks();
        let position = SqlPosition { line: 1, column: 1 };
        let source = ViewSource { sql, position, stream: &stream, tables: &[], late: LatePolicy::Include };
        let view = View::compile(&source).unwrap();
        let id = Uuid::from_u128(100 + self.views.len() as u128);
        let mut at = 0;
        let mut manifest = None;
        if let Some(events) = batch {
            manifest = Some(Arc::new(publish(&self.store, &view, id, events).await));
            at = events.len() as u64;
        }
        let mut ranges = vec![];
        for events in speed {
            let (folded, ledger) = fold(&view, at, events);
            let to = at + events.len() as u64;
            // every other range is sorted, as deltas are and a tail is not
            let sorted = ranges.len() % 2 == 0;
            let folded = if sorted { vec![states::merge(&view, &folded).unwrap()] } else { folded };
            ranges.push(Arc::new(RangeStates {
                from: Cut(vec![at]),
                to: Cut(vec![to]),
                states: folded,
                sorted,
                ledger: vec![ledger],
            }));
            at = to;
        }
        let semantic_hash = view.semantic_hash().to_owned();
        self.catalog.views.push(ViewDef {
            id,
            name: name.into(),
            version: 1,
            stream: STREAM,
            sql: sql.into(),
            refresh: Refresh::Manual,
            late: None,
            tables: vec![],
            semantic_hash: semantic_hash.clone(),
            from: Cut::zero(1),
            with_no_data: false,
            created_at_us: NOW_US,
        });
        let to = Cut(vec![at]);
        let one = ViewSnapshot {
            view: id,
            semantic_hash,
            from: Cut::zero(1),
            manifest,
            ranges,
            to: to.clone(),
            failed: None,
        };
        self.snapshot.to = to;
        let newest = batch.into_iter().flatten().chain(speed.iter().copied().flatten()).map(|event| event.2).max();
        self.snapshot.max_event_time_us = vec![newest.map(|seconds| seconds * 1_000_000)];
        self.snapshot.views.insert(id, Arc::new(one));
        self.views.insert(id, view);
        self
    }

    /// Changes the one view's snapshot.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut ViewSnapshot)) {
        let one = self.snapshot.views.values_mut().next().unwrap();
        change(Arc::make_mut(one));
    }

    pub(crate) fn engine(self) -> Arc<QueryEngine> {
        let store = self.store.clone();
        let limits = self.limits.clone();
        let world = Arc::new(self);
        QueryEngine::new(Parts {
            catalogs: Arc::clone(&world) as Arc<dyn Catalogs>,
            views: Arc::clone(&world) as Arc<dyn Views>,
            snapshots: Arc::clone(&world) as Arc<dyn Snapshots>,
            runs: Arc::clone(&world) as Arc<dyn Runs>,
            logs: world,
            store,
            clock: Arc::new(ManualClock::at(NOW_US)),
            limits,
            dead_letter_schema: dead_letter_rows().schema(),
            intake: None,
        })
        .unwrap()
    }
}
