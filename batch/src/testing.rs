//! What the tests of this crate share: a stream, events, records in memory, fakes of the other layers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use async_trait::async_trait;
use operators::{Folder, View, ViewSource, evidence};
use parking_lot::Mutex;
use schemas::documents::manifest::Manifest;
use schemas::problem::SqlPosition;
use schemas::{
    Code, ColumnDef, Cut, LatePolicy, LedgerCounts, Offset, OnBadData, Partition, Problem, SqlType, StreamDef,
};
use storage::layers::Speed;
use storage::log::{Frame, Log, MemoryLog};
use storage::snapshot::{RangeStates, StreamSnapshot, ViewSnapshot};
use uuid::Uuid;

use crate::recompute::{Each, Records, Unit};

pub(crate) const PARTITIONS: u32 = 3;
pub(crate) const START_US: i64 = 1_700_000_000_000_000;
pub(crate) const SECOND_US: i64 = 1_000_000;

pub(crate) fn stream() -> StreamDef {
    let column = |name: &str, sql_type, nullable| ColumnDef { name: name.into(), sql_type, nullable };
    StreamDef {
        id: Uuid::from_u128(1),
        incarnation: Uuid::from_u128(2),
        name: "events".into(),
        columns: vec![
            column("id", SqlType::BigInt, false),
            column("shop", SqlType::Text, true),
            column("price", SqlType::BigInt, false),
            column("weight", SqlType::Double, false),
            column("at", SqlType::TimestampTz, false),
        ],
        primary_key: vec!["id".into()],
        time_column: Some("at".into()),
        watermark_delay_us: 10 * SECOND_US,
        partitions: PARTITIONS,
        dedup_horizon_us: SECOND_US,
        late: LatePolicy::Include,
        on_bad_data: OnBadData::Quarantine,
        transport: schemas::Transport::default(),
        created_at_us: START_US,
    }
}

pub(crate) fn view(sql: &str, late: LatePolicy) -> Arc<View> {
    let position = SqlPosition { line: 1, column: 1 };
    View::compile(&ViewSource { sql, position, stream: &stream(), tables: &[], late }).unwrap()
}

/// An event as the tests' own oracle sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: i64,
    pub(crate) shop: Option<String>,
    pub(crate) price: i64,
    pub(crate) weight: f64,
    pub(crate) at_us: i64,
}

/// Events of one partition: `shops` keys, some null, times out of order.
pub(crate) fn events(partition: Partition, range: std::ops::Range<Offset>, shops: u64) -> Vec<Event> {
    range.map(|offset| event(partition, offset, shops)).collect()
}

fn event(partition: Partition, offset: Offset, shops: u64) -> Event {
    let noise = (offset + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (u64::from(partition) << 40);
    let noise = (noise ^ (noise >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 11;
    let shop = noise % shops;
    Event {
        id: i64::from(partition) * 1_000_000_000 + offset as i64,
        shop: (shop != 7).then(|| format!("shop number {shop} of the street")),
        price: (noise % 1_000) as i64 - 300,
        weight: (noise % 977) as f64 * 0.1,
        at_us: START_US + offset as i64 * SECOND_US - (noise % 40) as i64 * SECOND_US,
    }
}

/// Events as the log holds them.
pub(crate) fn log_rows(events: &[Event], max_before_us: Option<i64>) -> RecordBatch {
    let mut max = max_before_us;
    let maxima: Vec<Option<i64>> = events
        .iter()
        .map(|event| {
            let before = max;
            max = Some(max.map_or(event.at_us, |max| max.max(event.at_us)));
            before
        })
        .collect();
    let times = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.id))),
        Arc::new(events.iter().map(|e| e.shop.clone()).collect::<StringViewArray>()),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.price))),
        Arc::new(Float64Array::from_iter_values(events.iter().map(|e| e.weight))),
        times(events.iter().map(|e| Some(e.at_us)).collect()),
        times(events.iter().map(|e| Some(START_US + e.id % 1_000_000_000)).collect()),
        times(maxima),
    ];
    RecordBatch::try_new(stream().log_schema(), columns).unwrap()
}

/// The first records of every partition, in frames of `frame` rows.
pub(crate) fn frames(cut: &Cut, shops: u64, frame: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (partition, to) in cut.iter() {
        let mut max = None;
        let mut base = 0;
        while base < to {
            let events = events(partition, base..(base + frame).min(to), shops);
            frames.push(Frame { partition, base, rows: log_rows(&events, max) });
            max = max.max(events.iter().map(|e| e.at_us).max());
            base += events.len() as u64;
        }
    }
    frames
}

/// Frames as a recomputation's records: every frame is a file of one row group.
#[derive(Debug)]
pub(crate) struct MemoryRecords {
    frames: Vec<Frame>,
    units: Vec<Unit>,
}

impl MemoryRecords {
    pub(crate) fn new(frames: Vec<Frame>) -> Self {
        let unit = |(file, frame): (usize, &Frame)| Unit {
            file,
            row_groups: 0..1,
            partition: frame.partition,
            offsets: frame.base..frame.end(),
        };
        let units = frames.iter().enumerate().map(unit).collect();
        Self { frames, units }
    }
}

impl Records for MemoryRecords {
    fn units(&self) -> &[Unit] {
        &self.units
    }

    fn read(&self, unit: &Unit, columns: &[usize], each: Each<'_>) -> Result<(), Problem> {
        let rows = self.frames[unit.file].rows.project(columns).unwrap();
        let half = rows.num_rows() / 2;
        each(rows.slice(0, half))?;
        each(rows.slice(half, rows.num_rows() - half))
    }
}

/// What speed does: folds a range and keeps its ledger.
pub(crate) fn delta(view: &Arc<View>, frames: &[Frame], from: &Cut, to: &Cut) -> RangeStates {
    let mut folder = Folder::new(view).unwrap();
    let mut ledger = vec![LedgerCounts::default(); PARTITIONS as usize];
    for frame in frames {
        let p = frame.partition;
        let Some(part) = frame.clip(&(from.offset(p)..to.offset(p))) else { continue };
        let mut counts = folder.fold(p, part.base, &part.rows).unwrap();
        let records = counts.records;
        evidence::count_positions(&mut counts, p, part.base..part.end());
        counts.records = records;
        ledger[p as usize].add(&counts);
    }
    let states = folder.take().unwrap().map(|states| operators::states::sort(view, &states).unwrap());
    RangeStates { from: from.clone(), to: to.clone(), states: states.into_iter().collect(), sorted: true, ledger }
}

/// An empty log of [`stream`].
pub(crate) fn log() -> Arc<MemoryLog> {
    MemoryLog::new(stream().incarnation, PARTITIONS)
}

/// A speed layer that folds a log's frames when it is asked, and forgets below what is published.
pub(crate) struct FakeSpeed {
    pub(crate) log: Arc<MemoryLog>,
    views: Mutex<BTreeMap<Uuid, ViewSnapshot>>,
    folds: Mutex<BTreeMap<Uuid, Arc<View>>>,
    pub(crate) barriers: Mutex<Vec<Cut>>,
    /// Changes a delta before it is taken: a planted fault.
    pub(crate) plant: Mutex<Option<fn(&mut RangeStates)>>,
}

impl FakeSpeed {
    pub(crate) fn new(log: Arc<MemoryLog>) -> Self {
        Self {
            log,
            views: Mutex::default(),
            folds: Mutex::default(),
            barriers: Mutex::default(),
            plant: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, id: Uuid, view: &Arc<View>, from: Cut) {
        let snapshot = ViewSnapshot {
            view: id,
            semantic_hash: view.semantic_hash().into(),
            to: from.clone(),
            from,
            manifest: None,
            ranges: vec![],
            failed: None,
        };
        self.views.lock().insert(id, snapshot);
        self.folds.lock().insert(id, Arc::clone(view));
    }

    pub(crate) fn view(&self, id: Uuid) -> ViewSnapshot {
        self.views.lock()[&id].clone()
    }
}

#[async_trait]
impl Speed for FakeSpeed {
    async fn barrier(&self, _: Uuid) -> Result<Cut, Problem> {
        let head = self.log.head();
        let frames = self.log.frames();
        for (id, snapshot) in self.views.lock().iter_mut() {
            let mut range = delta(&self.folds.lock()[id], &frames, &snapshot.to, &head);
            if let Some(plant) = *self.plant.lock() {
                plant(&mut range);
            }
            if !snapshot.to.same_position(&head) {
                snapshot.ranges.push(Arc::new(range));
                snapshot.to = head.clone();
            }
        }
        self.barriers.lock().push(head.clone());
        Ok(head)
    }

    fn release_barrier(&self, _: Uuid, cut: &Cut) {
        self.barriers.lock().retain(|barrier| barrier != cut);
    }

    fn current(&self, stream: Uuid) -> Option<Arc<StreamSnapshot>> {
        let views = self.views.lock().iter().map(|(id, view)| (*id, Arc::new(view.clone()))).collect();
        let to = self.log.head();
        Some(Arc::new(StreamSnapshot {
            stream,
            to,
            taken_at_us: 0,
            oldest_missing_us: None,
            tail_unknown: false,
            max_event_time_us: vec![],
            views,
        }))
    }

    async fn publish(&self, _: Uuid, manifest: Arc<Manifest>) -> Result<(), Problem> {
        let mut views = self.views.lock();
        let view = views.get_mut(&manifest.view).ok_or_else(|| Problem::new(Code::NotFound, "view"))?;
        view.ranges.retain(|range| !range.to.is_at_most(&manifest.cut));
        if manifest.rolled_back_from.is_some() {
            let frames = self.log.frames();
            let to = view.to.clone();
            view.ranges = vec![Arc::new(delta(&self.folds.lock()[&manifest.view], &frames, &manifest.cut, &to))];
        }
        view.manifest = Some(manifest);
        Ok(())
    }
}

/// Long enough for every test, short enough for one that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
